#include "client/context.h"

#include "support/error.h"

namespace aegis {

void Progress::step(const char* phase, uint64_t done, uint64_t total) const {
  if (cancelled != nullptr && cancelled->load(std::memory_order_relaxed)) fail("R401", "cancelled");
  if (report) report(phase, done, total);
}

CryptoContext::CryptoContext(const plan::Plan& plan, uint32_t threads)
    : parameters(ClientParameters::fromPlan(plan)),
      ring(parameters.logN, parameters.primes),
      pool(threads),
      kernels(cpuKernels()),
      encoder(ring, pool) {}

std::vector<uint16_t> CryptoContext::levelLimbs(uint32_t level) const {
  AEGIS_INVARIANT(level <= parameters.maxLevel);
  std::vector<uint16_t> limbs(level + 1);
  for (uint32_t i = 0; i <= level; i++) limbs[i] = uint16_t(i);
  return limbs;
}

std::vector<uint16_t> CryptoContext::allLimbs() const {
  std::vector<uint16_t> limbs(ring.primeCount());
  for (size_t i = 0; i < limbs.size(); i++) limbs[i] = uint16_t(i);
  return limbs;
}

void CryptoContext::smallToNtt(const SmallPolynomial& small, const std::vector<uint16_t>& limbs,
                               uint64_t* rows) {
  const size_t n = degree();
  AEGIS_INVARIANT(small.size() == n);
  pool.parallelFor(limbs.size(), 1, [&](size_t begin, size_t end) {
    for (size_t j = begin; j < end; j++) {
      const uint64_t q = ring.modulus(limbs[j]);
      uint64_t* row = rows + j * n;
      // No branch on the sign: q is added where the sign bit is set.
      for (size_t i = 0; i < n; i++)
        row[i] = uint64_t(int64_t(small[i])) + (q & uint64_t(int64_t(small[i]) >> 63));
    }
  });
  Launch launch;
  launch.limbs = limbs.data();
  launch.limbCount = uint32_t(limbs.size());
  Rows operand;
  operand.base = rows;
  operand.limbStride = ptrdiff_t(n);
  kernels.ntt(ring, pool, launch, operand, operand);
}

void multiplyRow(const uint64_t* a, const uint64_t* b, uint64_t* out, size_t count, const Prime& prime) {
  for (size_t i = 0; i < count; i++) out[i] = reduce128(uint128(a[i]) * b[i], prime);
}

void multiplyAddRow(const uint64_t* a, const uint64_t* b, uint64_t* out, size_t count, const Prime& prime) {
  for (size_t i = 0; i < count; i++) out[i] = reduce128(uint128(a[i]) * b[i] + out[i], prime);
}

bool isCanonicalRow(const uint64_t* row, size_t count, uint64_t q) {
  uint64_t bad = 0;
  for (size_t i = 0; i < count; i++) bad |= uint64_t(row[i] >= q);
  return bad == 0;
}

}  // namespace aegis

#include "client_keyswitch.h"

#include <algorithm>

#include "ckks/modulus.h"

namespace aegis::test {
namespace {

Launch launchOf(const std::vector<uint16_t>& limbs) {
  Launch launch;
  launch.limbs = limbs.data();
  launch.limbCount = uint32_t(limbs.size());
  return launch;
}

Rows rowsOf(Poly& poly, size_t n, size_t componentRows = 0) {
  Rows rows;
  rows.base = poly.data();
  rows.limbStride = ptrdiff_t(n);
  rows.componentStride = ptrdiff_t(componentRows * n);
  return rows;
}

// Digit [first, first + count) of c (coefficient form) extended to all `limbs`, NTT form.
Poly modUp(CryptoContext& context, Poly& coefficients, uint32_t first, uint32_t count,
           const std::vector<uint16_t>& limbs) {
  const size_t n = context.degree();
  std::vector<uint16_t> sources(count);
  for (uint32_t i = 0; i < count; i++) sources[i] = uint16_t(first + i);
  Rows in = rowsOf(coefficients, n);
  in.base += first * n;
  Poly out(limbs.size() * n);
  context.kernels.baseConvert(context.ring, context.pool, launchOf(limbs), rowsOf(out, n), in, sources.data(),
                              count);
  // The digit's own residues are exact, not converted.
  std::copy(in.base, in.base + count * n, out.begin() + ptrdiff_t(first * n));
  context.kernels.ntt(context.ring, context.pool, launchOf(limbs), rowsOf(out, n), rowsOf(out, n));
  return out;
}

}  // namespace

Poly modDown(CryptoContext& context, Poly x, uint32_t level, const std::vector<uint16_t>& limbs) {
  const size_t n = context.degree();
  const std::vector<uint16_t> q(limbs.begin(), limbs.begin() + level + 1),
      p(limbs.begin() + level + 1, limbs.end());
  Rows special = rowsOf(x, n);
  special.base += (level + 1) * n;
  context.kernels.intt(context.ring, context.pool, launchOf(p), special, special);
  Poly remainder(q.size() * n);
  context.kernels.baseConvert(context.ring, context.pool, launchOf(q), rowsOf(remainder, n), special,
                              p.data(), uint32_t(p.size()));
  context.kernels.ntt(context.ring, context.pool, launchOf(q), rowsOf(remainder, n), rowsOf(remainder, n));
  std::vector<uint64_t> inverse;
  for (uint16_t limb : q) {
    const uint64_t modulus = context.ring.modulus(limb);
    uint64_t product = 1;
    for (uint16_t s : p) product = mulMod(product, context.ring.modulus(s) % modulus, modulus);
    inverse.push_back(invMod(product, modulus));
  }
  Poly out(q.size() * n);
  context.kernels.subScale(context.ring, context.pool, launchOf(q), rowsOf(out, n), rowsOf(x, n),
                           rowsOf(remainder, n), inverse.data());
  return out;
}

Poly raise(CryptoContext& context, Poly row, uint16_t limb) {
  const size_t n = context.degree();
  const std::vector<uint16_t> from = {0}, to = {limb};
  context.kernels.intt(context.ring, context.pool, launchOf(from), rowsOf(row, n), rowsOf(row, n));
  Poly out(n);
  context.kernels.baseConvert(context.ring, context.pool, launchOf(to), rowsOf(out, n), rowsOf(row, n),
                              from.data(), 1);
  context.kernels.ntt(context.ring, context.pool, launchOf(to), rowsOf(out, n), rowsOf(out, n));
  return out;
}

std::pair<Poly, Poly> keySwitch(CryptoContext& context, const SwitchInput& input) {
  const size_t n = context.degree();
  const KeyClassShape& shape = input.keyClass;
  const uint32_t qRows = input.level + 1;
  std::vector<uint16_t> limbs, keyRows;
  for (uint32_t i = 0; i < qRows; i++) {
    limbs.push_back(shape.limbs[shape.rowOf(i)]);
    keyRows.push_back(uint16_t(shape.rowOf(i)));
  }
  for (uint32_t i = 0; i < shape.specials; i++) {
    limbs.push_back(shape.limbs[i]);
    keyRows.push_back(uint16_t(i));
  }
  Poly coefficients = input.c;
  const std::vector<uint16_t> q(limbs.begin(), limbs.begin() + qRows);
  context.kernels.intt(context.ring, context.pool, launchOf(q), rowsOf(coefficients, n),
                       rowsOf(coefficients, n));
  Poly digits;
  uint32_t digitCount = 0;
  for (const auto& digit : shape.digits) {
    if (digit.first > input.level) break;
    const Poly extended =
        modUp(context, coefficients, digit.first, std::min(digit.count, qRows - digit.first), limbs);
    digits.insert(digits.end(), extended.begin(), extended.end());
    digitCount++;
  }
  Poly product(2 * limbs.size() * n);
  context.kernels.keyProduct(context.ring, context.pool, launchOf(limbs), rowsOf(product, n, limbs.size()),
                             rowsOf(digits, n, limbs.size()), digitCount, &input.key, ~0u, keyRows.data());
  Poly first(product.begin(), product.begin() + ptrdiff_t(limbs.size() * n));
  for (size_t j = 0; j < qRows && !input.addend.empty(); j++) {
    const Prime& prime = context.ring.prime(limbs[j]);
    uint64_t specials = 1;
    for (size_t s = qRows; s < limbs.size(); s++)
      specials = mulMod(specials, context.ring.modulus(limbs[s]) % prime.q, prime.q);
    for (size_t i = j * n; i < (j + 1) * n; i++)
      first[i] = addMod(first[i], mulMod(specials, input.addend[i], prime.q), prime.q);
  }
  Poly second(product.begin() + ptrdiff_t(limbs.size() * n), product.end());
  return {modDown(context, std::move(first), input.level, limbs),
          modDown(context, std::move(second), input.level, limbs)};
}

Poly automorphism(CryptoContext& context, const Poly& in, uint32_t level, uint32_t galois) {
  const std::vector<uint16_t> limbs = context.levelLimbs(level);
  Poly from = in, out(in.size());
  context.kernels.automorphism(context.ring, context.pool, launchOf(limbs), rowsOf(out, context.degree()),
                               rowsOf(from, context.degree()), &galois, ~0u);
  return out;
}

}  // namespace aegis::test

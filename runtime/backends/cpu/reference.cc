// The oracle: every kernel written from its definition, one thread, the division instruction for every
// reduction. Nothing here is shared with the fast kernels but the ring's primes, psi and the index arithmetic
// of batches.
#include <vector>

#include "backends/cpu/batch.h"
#include "backends/cpu/tables.h"
#include "ckks/ring.h"
#include "support/error.h"

namespace aegis::cpu {
namespace {

// visit(flat outer index, limb) for every output row.
template <class Visit>
void forEachRow(const Launch& launch, Visit visit) {
  for (size_t o = 0; o < outerCount(launch); o++)
    for (uint32_t j = 0; j < launch.limbCount; j++) visit(o, j);
}

template <class Operand>
auto* rowAt(const Launch& launch, const Operand& x, size_t outer, size_t reduced, uint32_t limb) {
  return x.base + offsetOf(launch, x.strides, 0, outerRank(launch), outer) +
         offsetOf(launch, x.strides, outerRank(launch), launch.rank, reduced) +
         ptrdiff_t(limb) * x.limbStride;
}

// Powers of `root` in bit-reversed order: the twiddle of block i in the layer with m blocks is entry m + i.
std::vector<uint64_t> powers(uint32_t count, uint64_t root, uint64_t q) {
  std::vector<uint64_t> table(count);
  uint64_t power = 1;
  for (uint32_t i = 0; i < count; i++, power = mulMod(power, root, q))
    table[reverseBits(i, uint32_t(__builtin_ctz(count)))] = power;
  return table;
}

void transform(std::vector<uint64_t>& x, const std::vector<uint64_t>& w, uint64_t q) {
  for (uint32_t m = 1, t = uint32_t(x.size()) / 2; t >= 1; m *= 2, t /= 2)
    for (uint32_t i = 0; i < m; i++)
      for (uint32_t k = 2 * i * t; k < 2 * i * t + t; k++) {
        const uint64_t u = x[k], v = mulMod(x[k + t], w[m + i], q);
        x[k] = (u + v) % q;
        x[k + t] = (u + q - v) % q;
      }
}

// The rowWords words of a plaintext row in NTT form.
std::vector<uint64_t> plainWords(const RingContext& ring, const PlainRows& p, const uint64_t* row,
                                 uint16_t limb) {
  std::vector<uint64_t> x(row, row + p.rowWords);
  if (!p.coefficients) return x;
  const uint64_t q = ring.modulus(limb);
  for (uint64_t& word : x) {
    const __int128 remainder = __int128(int64_t(word)) % __int128(q);
    word = uint64_t(remainder < 0 ? remainder + q : remainder);
  }
  transform(x, powers(p.rowWords, powMod(ring.psi(limb), ring.degree() / p.rowWords, q), q), q);
  return x;
}

uint64_t plainAt(const RingContext& ring, const std::vector<uint64_t>& words, uint32_t k) {
  return words[k / (ring.degree() / words.size())];
}

void zero(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out) {
  forEachRow(launch, [&](size_t o, uint32_t j) {
    uint64_t* row = rowAt(launch, out, o, 0, j);
    for (uint32_t k = 0; k < ring.degree(); k++) row[k] = 0;
  });
}

void copy(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a) {
  forEachRow(launch, [&](size_t o, uint32_t j) {
    const uint64_t q = ring.modulus(launch.limbs[j]);
    uint64_t* row = rowAt(launch, out, o, 0, j);
    for (uint32_t k = 0; k < ring.degree(); k++) {
      uint64_t sum = launch.accumulate ? row[k] : 0;
      for (size_t r = 0; r < reduceCount(launch); r++) sum = (sum + rowAt(launch, a, o, r, j)[k]) % q;
      row[k] = sum;
    }
  });
}

void add(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a, Rows b) {
  forEachRow(launch, [&](size_t o, uint32_t j) {
    for (uint32_t k = 0; k < ring.degree(); k++)
      rowAt(launch, out, o, 0, j)[k] =
          (rowAt(launch, a, o, 0, j)[k] + rowAt(launch, b, o, 0, j)[k]) % ring.modulus(launch.limbs[j]);
  });
}

void sub(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a, Rows b) {
  forEachRow(launch, [&](size_t o, uint32_t j) {
    const uint64_t q = ring.modulus(launch.limbs[j]);
    for (uint32_t k = 0; k < ring.degree(); k++)
      rowAt(launch, out, o, 0, j)[k] = (rowAt(launch, a, o, 0, j)[k] + q - rowAt(launch, b, o, 0, j)[k]) % q;
  });
}

void addPlain(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a, PlainRows p) {
  forEachRow(launch, [&](size_t o, uint32_t j) {
    const std::vector<uint64_t> plain = plainWords(ring, p, rowAt(launch, p, o, 0, j), launch.limbs[j]);
    for (uint32_t k = 0; k < ring.degree(); k++)
      rowAt(launch, out, o, 0, j)[k] =
          (rowAt(launch, a, o, 0, j)[k] + plainAt(ring, plain, k)) % ring.modulus(launch.limbs[j]);
  });
}

void contract(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a, PlainRows p) {
  forEachRow(launch, [&](size_t o, uint32_t j) {
    const uint64_t q = ring.modulus(launch.limbs[j]);
    uint64_t* row = rowAt(launch, out, o, 0, j);
    std::vector<uint64_t> sum(ring.degree(), 0);
    if (launch.accumulate) sum.assign(row, row + ring.degree());
    for (size_t r = 0; r < reduceCount(launch); r++) {
      const uint64_t* x = rowAt(launch, a, o, r, j);
      const std::vector<uint64_t> plain = plainWords(ring, p, rowAt(launch, p, o, r, j), launch.limbs[j]);
      for (uint32_t k = 0; k < ring.degree(); k++)
        sum[k] = (sum[k] + mulMod(x[k], plainAt(ring, plain, k), q)) % q;
    }
    for (uint32_t k = 0; k < ring.degree(); k++) row[k] = sum[k];
  });
}

void tensor(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a, Rows b) {
  forEachRow(launch, [&](size_t o, uint32_t j) {
    const uint64_t q = ring.modulus(launch.limbs[j]);
    uint64_t* row = rowAt(launch, out, o, 0, j);
    for (uint32_t k = 0; k < ring.degree(); k++) {
      uint64_t sum[3] = {};
      for (uint32_t c = 0; c < 3; c++) sum[c] = launch.accumulate ? row[c * out.componentStride + k] : 0;
      for (size_t r = 0; r < reduceCount(launch); r++) {
        const uint64_t* x = rowAt(launch, a, o, r, j) + k;
        const uint64_t* y = rowAt(launch, b, o, r, j) + k;
        const uint64_t a0 = x[0], a1 = x[a.componentStride], b0 = y[0], b1 = y[b.componentStride];
        sum[0] = (sum[0] + mulMod(a0, b0, q)) % q;
        sum[1] = (sum[1] + mulMod(a0, b1, q) + mulMod(a1, b0, q)) % q;
        sum[2] = (sum[2] + mulMod(a1, b1, q)) % q;
      }
      for (uint32_t c = 0; c < 3; c++) row[c * out.componentStride + k] = sum[c];
    }
  });
}

void ntt(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a) {
  for (uint32_t j = 0; j < launch.limbCount; j++) {
    const uint64_t q = ring.modulus(launch.limbs[j]);
    const auto w = powers(ring.degree(), ring.psi(launch.limbs[j]), q);
    for (size_t o = 0; o < outerCount(launch); o++) {
      const uint64_t* in = rowAt(launch, a, o, 0, j);
      std::vector<uint64_t> x(in, in + ring.degree());
      transform(x, w, q);
      uint64_t* row = rowAt(launch, out, o, 0, j);
      for (uint32_t k = 0; k < ring.degree(); k++) row[k] = x[k];
    }
  }
}

void intt(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a) {
  for (uint32_t j = 0; j < launch.limbCount; j++) {
    const uint64_t q = ring.modulus(launch.limbs[j]);
    const auto w = powers(ring.degree(), invMod(ring.psi(launch.limbs[j]), q), q);
    const uint64_t nInverse = invMod(ring.degree(), q);
    for (size_t o = 0; o < outerCount(launch); o++) {
      const uint64_t* in = rowAt(launch, a, o, 0, j);
      std::vector<uint64_t> x(in, in + ring.degree());
      for (uint32_t t = 1, m = ring.degree() / 2; m >= 1; t *= 2, m /= 2)
        for (uint32_t i = 0; i < m; i++)
          for (uint32_t k = 2 * i * t; k < 2 * i * t + t; k++) {
            const uint64_t u = x[k], v = x[k + t];
            x[k] = (u + v) % q;
            x[k + t] = mulMod((u + q - v) % q, w[m + i], q);
          }
      uint64_t* row = rowAt(launch, out, o, 0, j);
      for (uint32_t k = 0; k < ring.degree(); k++) row[k] = mulMod(x[k], nInverse, q);
    }
  }
}

void baseConvert(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a,
                 const uint16_t* sourceLimbs, uint32_t sourceCount) {
  auto product = [&](uint32_t skip, uint64_t modulo) {  // D / q_skip
    uint64_t value = 1 % modulo;
    for (uint32_t i = 0; i < sourceCount; i++)
      if (i != skip) value = mulMod(value, ring.modulus(sourceLimbs[i]) % modulo, modulo);
    return value;
  };
  std::vector<uint64_t> scale(sourceCount), matrix(size_t(sourceCount) * launch.limbCount);
  for (uint32_t i = 0; i < sourceCount; i++) {
    const uint64_t q = ring.modulus(sourceLimbs[i]);
    scale[i] = invMod(product(i, q), q);
    for (uint32_t j = 0; j < launch.limbCount; j++)
      matrix[size_t(j) * sourceCount + i] = product(i, ring.modulus(launch.limbs[j]));
  }
  for (size_t o = 0; o < outerCount(launch); o++)
    for (uint32_t k = 0; k < ring.degree(); k++) {
      std::vector<int64_t> centred(sourceCount);
      for (uint32_t i = 0; i < sourceCount; i++) {
        const uint64_t q = ring.modulus(sourceLimbs[i]);
        const uint64_t y = mulMod(rowAt(launch, a, o, 0, i)[k], scale[i], q);
        centred[i] = y > q / 2 ? int64_t(y) - int64_t(q) : int64_t(y);
      }
      for (uint32_t j = 0; j < launch.limbCount; j++) {
        const int64_t p = int64_t(ring.modulus(launch.limbs[j]));
        uint64_t sum = 0;
        for (uint32_t i = 0; i < sourceCount; i++) {
          const uint64_t y = uint64_t((centred[i] % p + p) % p);
          sum = (sum + mulMod(y, matrix[size_t(j) * sourceCount + i], uint64_t(p))) % uint64_t(p);
        }
        rowAt(launch, out, o, 0, j)[k] = sum;
      }
    }
}

void subScale(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a, Rows b,
              const uint64_t* scalars) {
  forEachRow(launch, [&](size_t o, uint32_t j) {
    const uint64_t q = ring.modulus(launch.limbs[j]);
    for (uint32_t k = 0; k < ring.degree(); k++)
      rowAt(launch, out, o, 0, j)[k] =
          mulMod((rowAt(launch, a, o, 0, j)[k] + q - rowAt(launch, b, o, 0, j)[k]) % q, scalars[j] % q, q);
  });
}

void nttSubScale(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a, Rows b,
                 const uint64_t* scalars) {
  ntt(ring, pool, launch, out, b);
  subScale(ring, pool, launch, out, a, out, scalars);
}

// The index along batch dimension `dim` of an (outer, reduced) pair; 0 if dim is ~0u.
uint32_t batchIndex(const Launch& launch, uint32_t dim, size_t outer, size_t reduced) {
  if (dim == ~0u) return 0;
  AEGIS_INVARIANT(dim < launch.rank);
  return dim < outerRank(launch) ? indexOf(launch, dim, outerRank(launch), outer)
                                 : indexOf(launch, dim, launch.rank, reduced);
}

void keyProduct(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows digits,
                uint32_t digitCount, const KeyView* keys, uint32_t keyDim, const uint16_t* keyRows) {
  forEachRow(launch, [&](size_t o, uint32_t j) {
    const uint64_t q = ring.modulus(launch.limbs[j]);
    for (uint32_t c = 0; c < 2; c++) {
      uint64_t* row = rowAt(launch, out, o, 0, j) + ptrdiff_t(c) * out.componentStride;
      for (uint32_t k = 0; k < ring.degree(); k++) {
        uint64_t sum = launch.accumulate ? row[k] : 0;
        for (size_t r = 0; r < reduceCount(launch); r++)
          for (uint32_t d = 0; d < digitCount; d++) {
            const KeyView& key = keys[batchIndex(launch, keyDim, o, r)];
            const size_t keyRow = (size_t(d) * 2 + c) * key.rowCount + key.place(keyRows[j]);
            const uint64_t digit = rowAt(launch, digits, o, r, j)[ptrdiff_t(d) * digits.componentStride + k];
            sum = (sum + mulMod(digit, key.base[keyRow * ring.degree() + k], q)) % q;
          }
        row[k] = sum;
      }
    }
  });
}

void automorphism(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a,
                  const uint32_t* galois, uint32_t galoisDim) {
  const uint64_t order = 2 * uint64_t(ring.degree());
  forEachRow(launch, [&](size_t o, uint32_t j) {
    const uint64_t q = ring.modulus(launch.limbs[j]);
    uint64_t* row = rowAt(launch, out, o, 0, j);
    for (uint32_t k = 0; k < ring.degree(); k++) {
      uint64_t sum = launch.accumulate ? row[k] : 0;
      for (size_t r = 0; r < reduceCount(launch); r++) {
        const uint64_t g = galois[batchIndex(launch, galoisDim, o, r)];
        const uint64_t exponent = g * (2 * uint64_t(ring.bitReverse(k)) + 1) % order;
        sum = (sum + rowAt(launch, a, o, r, j)[ring.bitReverse(uint32_t((exponent - 1) / 2))]) % q;
      }
      row[k] = sum;
    }
  });
}

void sumRows(uint64_t* out, const uint64_t* const* rows, size_t count, size_t words, const Prime& prime) {
  for (size_t k = 0; k < words; k++) {
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) sum = (sum + rows[i][k]) % prime.q;
    out[k] = sum;
  }
}

}  // namespace

const KernelTable referenceKernels = {"reference", zero,     copy,       add,         sub,
                                      addPlain,    contract, tensor,     ntt,         intt,
                                      baseConvert, subScale, nttSubScale, keyProduct,
                                      automorphism, sumRows};

}  // namespace aegis::cpu

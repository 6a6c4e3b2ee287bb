// Row operations in standard C++ with 128-bit products: any 64-bit machine.
#include "backends/cpu/tables.h"
#include "ckks/modulus.h"

namespace aegis::cpu {
namespace {

#include "backends/cpu/elementwise.inl"

void subScale(uint64_t* out, const uint64_t* a, const uint64_t* b, size_t words, uint64_t scalar,
              const Prime& prime) {
  const uint64_t q = prime.q, companion = shoup64(scalar, q);
  for (size_t k = 0; k < words; k++) out[k] = mulShoup(a[k] + q - b[k], scalar, companion, q);
}

void sum(uint64_t* out, const uint64_t* const* rows, size_t count, size_t words, bool accumulate,
         const Prime& prime) {
  for (size_t k = 0; k < words; k++) {
    uint64_t total = accumulate ? out[k] : 0;
    for (size_t i = 0; i < count; i++) total += rows[i][k];
    out[k] = reduce64(total, prime);
  }
}

void gather(uint64_t* out, const Gather* terms, size_t count, size_t words, Write write,
            const Prime& prime) {
  const bool accumulate = write == Write::kAccumulate;
  if (count == 1 && !accumulate) {
    for (size_t k = 0; k < words; k++) out[k] = terms[0].a[terms[0].index[k]];
    return;
  }
  for (size_t k = 0; k < words; k++) {
    uint64_t total = accumulate ? out[k] : 0;
    for (size_t i = 0; i < count; i++) total += terms[i].a[terms[i].index[k]];
    out[k] = reduce64(total, prime);
  }
}

void dot(uint64_t* out, const Term* terms, size_t count, size_t words, uint32_t shift, Write write,
         const Prime& prime) {
  for (size_t k = 0; k < words; k++) {
    uint128 total = write == Write::kAccumulate ? out[k] : 0;
    for (size_t i = 0; i < count; i++) total += uint128(terms[i].a[k]) * terms[i].b[k >> shift];
    out[k] = reduce128(total, prime);
  }
}

void convert(uint64_t* const* out, const uint64_t* const* in, size_t words, Write, const ConversionTable& t,
             uint64_t* scratch) {
  for (uint32_t i = 0; i < t.sourceCount; i++) {
    const uint64_t q = t.sources[i].q, half = (q - 1) / 2;
    for (size_t k = 0; k < words; k++)
      scratch[i * words + k] = addMod(mulShoup(in[i][k], t.scale[i], t.scaleShoup64[i], q), half, q);
  }
  for (uint32_t j = 0; j < t.destinationCount; j++) {
    const uint64_t* row = t.matrix + size_t(j) * t.sourceCount;
    for (size_t k = 0; k < words; k++) {
      uint128 total = t.offset[j];
      for (uint32_t i = 0; i < t.sourceCount; i++) total += uint128(scratch[i * words + k]) * row[i];
      out[j][k] = reduce128(total, t.destinations[j]);
    }
  }
}

// Harvey 2014: values stay in [0, 4q), 4q < 2^52.
void nttLazy(uint64_t* out, const uint64_t* a, const NttTable& table) {
  const size_t n = size_t(1) << table.logN;
  const uint64_t q = table.prime.q, twoQ = 2 * q;
  const Twiddles<uint64_t>& w = table.words;
  const uint64_t* source = a;
  for (size_t m = 1, t = n / 2; t >= 1; m *= 2, t /= 2, source = out)
    for (size_t i = 0; i < m; i++) {
      const uint64_t twiddle = w.forward[m + i], companion = w.forwardCompanion[m + i];
      for (size_t k = 2 * i * t; k < 2 * i * t + t; k++) {
        uint64_t x = source[k];
        x = x >= twoQ ? x - twoQ : x;
        const uint64_t y = mulShoupLazy(source[k + t], twiddle, companion, q);
        out[k] = x + y;
        out[k + t] = x + twoQ - y;
      }
    }
}

void ntt(uint64_t* out, const uint64_t* a, const uint64_t*, const NttTable& table) {
  nttLazy(out, a, table);
  const uint64_t q = table.prime.q, twoQ = 2 * q;
  for (size_t k = 0; k < size_t(1) << table.logN; k++) {
    const uint64_t x = out[k] >= twoQ ? out[k] - twoQ : out[k];
    out[k] = x >= q ? x - q : x;
  }
}

void nttSubScale(uint64_t* out, const uint64_t* a, const uint64_t* b, const uint64_t*, uint64_t scalar,
                 const NttTable& table) {
  nttLazy(out, b, table);
  const uint64_t q = table.prime.q, companion = shoup64(scalar, q);
  for (size_t k = 0; k < size_t(1) << table.logN; k++)
    out[k] = mulShoup(a[k] + 4 * q - out[k], scalar, companion, q);
}

// Values in [0, 2q); the last layer carries the division by N.
void intt(uint64_t* out, const uint64_t* a, const uint64_t*, const NttTable& table) {
  const size_t n = size_t(1) << table.logN;
  const uint64_t q = table.prime.q, twoQ = 2 * q;
  const Twiddles<uint64_t>& w = table.words;
  const uint64_t* source = a;
  for (size_t m = n / 2, t = 1; m >= 2; m /= 2, t *= 2, source = out)
    for (size_t i = 0; i < m; i++) {
      const uint64_t twiddle = w.inverse[m + i], companion = w.inverseCompanion[m + i];
      for (size_t k = 2 * i * t; k < 2 * i * t + t; k++) {
        const uint64_t x = source[k], y = source[k + t];
        out[k] = x + y >= twoQ ? x + y - twoQ : x + y;
        out[k + t] = mulShoupLazy(x + twoQ - y, twiddle, companion, q);
      }
    }
  for (size_t k = 0; k < n / 2; k++) {
    const uint64_t x = out[k], y = out[k + n / 2];
    out[k] = mulShoup(x + y, w.nInverse, w.nInverseCompanion, q);
    out[k + n / 2] = mulShoup(x + twoQ - y, w.nInverseTwiddle, w.nInverseTwiddleCompanion, q);
  }
}

}  // namespace

const RowOps portableOps = {
    "portable", TwiddleForm::kShoup64, addRow, subRow, addPlainRow, signedRow, subScale, sum, gather, dot,
    convert, ntt, intt, nttSubScale};

}  // namespace aegis::cpu

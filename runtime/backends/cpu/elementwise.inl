// Loops that the compiler vectorises well, compiled once per instruction set: include inside an anonymous
// namespace. A sum below 2q is reduced by adding q where (sum - q) is negative: signed 64-bit compares exist
// everywhere.

inline uint64_t reduceOnce(uint64_t sum, uint64_t q) {
  const int64_t difference = int64_t(sum) - int64_t(q);
  return uint64_t(difference + (difference < 0 ? int64_t(q) : 0));
}

void addRow(uint64_t* out, const uint64_t* a, const uint64_t* b, size_t words, const Prime& prime) {
  const uint64_t q = prime.q;
#pragma GCC ivdep
  for (size_t k = 0; k < words; k++) out[k] = reduceOnce(a[k] + b[k], q);
}

void subRow(uint64_t* out, const uint64_t* a, const uint64_t* b, size_t words, const Prime& prime) {
  const uint64_t q = prime.q;
#pragma GCC ivdep
  for (size_t k = 0; k < words; k++) {
    const int64_t difference = int64_t(a[k]) - int64_t(b[k]);
    out[k] = uint64_t(difference + (difference < 0 ? int64_t(q) : 0));
  }
}

void addPlainRow(uint64_t* out, const uint64_t* a, const uint64_t* b, size_t words, uint32_t shift,
                 const Prime& prime) {
  if (shift == 0) return addRow(out, a, b, words, prime);
  const uint64_t q = prime.q;
  const size_t run = words < (size_t(1) << shift) ? words : size_t(1) << shift;
  for (size_t k = 0; k < words; k += run) {
    const uint64_t value = b[k >> shift];
#pragma GCC ivdep
    for (size_t i = k; i < k + run; i++) out[i] = reduceOnce(a[i] + value, q);
  }
}

bool signedRow(uint64_t* out, const uint64_t* a, size_t words, const Prime& prime) {
  const int64_t q = int64_t(prime.q);
  int64_t largest = 0;
#pragma GCC ivdep
  for (size_t k = 0; k < words; k++) {
    const int64_t x = int64_t(a[k]), sign = x < 0 ? -1 : 0;
    const int64_t magnitude = x ^ sign;  // of -q, which becomes 0, it is q - 1
    largest = magnitude > largest ? magnitude : largest;
    out[k] = uint64_t(x + (q & sign));
  }
  return largest < q;
}

#include "client/sampling.h"

#include <algorithm>

#include "support/error.h"

namespace aegis {
namespace {

// Bits set in a word, without the table that the compiler's own function may use.
uint64_t countBits(uint64_t x) {
  x -= x >> 1 & 0x5555555555555555;
  x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
  x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f;
  return x * 0x0101010101010101 >> 56;
}

}  // namespace

SmallPolynomial sampleTernary(Randomness& random, size_t degree) {
  SmallPolynomial out(degree);
  SecretVector<uint8_t> bytes(4096);
  for (size_t done = 0; done < degree;) {
    random.fill(bytes.data(), bytes.size());
    for (size_t i = 0; i < 4 * bytes.size() && done < degree; i++) {
      const int draw = bytes[i / 4] >> (2 * (i % 4)) & 3;
      if (draw != 3) out[done++] = int8_t(draw - 1);
    }
  }
  return out;
}

SmallPolynomial sampleSparse(Randomness& random, size_t degree, uint32_t weight) {
  AEGIS_INVARIANT(weight <= degree / 2 && (degree & (degree - 1)) == 0);
  SecretVector<uint32_t> places(weight), draw(2);
  SmallPolynomial out(degree, 0);
  for (uint32_t chosen = 0; chosen < weight;) {
    random.fill(draw.data(), 2 * sizeof(uint32_t));
    const uint32_t place = draw[0] & uint32_t(degree - 1);
    bool taken = false;
    for (uint32_t i = 0; i < weight; i++) taken |= (i < chosen) & (places[i] == place);
    if (taken) continue;
    const int sign = int(draw[1] & 1) * 2 - 1;
    // Every coefficient is touched, so that the cache does not tell which one is set.
    for (size_t i = 0; i < degree; i++) out[i] = int8_t(out[i] + (sign & -int(i == place)));
    places[chosen++] = place;
  }
  return out;
}

SmallPolynomial sampleError(Randomness& random, size_t degree) {
  constexpr uint64_t mask = (uint64_t(1) << kBinomialHalfBits) - 1;
  SmallPolynomial out(degree);
  SecretVector<uint64_t> words(std::min<size_t>(degree, 4096));
  for (size_t done = 0; done < degree;) {
    const size_t count = std::min(words.size(), degree - done);
    random.fill(words.data(), count * sizeof(uint64_t));
    for (size_t i = 0; i < count; i++)
      out[done + i] =
          int8_t(int(countBits(words[i] & mask)) - int(countBits(words[i] >> kBinomialHalfBits & mask)));
    done += count;
  }
  return out;
}

}  // namespace aegis

// From residues to the centred integer, as the nearest double: mixed radix digits (Garner), exact up to one
// final rounding of 113-bit sums to 53 bits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ckks/ring.h"

namespace aegis {

class RnsDecoder {
 public:
  RnsDecoder(const RingContext& ring, std::span<const uint16_t> limbs);
  // Residue of limb i at residues[i * stride]; the result lies in (-Q/2, Q/2).
  double centred(const uint64_t* residues, size_t stride) const;

 private:
  struct Shoup {
    uint64_t value, companion;
  };
  bool centredShort(const uint64_t* residues, size_t stride, double& result) const;
  double centredLong(const uint64_t* residues, size_t stride) const;

  std::vector<Prime> primes_;
  std::vector<Shoup> inverse_;        // [i][j < i]: q_j^-1 mod q_i
  std::vector<uint64_t> halfDigits_;  // mixed radix digits of (Q - 1) / 2
};

}  // namespace aegis

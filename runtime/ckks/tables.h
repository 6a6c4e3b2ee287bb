// Plain tables that the kernels read. No C++ library headers here: this file is included by translation units
// that are compiled for one instruction set, and an inline library function emitted there could be linked
// into all others.
#pragma once

#include <cstddef>
#include <cstdint>

namespace aegis {

// One RNS prime q < 2^50 and the constants of the three reductions.
//   Shoup companion of w to base 2^b: floor(w 2^b / q). Then x w - floor(x companion / 2^b) q lies in [0, 2q)
//   for x < 2^b.
struct Prime {
  uint64_t q = 0;
  // portable: 64-bit words
  uint64_t one64 = 0;              // floor(2^64 / q): companion of 1
  uint64_t r64 = 0, r64Shoup = 0;  // 2^64 mod q and its companion
  // AVX-512 IFMA: 52-bit words
  uint64_t one52 = 0;                // floor(2^52 / q)
  uint64_t r52 = 0, r52Shoup = 0;    // 2^52 mod q
  uint64_t r104 = 0, r104Shoup = 0;  // 2^104 mod q
  // AVX2: 25-bit halves, reduced in double precision
  uint64_t r50 = 0, r98 = 0;  // 2^50 mod q, 2^98 mod q
  // CUDA, double precision
  double inverse = 0;  // the nearest double to 1 / q
};

// What accompanies a twiddle w in an NTT table.
enum class TwiddleForm : uint32_t {
  kShoup64,  // uint64_t floor(w 2^64 / q)
  kShoup52,  // uint64_t floor(w 2^52 / q)
  kFloat,    // both as double: w and the nearest double to w / q
  kCentred,  // w as double in (-q / 2, q / 2), without companions
};
constexpr uint32_t kTwiddleForms = 4;

// Twiddles of one prime in bit-reversed order: forward[k] = psi^brv(k), inverse[k] = forward[k]^-1, k in [1,
// N). Layer with m blocks (m = 1, 2, ..., N/2) uses entry m + i for block i. The last inverse layer (m = 1)
// is merged with the division by N: sums are multiplied by nInverse, differences by nInverseTwiddle =
// nInverse * inverse[1].
template <class Word>
struct Twiddles {
  const Word* forward = nullptr;
  const Word* forwardCompanion = nullptr;
  const Word* inverse = nullptr;
  const Word* inverseCompanion = nullptr;
  Word nInverse{}, nInverseCompanion{};
  Word nInverseTwiddle{}, nInverseTwiddleCompanion{};
};

struct NttTable {
  uint32_t logN = 0;
  TwiddleForm form = TwiddleForm::kShoup64;
  Prime prime;
  Twiddles<uint64_t> words;  // kShoup64, kShoup52
  Twiddles<double> floats;   // kFloat, kCentred
};

// Centred base conversion from primes q_i with product D to primes p_j. With h_i = (q_i - 1) / 2 the centred
// residue is y_i = u_i - h_i, u_i = (a_i (D/q_i)^-1 + h_i) mod q_i, so that
//   out_j = sum_i y_i (D/q_i) = sum_i u_i matrix[j][i] + offset[j]  mod p_j,  offset[j] = -sum_i h_i (D/q_i),
// a sum of non-negative products.
struct ConversionTable {
  uint32_t sourceCount = 0;
  uint32_t destinationCount = 0;
  const Prime* sources = nullptr;       // [sourceCount]
  const Prime* destinations = nullptr;  // [destinationCount]
  const uint64_t* scale = nullptr;      // [sourceCount] (D/q_i)^-1 mod q_i
  const uint64_t* scaleShoup64 = nullptr;
  const uint64_t* scaleShoup52 = nullptr;
  const uint64_t* matrix = nullptr;  // [destinationCount][sourceCount] D/q_i mod p_j
  const uint64_t* offset = nullptr;  // [destinationCount]
};

}  // namespace aegis

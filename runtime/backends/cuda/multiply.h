// The forms of modular multiplication by a known factor, x w mod q with q < 2^50. All give the same residues;
// which one a module's kernels use is chosen when it is built (arithmetic.h), by the rows multiply_* of
// aegis-bench. `companion` is floor(w 2^64 / q) (Shoup) in every form, so tables do not depend on it.
//
//   shoup64  quotient from the high word of a 64-bit product. 10 IMAD (arithmetic.h).
//   split32  the same, the high word from four 32-bit products with 64-bit addends (IMAD.WIDE): 4 and some
//            additions that do not depend on how a compiler expands __umul64hi.
//   fp64     quotient and remainder in double precision (Dekker's product by FMA). 4 multiplications or FMA
//            and 4 additions of 64 bits; 2 more additions where w is new. Its x lies below 2^52.
//            Transforms have a form of it without companions, on signed words (butterfly.h).
//            Sums of products stay in integers: a product has 100 bits, and a double would need a reduction
//            for each term.
#pragma once

#include <cstring>

#include "backends/cuda/block.h"
#include "ckks/tables.h"

namespace aegis::cuda {

// Named as the values of -DAEGIS_CUDA_MULTIPLY.
enum class MultiplyForm : uint32_t { shoup64, split32, fp64 };
constexpr uint32_t kMultiplyForms = 3;

constexpr TwiddleForm twiddlesOf(MultiplyForm form) {
  return form == MultiplyForm::fp64 ? TwiddleForm::kCentred : TwiddleForm::kShoup64;
}

template <MultiplyForm form>
struct Multiply;

template <>
struct Multiply<MultiplyForm::shoup64> {
  static constexpr bool kNarrow = false;

  static AEGIS_DEVICE uint64_t high(uint64_t a, uint64_t b) {
#if defined(__CUDACC__)
    return __umul64hi(a, b);
#else
    return uint64_t(static_cast<unsigned __int128>(a) * b >> 64);
#endif
  }
  // x w mod q in [0, 2q), for any 64-bit x.
  static AEGIS_DEVICE uint64_t lazy(uint64_t x, uint64_t w, uint64_t companion, uint64_t q) {
    return x * w - high(x, companion) * q;
  }
  // To (sumHigh, sumLow), for a and b below 2^51.
  static AEGIS_DEVICE void addProduct(uint64_t& sumHigh, uint64_t& sumLow, uint64_t a, uint64_t b) {
    const uint64_t product = a * b;
    sumLow += product;
    sumHigh += high(a, b) + (sumLow < product ? 1 : 0);
  }
};

template <>
struct Multiply<MultiplyForm::split32> {
  static constexpr bool kNarrow = false;

  static AEGIS_DEVICE uint64_t high(uint64_t a, uint64_t b) {
    const uint32_t a0 = uint32_t(a), a1 = uint32_t(a >> 32), b0 = uint32_t(b), b1 = uint32_t(b >> 32);
    const uint64_t first = uint64_t(a1) * b0 + (uint64_t(a0) * b0 >> 32);
    const uint64_t second = uint64_t(a0) * b1 + uint32_t(first);
    return uint64_t(a1) * b1 + (first >> 32) + (second >> 32);
  }
  static AEGIS_DEVICE uint64_t lazy(uint64_t x, uint64_t w, uint64_t companion, uint64_t q) {
    return x * w - high(x, companion) * q;
  }
  // Upper halves are below 2^19, so both middle products fit one word.
  static AEGIS_DEVICE void addProduct(uint64_t& sumHigh, uint64_t& sumLow, uint64_t a, uint64_t b) {
    const uint32_t a0 = uint32_t(a), a1 = uint32_t(a >> 32), b0 = uint32_t(b), b1 = uint32_t(b >> 32);
    const uint64_t low = uint64_t(a0) * b0, middle = uint64_t(a1) * b0 + uint64_t(a0) * b1;
    const uint64_t product = low + (middle << 32);
    sumLow += product;
    sumHigh += uint64_t(a1) * b1 + (middle >> 32) + (product < low ? 1 : 0) + (sumLow < product ? 1 : 0);
  }
};

// Operations that no compiler option fuses or splits.
namespace floating {

#if defined(__CUDACC__)
AEGIS_DEVICE double add(double a, double b) { return __dadd_rn(a, b); }
AEGIS_DEVICE double sub(double a, double b) { return __dsub_rn(a, b); }
AEGIS_DEVICE double mul(double a, double b) { return __dmul_rn(a, b); }
AEGIS_DEVICE double fma(double a, double b, double c) { return __fma_rn(a, b, c); }
AEGIS_DEVICE double ofBits(uint64_t bits) { return __longlong_as_double(static_cast<long long>(bits)); }
AEGIS_DEVICE uint64_t bitsOf(double x) { return uint64_t(__double_as_longlong(x)); }
#else
inline double add(double a, double b) { return a + b; }
inline double sub(double a, double b) { return a - b; }
inline double mul(double a, double b) { return a * b; }
inline double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline double ofBits(uint64_t bits) {
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline uint64_t bitsOf(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
#endif

constexpr double kTwo52 = 4503599627370496;
constexpr uint64_t kTwo52Bits = 0x4330000000000000;  // of kTwo52; its mantissa is an integer below 2^52
constexpr uint64_t kOneBits = 0x3ff0000000000000;
constexpr double kRounding = 1.5 * kTwo52;  // x + it - it rounds to an integer, for |x| < 2^51

// x < 2^52.
AEGIS_DEVICE double ofWord(uint64_t x) { return add(ofBits(kTwo52Bits | x), -kTwo52); }
AEGIS_DEVICE uint64_t toWord(double x) { return bitsOf(add(x, kTwo52)) ^ kTwo52Bits; }

// x w mod q in (0, 2q), for x < 2^52 and |ratio - w / q| <= 2^-53: the quotient c = round(x ratio) is off by
// less than 1, since x 2^-53 < 1/2; x w = h + l; h - c q and its sum with l are integers below 2^52: exact.
AEGIS_DEVICE uint64_t multiply(double x, double w, double ratio, double q) {
  const double h = mul(x, w), l = fma(x, w, -h);
  const double c = add(fma(x, ratio, kTwo52), -kTwo52);
  const double r = add(fma(-c, q, h), l);
  return bitsOf(add(r, add(q, kTwo52))) ^ kTwo52Bits;
}

}  // namespace floating

template <>
struct Multiply<MultiplyForm::fp64> : Multiply<MultiplyForm::shoup64> {
  static constexpr bool kNarrow = true;

  // x w mod q in (0, 2q), for x < 2^52. The companion is rounded to 52 bits; w < q < 2^50 keeps it below 1.
  static AEGIS_DEVICE uint64_t lazy(uint64_t x, uint64_t w, uint64_t companion, uint64_t q) {
    const double ratio = floating::add(floating::ofBits(floating::kOneBits | (companion + 2048) >> 12), -1);
    return floating::multiply(floating::ofWord(x), floating::ofWord(w), ratio, floating::ofWord(q));
  }
};

}  // namespace aegis::cuda

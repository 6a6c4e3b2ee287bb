// The words of a row inside a transform (ntt.h), of one prime q < 2^50, in each form of multiply.h: how a
// residue becomes such a word, how two words meet in a butterfly, and which bounds they keep.
//
//   forward (Cooley-Tukey):   u, v -> u + v w, u - v w
//   inverse (Gentleman-Sande): u, v -> u + v, (u - v) w
//
// Words are kept in 64 bits between phases and passes, in a representation of the form's own. A pass does its
// layers in groups of up to 4 in registers; a group calls settle() on what it leaves behind.
//
// shoup64: unsigned words (Harvey 2014), no corrections inside a pass. Forward: layer l of a row leaves words
//   below (2 l + 1) q, 35 q < 2^56 after 17 layers. Inverse: l layers of a pass leave words below
//   2^l q <= 2^62; they are made canonical between the passes. A butterfly takes 10 IMAD.
//
// fp64: signed integers in doubles and twiddles centred in (-q / 2, q / 2), w / q as w times the rounded
//   1 / q, off by 2^-53 at most. A product of |x| < 4 q then lies within (1/2 + |x| / 8 q) q of 0: its
//   quotient round(x w / q) is below 2^51 and found by adding 1.5 * 2^52; x w = h + l exactly, and the
//   remainder is an exact sum. Settled words lie in [-q / 2, q / 2]. Forward: from |x| <= q, four layers
//   leave 1.63, 2.33, 3.12, 4.01 q, and each group settles them all. Inverse: a group begins below q; its
//   sums are settled after the second and the last layer, so that differences stay below 4 q and products
//   below q. A butterfly takes 8 operations in double precision, settling a word 3, once in 4 layers.
#pragma once

#include "backends/cuda/arithmetic.h"

namespace aegis::cuda {
inline namespace AEGIS_CUDA_MULTIPLY {

// shoup64 and split32.
template <MultiplyForm form>
class Butterfly {
 public:
  using Word = uint64_t;
  struct Twiddle {
    uint64_t w, companion;
  };

  AEGIS_DEVICE Butterfly(const NttTable& table, const Prime& prime)
      : table_(table.words), prime_(prime), q_(prime.q) {}

  AEGIS_DEVICE static Word unpacked(uint64_t bits) { return bits; }
  AEGIS_DEVICE static uint64_t packed(Word x) { return x; }
  AEGIS_DEVICE static Word ofResidue(uint64_t x) { return x; }
  AEGIS_DEVICE uint64_t canonical(Word x) const { return reduce(x, prime_); }
  // What the first pass of an inverse leaves to the second.
  AEGIS_DEVICE Word betweenInverses(Word x) const { return reduce(x, prime_); }

  AEGIS_DEVICE Twiddle forwardTwiddle(uint32_t at) const {
    return {table_.forward[at], table_.forwardCompanion[at]};
  }
  AEGIS_DEVICE Twiddle inverseTwiddle(uint32_t at) const {
    return {table_.inverse[at], table_.inverseCompanion[at]};
  }

  AEGIS_DEVICE void forward(Word& u, Word& v, const Twiddle& twiddle) const {
    const uint64_t y = mulShoupLazy(v, twiddle.w, twiddle.companion, q_);
    v = u + 2 * q_ - y;
    u = u + y;
  }
  AEGIS_DEVICE static void settleForward(Word&) {}

  // `done`: layers of the pass before this one.
  AEGIS_DEVICE void inverse(Word& u, Word& v, const Twiddle& twiddle, uint32_t done) const {
    const uint64_t difference = u + (q_ << done) - v;
    u = u + v;
    v = mulShoupLazy(difference, twiddle.w, twiddle.companion, q_);
  }
  AEGIS_DEVICE static void settleSum(Word&) {}

  // The inverse's last layer carries the division by N. Canonical.
  AEGIS_DEVICE void last(Word& u, Word& v, uint32_t done) const {
    const uint64_t difference = u + (q_ << done) - v;
    u = mulShoup(u + v, table_.nInverse, table_.nInverseCompanion, q_);
    v = mulShoup(difference, table_.nInverseTwiddle, table_.nInverseTwiddleCompanion, q_);
  }
  AEGIS_DEVICE static uint64_t ofLast(Word x) { return x; }

  // (a - x) scalar, a canonical, scalar any word. 21 IMAD.
  class SubScale {
   public:
    SubScale() = default;
    AEGIS_DEVICE SubScale(uint64_t scalar, const Butterfly& row) : scalar_(reduce(scalar, row.prime_)) {}
    AEGIS_DEVICE uint64_t operator()(uint64_t a, Word x, const Butterfly& row) const {
      Wide product;
      product.addProduct(a + row.q_ - row.canonical(x), scalar_);
      return reduce(product, row.prime_);
    }

   private:
    uint64_t scalar_;
  };

 private:
  const Twiddles<uint64_t>& table_;
  const Prime& prime_;
  const uint64_t q_;
};

template <>
class Butterfly<MultiplyForm::fp64> {
 public:
  using Word = double;
  using Twiddle = double;

  AEGIS_DEVICE Butterfly(const NttTable& table, const Prime& prime)
      : table_(table.floats), q_(floating::ofWord(prime.q)), inverseQ_(prime.inverse) {}

  AEGIS_DEVICE static Word unpacked(uint64_t bits) { return floating::ofBits(bits); }
  AEGIS_DEVICE static uint64_t packed(Word x) { return floating::bitsOf(x); }
  AEGIS_DEVICE static Word ofResidue(uint64_t x) { return floating::ofWord(x); }
  // Of a settled word or a product.
  AEGIS_DEVICE uint64_t canonical(Word x) const { return floating::toWord(x < 0 ? floating::add(x, q_) : x); }
  AEGIS_DEVICE static Word betweenInverses(Word x) { return x; }

  AEGIS_DEVICE Twiddle forwardTwiddle(uint32_t at) const { return table_.forward[at]; }
  AEGIS_DEVICE Twiddle inverseTwiddle(uint32_t at) const { return table_.inverse[at]; }

  AEGIS_DEVICE void forward(Word& u, Word& v, Twiddle w) const {
    const double y = product(v, w, floating::mul(w, inverseQ_));
    v = floating::sub(u, y);
    u = floating::add(u, y);
  }
  AEGIS_DEVICE void settleForward(Word& x) const { x = settled(x); }

  AEGIS_DEVICE void inverse(Word& u, Word& v, Twiddle w, uint32_t) const {
    const double difference = floating::sub(u, v);
    u = floating::add(u, v);
    v = product(difference, w, floating::mul(w, inverseQ_));
  }
  AEGIS_DEVICE void settleSum(Word& x) const { x = settled(x); }

  AEGIS_DEVICE void last(Word& u, Word& v, uint32_t) const {
    const double sum = floating::add(u, v), difference = floating::sub(u, v);
    u = product(sum, table_.nInverse, floating::mul(table_.nInverse, inverseQ_));
    v = product(difference, table_.nInverseTwiddle, floating::mul(table_.nInverseTwiddle, inverseQ_));
  }
  AEGIS_DEVICE uint64_t ofLast(Word x) const { return canonical(x); }

  class SubScale {
   public:
    SubScale() = default;
    AEGIS_DEVICE SubScale(uint64_t scalar, const Butterfly& row)
        : scalar_(row.settled(floating::ofWord(scalar))), ratio_(floating::mul(scalar_, row.inverseQ_)) {}
    AEGIS_DEVICE uint64_t operator()(uint64_t a, Word x, const Butterfly& row) const {
      const double difference = floating::sub(floating::ofWord(a), x);
      return row.canonical(row.product(difference, scalar_, ratio_));
    }

   private:
    double scalar_, ratio_;
  };

 private:
  AEGIS_DEVICE static double rounded(double x, double ratio) {
    return floating::sub(floating::fma(x, ratio, floating::kRounding), floating::kRounding);
  }
  // x w mod q, |x| < 4 q, |w| <= q / 2.
  AEGIS_DEVICE double product(double x, double w, double ratio) const {
    const double high = floating::mul(x, w), low = floating::fma(x, w, -high);
    return floating::add(floating::fma(-rounded(x, ratio), q_, high), low);
  }
  AEGIS_DEVICE double settled(double x) const {
    return floating::fma(-rounded(x, inverseQ_), q_, x);
  }

  const Twiddles<double>& table_;
  const double q_, inverseQ_;
};

}  // namespace AEGIS_CUDA_MULTIPLY
}  // namespace aegis::cuda

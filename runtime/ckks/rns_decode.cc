#include "ckks/rns_decode.h"

#include "support/error.h"

namespace aegis {
namespace {

#if defined(__SIZEOF_FLOAT128__)
__extension__ typedef __float128 Quad;
#else
using Quad = long double;
#endif
__extension__ typedef __int128 int128;

}  // namespace

RnsDecoder::RnsDecoder(const RingContext& ring, std::span<const uint16_t> limbs) {
  AEGIS_INVARIANT(!limbs.empty());
  for (uint16_t limb : limbs) primes_.push_back(ring.prime(limb));
  for (size_t i = 0; i < primes_.size(); i++) {
    const uint64_t q = primes_[i].q;
    for (size_t j = 0; j < i; j++) {
      const uint64_t inverse = invMod(primes_[j].q % q, q);
      inverse_.push_back({inverse, shoup64(inverse, q)});
    }
    // (Q - 1) / 2 = sum_i (q_i - 1) / 2 * prod_{j < i} q_j.
    halfDigits_.push_back((q - 1) / 2);
  }
}

double RnsDecoder::centred(const uint64_t* residues, size_t stride) const {
  double result;
  return centredShort(residues, stride, result) ? result : centredLong(residues, stride);
}

// Decrypted values are far below q_0 q_1: take the candidate from two limbs and check it against all others.
bool RnsDecoder::centredShort(const uint64_t* residues, size_t stride, double& result) const {
  const uint64_t q0 = primes_[0].q, r0 = residues[0];
  int128 value = r0 > (q0 - 1) / 2 ? int128(r0) - q0 : int128(r0);
  if (primes_.size() > 1) {
    const uint64_t q1 = primes_[1].q, r1 = residues[stride];
    const uint64_t d1 =
        mulShoup(subMod(r1, reduce64(r0, primes_[1]), q1), inverse_[0].value, inverse_[0].companion, q1);
    const int128 product = int128(q0) * q1;
    value = int128(r0) + int128(d1) * q0;
    if (value > (product - 1) / 2) value -= product;
  }
  const uint128 magnitude = value < 0 ? uint128(-value) : uint128(value);
  for (size_t i = 2; i < primes_.size(); i++) {
    const uint64_t r = reduce128(magnitude, primes_[i]);
    if ((value < 0 && r != 0 ? primes_[i].q - r : r) != residues[i * stride]) return false;
  }
  result = double(Quad(magnitude));
  if (value < 0) result = -result;
  return true;
}

double RnsDecoder::centredLong(const uint64_t* residues, size_t stride) const {
  const size_t count = primes_.size();
  std::vector<uint64_t> digit(count);
  const Shoup* inverse = inverse_.data();
  for (size_t i = 0; i < count; i++) {
    const Prime& p = primes_[i];
    uint64_t value = residues[i * stride];
    for (size_t j = 0; j < i; j++, inverse++)
      value = mulShoup(subMod(value, reduce64(digit[j], p), p.q), inverse->value, inverse->companion, p.q);
    digit[i] = value;
  }
  bool negative = false;
  for (size_t i = count; i-- > 0;) {
    if (digit[i] == halfDigits_[i]) continue;
    negative = digit[i] > halfDigits_[i];
    break;
  }
  // Q - v has the digits q_i - 1 - d_i, plus one.
  if (negative) {
    uint64_t carry = 1;
    for (size_t i = 0; i < count; i++) {
      digit[i] = primes_[i].q - 1 - digit[i] + carry;
      carry = digit[i] == primes_[i].q;
      if (carry) digit[i] = 0;
    }
  }
  Quad sum = 0;
  for (size_t i = count; i-- > 0;) sum = sum * Quad(primes_[i].q) + Quad(digit[i]);
  return negative ? -double(sum) : double(sum);
}

}  // namespace aegis

// Key switching put together from kernels, as a plan does it: the tests' way to use evaluation keys.
#pragma once

#include <vector>

#include "client/context.h"
#include "client/eval_keys.h"

namespace aegis::test {

// Ring polynomials as rows, NTT form: [limb][N].
using Poly = std::vector<uint64_t>;

struct SwitchInput {
  const KeyClassShape& keyClass;
  KeyView key;
  uint32_t level;
  Poly c;      // to be switched, level + 1 rows
  Poly addend;  // added to component 0 as P * addend before ModDown; empty: none
};

// Components 0 and 1, level + 1 rows each: about (addend + part, part') with part + part' s_to = c s_from.
std::pair<Poly, Poly> keySwitch(CryptoContext& context, const SwitchInput& input);
// Rows q_0..q_level, then the primes by whose product all is divided: a rescale if that is q_(level + 1).
Poly modDown(CryptoContext& context, Poly x, uint32_t level, const std::vector<uint16_t>& limbs);
// ModRaise: a row modulo q_0, centred, modulo another prime.
Poly raise(CryptoContext& context, Poly row, uint16_t limb);
Poly automorphism(CryptoContext& context, const Poly& in, uint32_t level, uint32_t galois);

}  // namespace aegis::test

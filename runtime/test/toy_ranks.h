// A plan for several ranks with every kind of collective, a start and wait apart, collectives in a loop and
// in a called function, keys cut to limbs and ports cut to elements or limbs. Its input is "x",
// kRanksElements ciphertexts; its outputs do not depend on the number of ranks, down to the bits.
#pragma once

#include "plan/plan_generated.h"

namespace aegis::test {

constexpr uint32_t kRanksElements = 5;

// ranks: 1..5.
plan::PlanT makeRanksPlan(uint32_t ranks);

}  // namespace aegis::test

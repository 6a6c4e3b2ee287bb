// Plans whose checkpoints are read: one rank with loops and calls, and two ranks that exchange rows.
#pragma once

#include <memory>

#include "executor/checkpoint.h"
#include "plan/plan_file.h"
#include "test/toy_plan.h"
#include "test/toy_ranks.h"

namespace aegis::fuzz {

inline PlanFile checkpointPlan(uint32_t ranks) {
  const plan::PlanT plan = ranks == 1 ? test::makeToyPlan() : test::makeRanksPlan(ranks);
  return PlanFile::fromBytes(test::packPlan(plan), {kNoMemoryLimit});
}

// Where the seeds stand: the end, or the last stop of both ranks.
inline Position checkpointPosition(const PlanFile& plan, uint32_t rank) {
  if (plan.programs().size() > 1) return {commonStops(plan)[rank].back()};
  return {uint32_t(plan.programs()[rank].entry().commands.size())};
}

}  // namespace aegis::fuzz

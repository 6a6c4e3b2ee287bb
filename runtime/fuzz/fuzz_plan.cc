// Any bytes as a plan: accepted, or refused by code.
#include <vector>

#include "client/parameters.h"
#include "plan/plan_file.h"
#include "support/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const aegis::PlanFile plan = aegis::PlanFile::fromBytes({data, data + size}, {aegis::kNoMemoryLimit});
    aegis::ClientParameters::fromPlan(plan.plan());
  } catch (const aegis::Error&) {
  }
  return 0;
}

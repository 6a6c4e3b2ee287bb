// From what the ranks hold to the outputs of the plan (internal to runtime/executor).
#pragma once

#include <vector>

#include "executor/ranks.h"
#include "executor/run_types.h"

namespace aegis {

// Row of the whole port, [element][component][limb 0..limbCount-1], that row `row` of a part is.
inline size_t portRow(const PortPartSpec& part, uint32_t limbCount, size_t row) {
  const size_t limbs = part.limbs.size();
  return (size_t(part.elements[row / (2 * limbs)]) * 2 + row / limbs % 2) * limbCount +
         part.limbs[row % limbs];
}

// result.ranks holds the statistics of this process's ranks. The process of rank 0 gets all outputs, each
// element and limb from the first rank that holds it, and the statistics of all ranks.
void gatherResults(const PlanFile& plan, Transport& transport, const std::vector<Rank*>& ranks,
                   RunResult& result);

}  // namespace aegis

// Any bytes as a checkpoint, of a plan of one rank or of two: it can be gone on from, or is refused by code.
// The sum over a checkpoint is the last thing that is looked at, so it hides nothing.
#include "exec/checkpoint_file.h"
#include "fuzz/checkpoint_plans.h"
#include "fuzz/untrusted_file.h"

namespace {

void read(const aegis::PlanFile& plan, const std::string& path) {
  const aegis::CheckpointFile file(aegis::ByteSource::openFile(path), plan, {});
  std::vector<uint64_t> row(plan.ring().degree());
  for (uint32_t rank = 0; rank < plan.programs().size(); rank++) {
    uint64_t at = 0;
    for (const aegis::RowRange& range : liveRows(plan.programs()[rank], file.position(rank)))
      for (uint64_t i = 0; i < range.count; i++) file.readRows(rank, at++, 1, row.data());
    for (uint32_t c = 0; c < plan.collectives().size(); c++) file.executions(rank, c);
  }
}

// Of the checkpoints that are the seeds.
uint64_t bodyBytes(const aegis::PlanFile& plan) {
  uint64_t bytes = 32;
  for (uint32_t rank = 0; rank < plan.programs().size(); rank++) {
    bytes += 16 * plan.collectives().size() + 8;
    for (const aegis::RowRange& range :
         liveRows(plan.programs()[rank], aegis::fuzz::checkpointPosition(plan, rank)))
      bytes += range.count * plan.ring().degree() * sizeof(uint64_t);
  }
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const aegis::PlanFile plans[] = {aegis::fuzz::checkpointPlan(1), aegis::fuzz::checkpointPlan(2)};
  if (size < 1) return 0;
  const aegis::PlanFile& plan = plans[data[0] & 1];
  return aegis::fuzz::readFile(data + 1, size - 1, bodyBytes(plan),
                               [&](const std::string& path) { read(plan, path); });
}

// The ranks of a session in this process, one after another or as threads (internal to runtime/executor).
#pragma once

#include <memory>
#include <vector>

#include "executor/backend.h"
#include "executor/interpreter.h"
#include "executor/run_types.h"
#include "hal/channel.h"
#include "plan/plan_file.h"

namespace aegis {

// What one rank needs to run.
class Rank {
 public:
  struct Setting {
    const PlanFile& plan;
    Backend& backend;
    Transport& transport;
  };
  // References are kept.
  Rank(const Setting& setting, uint32_t rank, ThreadPool& pool);

  uint32_t rank() const { return rank_; }
  const ProgramSpec& program() const { return program_; }
  Device& device() { return *device_; }
  uint64_t* argument(uint32_t buffer) const { return arguments_[buffer]; }  // the device's
  Channel& channel() { return *channel_; }
  RankStatistics run(const RunOptions& options, const std::optional<Fault>& fault);

 private:
  const PlanFile& plan_;
  const ProgramSpec& program_;
  const uint32_t rank_;
  const std::unique_ptr<Device> device_;
  Interpreter interpreter_;
  const std::unique_ptr<Channel> channel_;
  DeviceWords arena_;  // the entry's arguments, then its frame
  std::vector<uint64_t*> arguments_;
};

// Runs all of them, each in a thread of its own if there are several, and gives what they measured. The first
// error ends all ranks and is thrown, the others' beside it; a rank that does not stop then is left behind:
// its thread holds `owner`, which owns the ranks, for ever, and `stuck` becomes true.
std::vector<RankStatistics> runRanks(const std::shared_ptr<void>& owner, const std::vector<Rank*>& ranks,
                                     const RunOptions& options, const std::optional<Fault>& fault,
                                     bool& stuck);

}  // namespace aegis

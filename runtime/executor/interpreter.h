// Walks the commands of a program: loops, calls with frames at static offsets, exchanges; its device makes
// the launches. Nothing is allocated per row and nothing is checked again: PlanFile has validated every
// command (internal to runtime/executor).
#pragma once

#include <array>
#include <unordered_map>
#include <vector>

#include "executor/checkpoint.h"
#include "executor/fault.h"
#include "executor/progress.h"
#include "executor/run_types.h"
#include "hal/channel.h"
#include "hal/device.h"
#include "plan/plan_file.h"

namespace aegis {

class Interpreter final : private RunWatch {
 public:
  // References are kept.
  Interpreter(const PlanFile& file, const ProgramSpec& program, Device& device);

  // arena is the device's: the rows of the entry function's argument buffers, then its frame. Adds
  // statistics to `result`. What device and channel refuse is passed on; both are left as they are.
  void run(uint64_t* arena, const RunOptions& options, Channel& channel, const std::optional<Fault>& fault,
           RankStatistics& result);

 private:
  struct Activation {
    const FunctionSpec* function;
    uint64_t* frame;
    std::vector<uint64_t*> buffers;
    std::vector<const EncodedPlaintext*> plaintexts;
    std::vector<uint32_t> iterations;  // of the enclosing loops, outermost first
  };
  // Of one call of a function, loops and calls inside of it included.
  struct Totals {
    bool exchanges = false;
    uint64_t launches = 0;
    struct OfOpcode {
      uint64_t launches = 0, rowBytes = 0;
    };
    std::array<OfOpcode, kOpcodeCount> opcodes{};
  };

  void addTotals(const std::vector<CommandSpec>& commands, uint64_t times, Totals& totals) const;
  Activation activate(const FunctionSpec& function, uint64_t* frame,
                      const std::vector<uint64_t*>& arguments) const;
  void block(const std::vector<CommandSpec>& commands, Activation& activation);
  void loop(const CommandSpec& command, Activation& activation);
  void call(const CommandSpec& command, const Activation& activation);
  void launch(const CommandSpec& command, const Activation& activation);
  void exchange(const CommandSpec& command, const Activation& activation);
  void restore(const CheckpointSource& source);
  void checkpoint(uint32_t node);
  bool resuming(size_t depth) const { return resuming_ && depth < target_.size(); }
  void count(const CommandSpec& command);
  Rows rows(const ViewSpec& view, const CommandSpec& command, const Activation& activation) const;
  PlainRows plainRows(const CommandSpec& command, const Activation& activation) const;

  void step(uint64_t work, uint32_t node) override;
  void spent(const CommandSpec& command, double seconds) override;
  void computed(double seconds) override { result_->computeSeconds += seconds; }

  const PlanFile& file_;
  const ProgramSpec& program_;
  Device& device_;
  std::vector<Totals> totals_;  // by function
  ProgressMeter* meter_ = nullptr;
  RankStatistics* result_ = nullptr;
  Channel* channel_ = nullptr;
  std::optional<Fault> fault_;
  uint64_t* arena_ = nullptr;
  Position position_;           // of the command at work
  Position target_;             // to be reached before anything is executed
  bool resuming_ = false;
  bool insideDeviceCall_ = false;
  Checkpoints* checkpoints_ = nullptr;
  const CheckpointSource* source_ = nullptr;
  uint64_t started_ = 0;                 // collectives
  std::vector<double> collectiveSeconds_;  // by index into Plan.collectives
};

}  // namespace aegis

// Runs the commands of a program: kernels, loops, calls with frames at static offsets. Nothing is allocated
// per row and nothing is checked again: PlanFile has validated every command (internal to runtime/executor).
#pragma once

#include <unordered_map>
#include <vector>

#include "executor/fault.h"
#include "executor/plaintext_store.h"
#include "executor/progress.h"
#include "hal/channel.h"
#include "hal/kernels.h"
#include "plan/plan_file.h"

namespace aegis {

class Interpreter {
 public:
  using KeyLookup = std::function<KeyView(uint32_t planKeyIndex)>;

  // References are kept. R303: a key has other digits or rows than the plan's key class.
  Interpreter(const PlanFile& file, const ProgramSpec& program, const PlaintextStore& plaintexts,
              ThreadPool& pool, const KeyLookup& keys);

  // arguments: one block of rows for each argument buffer of the entry function. Adds statistics to `result`.
  // What the channel refuses is passed on; the channel is left as it is.
  void run(uint64_t* frame, const std::vector<uint64_t*>& arguments, const RunOptions& options,
           Channel& channel, const std::optional<Fault>& fault, RankStatistics& result);

 private:
  struct Activation {
    const FunctionSpec* function;
    uint64_t* frame;
    std::vector<uint64_t*> buffers;
    std::vector<const EncodedPlaintext*> plaintexts;
    std::vector<uint32_t> iterations;  // of the enclosing loops, outermost first
  };

  void prepareKeys(const std::vector<CommandSpec>& commands, const KeyLookup& keys);
  Activation activate(const FunctionSpec& function, uint64_t* frame,
                      const std::vector<uint64_t*>& arguments) const;
  void block(const std::vector<CommandSpec>& commands, Activation& activation);
  void call(const CommandSpec& command, const Activation& activation);
  void launch(const CommandSpec& command, const Activation& activation);
  void exchange(const CommandSpec& command, const Activation& activation);
  void step(uint64_t work, std::string_view node);
  void count(const CommandSpec& command, double seconds);
  void dispatch(const CommandSpec& command, const Activation& activation, uint32_t sliceDim, uint32_t begin,
                uint32_t end);
  Rows rows(const ViewSpec& view, const CommandSpec& command, const Activation& activation) const;
  PlainRows plainRows(const CommandSpec& command, const Activation& activation) const;

  const PlanFile& file_;
  const ProgramSpec& program_;
  const PlaintextStore& plaintexts_;
  ThreadPool& pool_;
  const KernelTable& kernels_;
  std::unordered_map<const CommandSpec*, std::vector<KeyView>>
      keys_;  // of every key product, one view per entry
  ProgressMeter* meter_ = nullptr;
  RankStatistics* result_ = nullptr;
  Channel* channel_ = nullptr;
  std::optional<Fault> fault_;
  uint64_t started_ = 0;                 // collectives
  std::vector<double> collectiveSeconds_;  // by index into Plan.collectives
};

}  // namespace aegis

// Runs the commands of a program: kernels, loops, calls with frames at static offsets. Nothing is allocated
// per row and nothing is checked again: PlanFile has validated every command (internal to runtime/executor).
#pragma once

#include <unordered_map>
#include <vector>

#include "executor/plaintext_store.h"
#include "executor/progress.h"
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
  void run(uint64_t* frame, const std::vector<uint64_t*>& arguments, const RunOptions& options,
           RunResult& result);

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
  RunResult* result_ = nullptr;
};

}  // namespace aegis

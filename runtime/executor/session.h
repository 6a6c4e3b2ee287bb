// A plan made ready to run: weights encoded, keys resolved, memory taken. Then any number of runs.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "executor/interpreter.h"
#include "executor/memory.h"
#include "executor/plaintext_store.h"
#include "executor/run_types.h"
#include "executor/weights.h"
#include "plan/plan_file.h"

namespace aegis {

// Evaluation keys by index into Plan.keys (kernels.h, KeyView). They stay where they are
// while the session lives.
struct KeySource {
  std::function<KeyView(uint32_t planKeyIndex)> view;
  uint64_t bytes = 0;
};

// Wraps EvalKeys (client/eval_keys.h), or anything of its form.
template <class Keys>
KeySource keySource(std::shared_ptr<const Keys> keys) {
  const uint64_t bytes = keys->bytes();
  return {[keys = std::move(keys)](uint32_t index) { return keys->view(index); }, bytes};
}

class Session {
 public:
  // threads 0: as many as the machine has. `loading` reports and cancels the encoding of the weights.
  // R223 weights, R303 keys that do not fit; R401 cancelled; R402 a weight that cannot be encoded;
  // R501 no memory.
  Session(std::shared_ptr<const PlanFile> plan, const Weights& weights, KeySource keys, uint32_t threads,
          const RunOptions& loading = {}, uint32_t rank = 0);
  template <class Keys>
  Session(std::shared_ptr<const PlanFile> plan, const Weights& weights, std::shared_ptr<const Keys> keys,
          uint32_t threads, const RunOptions& loading = {}, uint32_t rank = 0)
      : Session(std::move(plan), weights, keySource(std::move(keys)), threads, loading, rank) {}

  // inputs in the order of Plan.inputs. One run at a time; others wait.
  // R302: an input has another shape than its port, or a residue not below its prime. R401: cancelled.
  RunResult run(const std::vector<CiphertextArray>& inputs, const RunOptions& options = {});

  ThreadPool& pool() { return pool_; }
  const PlanFile& plan() const { return *plan_; }
  uint64_t staticBytes() const { return plaintexts_.bytes() + keys_.bytes; }
  uint64_t arenaBytes() const { return arena_.bytes(); }

 private:
  void checkInput(const plan::Port& port, const CiphertextArray& input);
  void copyIn(const CiphertextArray& input, uint64_t* rows);

  const std::shared_ptr<const PlanFile> plan_;
  const ProgramSpec& program_;
  const KeySource keys_;
  ThreadPool pool_;
  const PlaintextStore plaintexts_;
  Interpreter interpreter_;
  WordBlock arena_;  // the entry's arguments, then its frame
  std::vector<uint64_t*> arguments_;
  uint64_t* frame_ = nullptr;
  std::mutex running_;
};

}  // namespace aegis

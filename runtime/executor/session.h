// A plan made ready to run: weights encoded, keys resolved, memory taken. Then any number of runs.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "executor/run_types.h"
#include "executor/weights.h"
#include "hal/channel.h"
#include "plan/plan_file.h"

namespace aegis {

// Evaluation keys by index into Plan.keys (kernels.h, KeyView), with the rows that the ranks of this process
// hold. They stay where they are while the session lives, or until it has copied them to GPUs.
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

// What a transport for this plan is made from. The plan outlives the transport.
TransportJob transportJob(const PlanFile& plan);

class Session {
 public:
  // Runs the ranks that the transport has in this process; without one, all of them, as threads that share
  // `threads` evenly. threads 0: as many as the machine has. `loading` reports and cancels the encoding of
  // the weights. R223 weights, R303 keys that do not fit; R401 cancelled; R402 a weight that cannot be
  // encoded; R404 a backend that is not to be had here; R406, R407 malformed settings of the environment;
  // R501 no memory.
  Session(std::shared_ptr<const PlanFile> plan, const Weights& weights, KeySource keys, uint32_t threads,
          const RunOptions& loading = {}, std::shared_ptr<Transport> transport = nullptr,
          const std::string& backend = "cpu");
  template <class Keys>
  Session(std::shared_ptr<const PlanFile> plan, const Weights& weights, std::shared_ptr<const Keys> keys,
          uint32_t threads, const RunOptions& loading = {}, std::shared_ptr<Transport> transport = nullptr,
          const std::string& backend = "cpu")
      : Session(std::move(plan), weights, keySource(std::move(keys)), threads, loading,
                std::move(transport), backend) {}
  ~Session();

  // inputs in the order of Plan.inputs. One run at a time; others wait.
  // R302: an input has another shape than its port, or a residue not below its prime. R401: cancelled. R405:
  // a rank hung, or a rank hangs since an earlier run; R408: a GPU failed; else the error of the rank that
  // failed first, with those of the others (Error::others).
  RunResult run(const std::vector<CiphertextArray>& inputs, const RunOptions& options = {});

  ThreadPool& pool();
  const PlanFile& plan() const;
  // Held by this process; what several ranks share counts once.
  uint64_t staticBytes() const;
  uint64_t arenaBytes() const;
  // What the user should know of how the plan runs here, a sentence each.
  std::vector<std::string> warnings() const;

 private:
  struct State;
  std::shared_ptr<State> state_;  // a rank that hangs keeps it
};

}  // namespace aegis

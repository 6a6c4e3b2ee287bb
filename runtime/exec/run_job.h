// One request through one plan, from files to a file: what `aegis run` and `aegis-exec` both do.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/cipher.h"
#include "client/context.h"

namespace aegis {

// Writing 1 GiB takes some two seconds.
constexpr double kCheckpointSeconds = 60;

struct RunJob {
  std::string plan, weights, keys, in, out;  // paths; weights "": beside the plan, PLAN.weights
  std::string backend = "cpu", channel = "local";
  uint32_t threads = 0;                      // 0: as many as the machine has
  std::string checkpoint;                    // folder; "": no checkpoints
  double checkpointSeconds = kCheckpointSeconds;  // at least, between two of them; 0: one after every call
  bool resume = false;                       // go on from the folder's checkpoint, if it has one
  Progress progress;
};

struct CollectiveReport {
  uint32_t id = 0;
  std::string node, kind;
  uint64_t executions = 0, predictedBytes = 0, receivedBytes = 0;
  double waitSeconds = 0;
};

struct RankReport {
  uint32_t rank = 0;
  uint64_t peakBytes = 0, staticBytes = 0;  // what the rank refers to, whether ranks share it or not
  double seconds = 0, computeSeconds = 0, waitSeconds = 0;
  std::vector<CollectiveReport> collectives;
};

struct NamedSeconds {
  std::string name;
  double seconds = 0;                   // NaN: not measured
  uint64_t launches = 0, rowBytes = 0;  // of opcodes only
};

struct CheckpointReport {
  uint64_t written = 0, bytes = 0;  // bytes of the largest
  double seconds = 0;               // spent on them
  double resumedAt = 0;             // share of the work that an earlier process had done
};

struct RunReport {
  std::string outputSha256;
  double seconds = 0;      // of the run itself
  double loadSeconds = 0;  // keys, weights, request
  bool insecure = false;
  bool root = true;  // of several processes, the one of rank 0: the others have no hash and write nothing
  uint64_t processPeakBytes = 0;  // largest resident set of this process, measured
  std::vector<Warning> warnings;  // R409: what made the run slower than it might be
  std::optional<CheckpointReport> checkpoint;  // if it was asked for
  std::vector<RankReport> ranks;
  std::vector<NamedSeconds> nodes;  // ONNX nodes that took time, in the order of the plan; summed over ranks
  std::vector<NamedSeconds> opcodes;
};

// R113: the weights file is not the plan's. R311: keys and request come from different runs of keygen. R310:
// a secret key was given. R404: backend or channel that this build does not have. R406: mpi is not to be had
// here, or there are not as many processes as ranks. R410: no checkpoints with this channel or plan. R411,
// R412, R415: errors of CheckpointFolder; R413: it holds a checkpoint and `resume` is not set. And the errors
// of PlanFile, EvalKeys, CiphertextReader and Session. The response appears whole or not at all; then the
// checkpoints are removed.
RunReport runJob(const RunJob& job);

}  // namespace aegis

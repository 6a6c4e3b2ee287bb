// What goes into a run and what comes out.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "plan/plan_generated.h"

namespace aegis {

// Ciphertexts of one port: [element][component 0..1][limb 0..limbCount-1][N], NTT form, canonical residues.
struct CiphertextArray {
  uint32_t elements = 0, limbCount = 0;
  std::vector<uint64_t> data;
};

class Checkpoints;
class CheckpointSource;

struct RunOptions {
  // Called from the calling thread every 100 ms or so; `done` and `total` in units of work of all ranks of
  // this process, `node` an ONNX node name.
  std::function<void(uint64_t done, uint64_t total, std::string_view node)> progress;
  const std::atomic<bool>* cancel = nullptr;  // R401 once it is true
  bool isCancelled() const { return cancel != nullptr && cancel->load(std::memory_order_relaxed); }
  Checkpoints* checkpoints = nullptr;         // of this run (executor/checkpoint.h); none: none are made
  const CheckpointSource* resume = nullptr;   // the state to go on from; none: from the start
};

constexpr uint32_t kOpcodeCount = plan::Opcode_MAX + 1;

// Where the time went. Row bytes count every row that a launch reads or writes, plaintexts and keys apart.
struct OpcodeStatistics {
  double seconds = 0;
  uint64_t launches = 0;
  uint64_t rowBytes = 0;
};

struct CollectiveStatistics {
  uint32_t id = 0;  // index into Plan.collectives
  uint64_t executions = 0, predictedBytes = 0, receivedBytes = 0;
  double waitSeconds = 0;
};

struct RankStatistics {
  uint32_t rank = 0;
  double seconds = 0;
  double computeSeconds = 0;        // in kernels
  double waitSeconds = 0;           // in collectives that block, and in waits
  std::vector<double> nodeSeconds;  // by index into Plan.locations
  std::array<OpcodeStatistics, kOpcodeCount> opcodes{};
  std::vector<CollectiveStatistics> collectives;  // that the rank takes part in
  uint64_t staticBytes = 0;                       // the rank's keys and plaintexts, shared or not
  uint64_t arenaBytes = 0;                        // its ports and its frame
  uint64_t peakBytes() const { return staticBytes + arenaBytes; }
};

struct RunResult {
  std::vector<CiphertextArray> outputs;  // in the order of Plan.outputs; none but in the process of rank 0
  double seconds = 0;
  std::vector<RankStatistics> ranks;     // all of them in the process of rank 0, else its own
  std::vector<double> nodeSeconds;       // sums over ranks
  std::array<OpcodeStatistics, kOpcodeCount> opcodes{};
};

}  // namespace aegis

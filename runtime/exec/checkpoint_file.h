// Checkpoints of a run in a folder: two files of which the older one is replaced, so that one is whole at any
// moment. A checkpoint is a safetensors file with three tensors for each rank, collectives.NN [C, 2]
// (executions, received bytes), position.NN and rows.NN [live rows, N], and `sum`, BLAKE2b-256 over
// everything before it. It holds ciphertexts and no secret.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/context.h"
#include "executor/checkpoint.h"
#include "executor/run_types.h"
#include "io/safetensors.h"

namespace aegis {

// What a checkpoint belongs to, by name: hashes of plan, weights, keys (header with seed and key id) and
// request (residues).
using RunIdentity = std::map<std::string, std::string>;
RunIdentity runIdentity(const PlanFile& plan, const std::string& keysPath,
                        const std::vector<CiphertextArray>& inputs);

class CheckpointFile final : public CheckpointSource {
 public:
  // R411: of another run. R412: damaged, or not one of this plan's. Keeps a reference to the plan.
  CheckpointFile(std::unique_ptr<ByteSource> source, const PlanFile& plan, const RunIdentity& identity);
  uint64_t sequence() const { return sequence_; }
  const Position& position(uint32_t rank) const override { return positions_[rank]; }
  uint64_t executions(uint32_t rank, uint32_t collective) const override;
  uint64_t receivedBytes(uint32_t rank, uint32_t collective) const override;
  void readRows(uint32_t rank, uint64_t first, uint64_t count, uint64_t* out) const override;

 private:
  void readPositions();
  void readCounts();
  void checkRows() const;
  void checkSum() const;

  const PlanFile& plan_;
  SafeTensors file_;
  uint64_t sequence_ = 0;
  std::vector<Position> positions_;
  std::vector<std::vector<uint64_t>> counts_;  // [rank][2 C]
};

struct CheckpointStatistics {
  uint64_t written = 0;
  uint64_t bytes = 0;  // of the largest
  double seconds = 0;  // spent on all of them
};

// The folder of one run, locked while it is open.
class CheckpointFolder final : public CheckpointSink {
 public:
  // R102: the folder cannot be made or written. R415: another run uses it. Removes what a run that was killed
  // left half-written. References are kept.
  CheckpointFolder(const std::string& folder, const PlanFile& plan, const Progress& progress);
  ~CheckpointFolder() override;
  CheckpointFolder(const CheckpointFolder&) = delete;
  CheckpointFolder& operator=(const CheckpointFolder&) = delete;

  bool holdsAny() const;
  void belongsTo(RunIdentity identity) { identity_ = std::move(identity); }
  // The newest that is whole, nullptr if there is none at all. R411: it belongs to another run. R412: there
  // are some, and none is whole; a damaged one beside a whole one is a warning.
  std::unique_ptr<CheckpointFile> newest();
  // What cannot be written is a warning (R414).
  void save(const std::vector<RankSnapshot>& ranks, const std::function<void()>& beat) override;
  void removeAll();
  const CheckpointStatistics& statistics() const { return statistics_; }

 private:
  std::string slot(uint32_t index) const;
  void write(const std::string& path, const std::vector<RankSnapshot>& ranks,
             const std::function<void()>& beat);

  const std::string folder_;
  const PlanFile& plan_;
  const Progress& progress_;
  int lock_ = -1;
  RunIdentity identity_;
  uint64_t sequence_ = 0;  // of the newest
  uint32_t next_ = 0;      // slot
  CheckpointStatistics statistics_;
};

}  // namespace aegis

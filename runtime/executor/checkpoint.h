// The state of a run between two commands, so that another process can go on from there. All rows that later
// commands may read lie in buffers that they name: these rows of each rank's arena and its position in the
// program are the whole state. They are ciphertexts and parts of them; keys and weights are not among them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "plan/plan_file.h"

namespace aegis {

// Where a rank stands: for each block of commands, from the entry's on, the index of a command; a loop's
// iteration follows its index. The last index is that of the next command, or the length of its block.
using Position = std::vector<uint32_t>;

// Rows of an arena: the entry's arguments, then its frame.
struct RowRange {
  uint64_t first = 0, count = 0;
};

bool isPosition(const ProgramSpec& program, const Position& position);
// These take positions of the program only. Row passes that are done there:
uint64_t workBefore(const ProgramSpec& program, const Position& position);
// Rows that commands from there on may read, and those of the outputs; rising, with gaps in between.
std::vector<RowRange> liveRows(const ProgramSpec& program, const Position& position);

struct RankSnapshot {
  struct Piece {
    const uint64_t* data = nullptr;
    uint64_t rows = 0;
  };
  uint32_t rank = 0;
  Position position;
  std::vector<uint64_t> executions, receivedBytes;  // by index into Plan.collectives
  std::vector<Piece> live;                          // the rows of liveRows, in their order
};

// Keeps the last checkpoint.
class CheckpointSink {
 public:
  virtual ~CheckpointSink() = default;
  // Of all ranks, rising. A store that cannot be written is its own affair: the run goes on.
  virtual void save(const std::vector<RankSnapshot>& ranks, const std::function<void()>& beat) = 0;
};

// A checkpoint to go on from; its positions were checked (canStopAt).
class CheckpointSource {
 public:
  virtual ~CheckpointSource() = default;
  virtual const Position& position(uint32_t rank) const = 0;
  virtual uint64_t executions(uint32_t rank, uint32_t collective) const = 0;
  virtual uint64_t receivedBytes(uint32_t rank, uint32_t collective) const = 0;
  // `count` of the rank's live rows, from the first-th on.
  virtual void readRows(uint32_t rank, uint64_t first, uint64_t count, uint64_t* out) const = 0;
};

// Where the ranks of a plan can stop together: after the k-th call of each entry, if no collective is open
// there and all ranks of its group have executed it equally often. By rank: indices into the entry's
// commands, as many for every rank. A plan of one rank without collectives can stop after every call.
std::vector<std::vector<uint32_t>> commonStops(const PlanFile& plan);
bool stopsAnywhere(const PlanFile& plan);
// Whether these positions, one for each rank, are a state that a run can go on from.
bool canStopAt(const PlanFile& plan, const std::vector<Position>& positions);

// Of one run: decides at which calls all its ranks stop, and hands what they have to the sink.
class Checkpoints {
 public:
  // References are kept. The first checkpoint is due after the interval.
  Checkpoints(const PlanFile& plan, CheckpointSink& sink, double intervalSeconds);
  // After a call: does the rank stop here? The same answer for all ranks.
  bool due(uint32_t rank, const Position& position);
  // The rank stops until all have, and the checkpoint is written. `beat` is called meanwhile, and may throw
  // while other ranks are awaited.
  void save(RankSnapshot snapshot, const std::function<void()>& beat);

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr size_t kNoStop = ~size_t(0);
  size_t stopOf(uint32_t rank, const Position& position) const;
  bool intervalIsOver() const;

  CheckpointSink& sink_;
  const std::chrono::duration<double> interval_;
  const uint32_t rankCount_;
  const bool anywhere_;
  const std::vector<std::vector<uint32_t>> stops_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<int8_t> decisions_;       // by stop: 1 yes, 0 no, -1 nobody was there yet
  std::vector<RankSnapshot> arrived_;
  uint64_t saved_ = 0;
  Clock::time_point last_ = Clock::now();
};

}  // namespace aegis

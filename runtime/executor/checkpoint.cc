#include "executor/checkpoint.h"

#include <algorithm>
#include <map>

#include "plan/op_traits.h"
#include "support/error.h"

namespace aegis {
namespace {

constexpr auto kWait = std::chrono::milliseconds(50);

// A function at work: where its buffers lie in the arena.
struct Frame {
  const FunctionSpec* function;
  std::vector<uint64_t> buffers;
  uint64_t base;
};

class Walk {
 public:
  explicit Walk(const ProgramSpec& program) : program_(program) {}

  // False where the position leaves the program.
  bool go(const Position& position) {
    Frame entry{&program_.entry(), {}, 0};
    for (uint32_t i = 0; i < entry.function->argumentCount; i++) {
      entry.buffers.push_back(entry.base);
      entry.base += entry.function->buffers[i].rows;
    }
    addLocals(entry);
    for (const PortPartSpec& output : program_.outputs) mark(entry, output.buffer);
    return block(entry.function->commands, entry, position, 0);
  }

  uint64_t work() const { return work_; }

  std::vector<RowRange> live() {
    std::sort(marked_.begin(), marked_.end(),
              [](const RowRange& a, const RowRange& b) { return a.first < b.first; });
    std::vector<RowRange> merged;
    for (const RowRange& range : marked_) {
      if (range.count == 0) continue;
      if (merged.empty() || range.first > merged.back().first + merged.back().count) {
        merged.push_back(range);
        continue;
      }
      RowRange& last = merged.back();
      last.count = std::max(last.first + last.count, range.first + range.count) - last.first;
    }
    return merged;
  }

 private:
  static void addLocals(Frame& frame) {
    const FunctionSpec& function = *frame.function;
    for (size_t i = function.argumentCount; i < function.buffers.size(); i++)
      frame.buffers.push_back(frame.base + function.buffers[i].offset);
  }

  void mark(const Frame& frame, uint32_t buffer) {
    if (buffer < frame.buffers.size())
      marked_.push_back({frame.buffers[buffer], frame.function->buffers[buffer].rows});
  }

  // Buffers that the commands from `begin` on name, loops included; what a call is given, it may read.
  void markFrom(const std::vector<CommandSpec>& commands, size_t begin, const Frame& frame) {
    for (size_t i = begin; i < commands.size(); i++) {
      const CommandSpec& command = commands[i];
      if (command.op == plan::Opcode_Loop) {
        markFrom(command.body, 0, frame);
      } else if (command.op == plan::Opcode_Call) {
        for (const BindingSpec& binding : command.bindings) mark(frame, binding.buffer);
      } else {
        const OpTraits* traits = opTraits(command.op);  // none: an exchange, with a block to send
        mark(frame, command.out.buffer);
        if (traits == nullptr || traits->a) mark(frame, command.a.buffer);
        if (traits != nullptr && traits->b) mark(frame, command.b.buffer);
      }
    }
  }

  bool block(const std::vector<CommandSpec>& commands, const Frame& frame, const Position& position,
             size_t depth) {
    if (depth >= position.size() || position[depth] > commands.size()) return false;
    const size_t next = position[depth];
    for (size_t i = 0; i < next; i++) work_ += commands[i].rowCost;
    if (depth + 1 == position.size()) {
      markFrom(commands, next, frame);
      return true;
    }
    if (next == commands.size()) return false;
    const CommandSpec& command = commands[next];
    if (command.op == plan::Opcode_Loop) {
      if (position[depth + 1] >= command.tripCount) return false;
      work_ += command.rowCost / command.tripCount * position[depth + 1];
      markFrom(commands, next, frame);
      return block(command.body, frame, position, depth + 2);
    }
    if (command.op != plan::Opcode_Call) return false;
    markFrom(commands, next + 1, frame);
    Frame callee{&program_.functions[command.callee], {}, frame.base + command.frameOffset};
    for (const BindingSpec& binding : command.bindings)
      callee.buffers.push_back(frame.buffers[binding.buffer] + binding.offset);
    addLocals(callee);
    return block(callee.function->commands, callee, position, depth + 1);
  }

  const ProgramSpec& program_;
  std::vector<RowRange> marked_;
  uint64_t work_ = 0;
};

// Starts and waits of collectives in one execution.
struct Exchanges {
  std::map<uint32_t, uint64_t> started, finished;

  void add(const Exchanges& other, uint64_t times) {
    for (const auto& [id, count] : other.started) started[id] += times * count;
    for (const auto& [id, count] : other.finished) finished[id] += times * count;
  }

  void add(const std::vector<CommandSpec>& commands, const std::vector<Exchanges>& functions) {
    for (const CommandSpec& command : commands) add(command, functions);
  }

  void add(const CommandSpec& command, const std::vector<Exchanges>& functions) {
    if (command.op == plan::Opcode_Loop) {
      Exchanges body;
      body.add(command.body, functions);
      add(body, command.tripCount);
    } else if (command.op == plan::Opcode_Call) {
      add(functions[command.callee], 1);
    } else if (command.op == plan::Opcode_Collective) {
      started[command.collective]++;
      if (command.blocking) finished[command.collective]++;
    } else if (command.op == plan::Opcode_Wait) {
      finished[command.collective]++;
    }
  }

  uint64_t startedOf(uint32_t id) const {
    const auto found = started.find(id);
    return found == started.end() ? 0 : found->second;
  }
};

struct Stop {
  uint32_t next = 0;  // command of the entry
  Exchanges before;
};

std::vector<Exchanges> exchangesOf(const ProgramSpec& program) {
  std::vector<Exchanges> functions;  // callees come before their callers
  for (const FunctionSpec& function : program.functions) {
    Exchanges all;
    all.add(function.commands, functions);
    functions.push_back(std::move(all));
  }
  return functions;
}

std::vector<Stop> stopsOf(const ProgramSpec& program) {
  const std::vector<Exchanges> functions = exchangesOf(program);
  std::vector<Stop> stops;
  Exchanges before;
  const std::vector<CommandSpec>& commands = program.entry().commands;
  for (uint32_t i = 0; i < commands.size(); i++) {
    before.add(commands[i], functions);
    if (commands[i].op == plan::Opcode_Call) stops.push_back({i + 1, before});
  }
  return stops;
}

bool agree(const PlanFile& plan, const std::vector<std::vector<Stop>>& stops, size_t k) {
  for (const std::vector<Stop>& rank : stops)
    if (rank[k].before.started != rank[k].before.finished) return false;
  for (const Collective& collective : plan.collectives()) {
    const uint64_t count = stops[collective.group.front()][k].before.startedOf(collective.id);
    for (const uint16_t rank : collective.group)
      if (stops[rank][k].before.startedOf(collective.id) != count) return false;
  }
  return true;
}

}  // namespace

bool isPosition(const ProgramSpec& program, const Position& position) { return Walk(program).go(position); }

uint64_t workBefore(const ProgramSpec& program, const Position& position) {
  Walk walk(program);
  AEGIS_INVARIANT(walk.go(position));
  return walk.work();
}

std::vector<RowRange> liveRows(const ProgramSpec& program, const Position& position) {
  Walk walk(program);
  AEGIS_INVARIANT(walk.go(position));
  return walk.live();
}

bool stopsAnywhere(const PlanFile& plan) { return plan.programs().size() == 1 && plan.collectives().empty(); }

std::vector<std::vector<uint32_t>> commonStops(const PlanFile& plan) {
  std::vector<std::vector<Stop>> stops;
  size_t count = ~size_t(0);
  for (const ProgramSpec& program : plan.programs()) {
    stops.push_back(stopsOf(program));
    count = std::min(count, stops.back().size());
  }
  std::vector<std::vector<uint32_t>> common(stops.size());
  for (size_t k = 0; k < count; k++) {
    if (!agree(plan, stops, k)) continue;
    for (size_t rank = 0; rank < stops.size(); rank++) common[rank].push_back(stops[rank][k].next);
  }
  return common;
}

bool canStopAt(const PlanFile& plan, const std::vector<Position>& positions) {
  if (positions.size() != plan.programs().size()) return false;
  if (stopsAnywhere(plan)) return isPosition(plan.programs()[0], positions[0]);
  const std::vector<std::vector<uint32_t>> stops = commonStops(plan);
  for (size_t k = 0; k < stops[0].size(); k++) {
    bool here = true;
    for (size_t rank = 0; rank < positions.size(); rank++)
      here &= positions[rank] == Position{stops[rank][k]};
    if (here) return true;
  }
  return false;
}

Checkpoints::Checkpoints(const PlanFile& plan, CheckpointSink& sink, double intervalSeconds)
    : sink_(sink), interval_(intervalSeconds), rankCount_(uint32_t(plan.programs().size())),
      anywhere_(stopsAnywhere(plan)),
      stops_(anywhere_ ? std::vector<std::vector<uint32_t>>{} : commonStops(plan)),
      decisions_(anywhere_ ? 0 : stops_[0].size(), -1) {}

bool Checkpoints::intervalIsOver() const { return Clock::now() - last_ >= interval_; }

size_t Checkpoints::stopOf(uint32_t rank, const Position& position) const {
  if (position.size() != 1) return kNoStop;
  const std::vector<uint32_t>& stops = stops_[rank];
  const auto found = std::lower_bound(stops.begin(), stops.end(), position[0]);
  return found == stops.end() || *found != position[0] ? kNoStop : size_t(found - stops.begin());
}

bool Checkpoints::due(uint32_t rank, const Position& position) {
  if (anywhere_) return intervalIsOver();
  const size_t stop = stopOf(rank, position);
  if (stop == kNoStop) return false;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (decisions_[stop] < 0) decisions_[stop] = intervalIsOver();
  return decisions_[stop] == 1;
}

// The last one to come writes; nobody's rows change until it is done.
void Checkpoints::save(RankSnapshot snapshot, const std::function<void()>& beat) {
  std::unique_lock<std::mutex> lock(mutex_);
  const uint64_t before = saved_;
  arrived_.push_back(std::move(snapshot));
  if (arrived_.size() < rankCount_) {
    while (saved_ == before) {
      changed_.wait_for(lock, kWait);
      const bool writing = arrived_.size() == rankCount_;
      if (saved_ != before || writing) continue;
      lock.unlock();
      beat();
      lock.lock();
    }
    return;
  }
  std::sort(arrived_.begin(), arrived_.end(),
            [](const RankSnapshot& a, const RankSnapshot& b) { return a.rank < b.rank; });
  lock.unlock();
  const auto resume = [&] {
    lock.lock();
    arrived_.clear();
    last_ = Clock::now();
    saved_++;
    changed_.notify_all();
  };
  try {
    sink_.save(arrived_, beat);
  } catch (...) {  // cancelled: the others hear of it when they go on
    resume();
    throw;
  }
  resume();
}

}  // namespace aegis

#include "executor/interpreter.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "plan/op_traits.h"

namespace aegis {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kRestoreWords = uint64_t(1) << 22;  // at a time

int64_t position(const ViewSpec& view, const std::vector<uint32_t>& iterations) {
  int64_t row = view.offset;
  for (size_t k = 0; k < view.loopStrides.size(); k++) row += int64_t(iterations[k]) * view.loopStrides[k];
  return row;
}

}  // namespace

Interpreter::Interpreter(const PlanFile& file, const ProgramSpec& program, Device& device)
    : file_(file), program_(program), device_(device) {
  for (const FunctionSpec& function : program.functions)  // callees come before their callers
    addTotals(function.commands, 1, totals_.emplace_back());
}

void Interpreter::addTotals(const std::vector<CommandSpec>& commands, uint64_t times, Totals& totals) const {
  for (const CommandSpec& command : commands) {
    if (command.op == plan::Opcode_Loop) {
      addTotals(command.body, times * command.tripCount, totals);
    } else if (command.op == plan::Opcode_Call) {
      const Totals& callee = totals_[command.callee];
      totals.exchanges |= callee.exchanges;
      totals.launches += times * callee.launches;
      for (uint32_t i = 0; i < kOpcodeCount; i++) {
        totals.opcodes[i].launches += times * callee.opcodes[i].launches;
        totals.opcodes[i].rowBytes += times * callee.opcodes[i].rowBytes;
      }
    } else {
      totals.exchanges |= command.op == plan::Opcode_Collective || command.op == plan::Opcode_Wait;
      totals.launches += times;
      totals.opcodes[command.op].launches += times;
      totals.opcodes[command.op].rowBytes +=
          times * command.rowsMoved * file_.ring().degree() * sizeof(uint64_t);
    }
  }
}

void Interpreter::run(uint64_t* arena, const RunOptions& options, Channel& channel,
                      const std::optional<Fault>& fault, RankStatistics& result) {
  const FunctionSpec& entry = program_.entry();
  arena_ = arena;
  result_ = &result;
  channel_ = &channel;
  checkpoints_ = options.checkpoints;
  source_ = options.resume;
  position_.clear();
  resuming_ = insideDeviceCall_ = false;
  uint64_t done = 0;
  if (source_ != nullptr) {
    restore(*source_);
    done = workBefore(program_, target_);
  }
  ProgressMeter meter(options, entry.rowCost, done);
  meter_ = &meter;
  fault_ = fault.has_value() && fault->rank == result.rank ? fault : std::nullopt;
  started_ = 0;
  collectiveSeconds_.assign(file_.collectives().size(), 0);
  std::vector<uint64_t*> arguments;
  for (uint32_t i = 0; i < entry.argumentCount; i++) {
    arguments.push_back(arena);
    arena += entry.buffers[i].rows * file_.ring().degree();
  }
  Activation activation = activate(entry, arena, arguments);
  device_.begin(*this);
  block(entry.commands, activation);
  device_.finish();
  // What nobody measured is no number.
  for (uint32_t i = 0; !device_.timesLaunches() && i < kOpcodeCount; i++)
    if (opTraits(plan::Opcode(i)) != nullptr && result.opcodes[i].launches > 0)
      result.opcodes[i].seconds = std::numeric_limits<double>::quiet_NaN();
  for (const Collective& collective : file_.collectives()) {
    const uint32_t index = collective.indexOf(result.rank);
    if (index == ~0u) continue;
    uint64_t executions = channel.executions(collective.id), bytes = channel.receivedBytes(collective.id);
    if (source_ != nullptr) {
      executions += source_->executions(result.rank, collective.id);
      bytes += source_->receivedBytes(result.rank, collective.id);
    }
    result.collectives.push_back({collective.id, executions, collective.predictedBytes[index], bytes,
                                  collectiveSeconds_[collective.id]});
  }
}

void Interpreter::restore(const CheckpointSource& source) {
  const uint32_t rank = result_->rank;
  const uint64_t n = file_.ring().degree(), chunk = std::max<uint64_t>(1, kRestoreWords / n);
  target_ = source.position(rank);
  resuming_ = true;
  std::vector<uint64_t> words;
  uint64_t at = 0;
  for (const RowRange& range : liveRows(program_, target_)) {
    for (uint64_t done = 0; done < range.count;) {
      const uint64_t rows = std::min(chunk, range.count - done);
      words.resize(rows * n);
      source.readRows(rank, at, rows, words.data());
      device_.writeRows(arena_ + (range.first + done) * n, rows,
                        [&](size_t i) { return words.data() + i * n; });
      channel_->beat();
      done += rows;
      at += rows;
    }
  }
}

// After a call. Within one that a device may capture, launches are not done when they were made.
void Interpreter::checkpoint(uint32_t node) {
  if (insideDeviceCall_ && !device_.hostRows()) return;
  if (!checkpoints_->due(result_->rank, position_)) return;
  device_.settle();
  const uint64_t n = file_.ring().degree();
  RankSnapshot snapshot{result_->rank, position_, {}, {}, {}};
  for (const Collective& collective : file_.collectives()) {
    snapshot.executions.push_back(channel_->executions(collective.id));
    snapshot.receivedBytes.push_back(channel_->receivedBytes(collective.id));
    if (source_ == nullptr) continue;
    snapshot.executions.back() += source_->executions(snapshot.rank, collective.id);
    snapshot.receivedBytes.back() += source_->receivedBytes(snapshot.rank, collective.id);
  }
  std::vector<std::vector<uint64_t>> copies;  // of rows that the host cannot read
  for (const RowRange& range : liveRows(program_, position_)) {
    const uint64_t* rows = arena_ + range.first * n;
    if (!device_.hostRows()) {
      std::vector<uint64_t>& copy = copies.emplace_back(range.count * n);
      std::vector<size_t> all(range.count);
      std::iota(all.begin(), all.end(), size_t(0));
      device_.readRows(rows, all, [&](size_t i) { return copy.data() + i * n; });
      rows = copy.data();
    }
    snapshot.live.push_back({rows, range.count});
  }
  checkpoints_->save(std::move(snapshot), [&] { step(0, node); });
}

void Interpreter::step(uint64_t work, uint32_t node) {
  channel_->beat();
  meter_->step(work, file_.location(node));
}

void Interpreter::spent(const CommandSpec& command, double seconds) {
  result_->computeSeconds += seconds;
  result_->nodeSeconds[command.node] += seconds;
  result_->opcodes[command.op].seconds += seconds;
}

// Blocks stay where they are until the wait: the plan was checked for that.
void Interpreter::exchange(const CommandSpec& command, const Activation& activation) {
  const Collective& collective = file_.collectives()[command.collective];
  step(0, command.node);
  const auto start = Clock::now();
  if (command.op == plan::Opcode_Collective) {
    if (fault_.has_value() && fault_->collective == started_)
      fault_->happen(collective.describe(), [&] { step(0, command.node); });
    started_++;
    const uint32_t index = collective.indexOf(result_->rank);
    const int64_t n = file_.ring().degree();
    const auto block = [&](const ViewSpec& view, uint64_t rows) -> uint64_t* {
      if (rows == 0) return nullptr;
      return activation.buffers[view.buffer] + position(view, activation.iterations) * n;
    };
    if (!channel_->enqueues()) device_.settle();
    channel_->start(command.collective, block(command.a, collective.sendRows(index)),
                    block(command.out, collective.receiveRows(index)));
  }
  if (command.op == plan::Opcode_Wait || command.blocking) channel_->wait(command.collective);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  collectiveSeconds_[command.collective] += seconds;
  result_->waitSeconds += seconds;
  result_->nodeSeconds[command.node] += seconds;
  result_->opcodes[command.op].seconds += seconds;
  count(command);
  step(command.rowCost, command.node);
}

void Interpreter::count(const CommandSpec& command) {
  OpcodeStatistics& statistics = result_->opcodes[command.op];
  statistics.launches++;
  statistics.rowBytes += command.rowsMoved * file_.ring().degree() * sizeof(uint64_t);
}

Interpreter::Activation Interpreter::activate(const FunctionSpec& function, uint64_t* frame,
                                              const std::vector<uint64_t*>& arguments) const {
  Activation activation{&function, frame, arguments, {}, {}};
  for (size_t i = function.argumentCount; i < function.buffers.size(); i++)
    activation.buffers.push_back(frame + function.buffers[i].offset * file_.ring().degree());
  activation.plaintexts.resize(function.plaintexts.size());
  for (size_t i = function.plainArgumentCount; i < function.plaintexts.size(); i++)
    activation.plaintexts[i] = &device_.plaintext(function.plaintexts[i].plaintext);
  return activation;
}

void Interpreter::block(const std::vector<CommandSpec>& commands, Activation& activation) {
  const size_t depth = position_.size();
  const size_t first = resuming(depth) ? target_[depth] : 0;
  if (depth + 1 == target_.size()) resuming_ = false;
  position_.push_back(0);
  for (size_t i = first; i < commands.size(); i++) {
    const CommandSpec& command = commands[i];
    position_[depth] = uint32_t(i);
    if (command.op == plan::Opcode_Call) {
      call(command, activation);
      position_[depth]++;
      if (checkpoints_ != nullptr) checkpoint(command.node);
    } else if (command.op == plan::Opcode_Loop) {
      loop(command, activation);
    } else if (command.op == plan::Opcode_Collective || command.op == plan::Opcode_Wait) {
      exchange(command, activation);
    } else {
      launch(command, activation);
    }
  }
  position_.pop_back();
}

void Interpreter::loop(const CommandSpec& command, Activation& activation) {
  const size_t depth = position_.size();
  const uint32_t first = resuming(depth) ? target_[depth] : 0;
  position_.push_back(0);
  activation.iterations.push_back(0);
  for (uint32_t i = first; i < command.tripCount; i++) {
    step(command.body.empty() ? 1 : 0, command.node);
    position_[depth] = activation.iterations.back() = i;
    block(command.body, activation);
  }
  activation.iterations.pop_back();
  position_.pop_back();
}

void Interpreter::call(const CommandSpec& command, const Activation& activation) {
  const FunctionSpec& callee = program_.functions[command.callee];
  const uint64_t n = file_.ring().degree();
  std::vector<uint64_t*> arguments;
  for (const BindingSpec& binding : command.bindings)
    arguments.push_back(activation.buffers[binding.buffer] + binding.offset * n);
  Activation inner = activate(callee, activation.frame + command.frameOffset * n, arguments);
  for (size_t i = 0; i < command.plainBindings.size(); i++)
    inner.plaintexts[i] = activation.plaintexts[command.plainBindings[i]];
  const Totals& totals = totals_[command.callee];
  if (totals.exchanges || resuming_) return block(callee.commands, inner);
  const CallSite site{callee, inner.frame, inner.buffers, inner.plaintexts, totals.launches, callee.rowCost};
  if (device_.enterCall(site)) {
    const bool outer = std::exchange(insideDeviceCall_, true);
    block(callee.commands, inner);
    insideDeviceCall_ = outer;
    device_.leaveCall();
    return;
  }
  for (uint32_t i = 0; i < kOpcodeCount; i++) {
    result_->opcodes[i].launches += totals.opcodes[i].launches;
    result_->opcodes[i].rowBytes += totals.opcodes[i].rowBytes;
  }
}

void Interpreter::launch(const CommandSpec& c, const Activation& activation) {
  KernelCall call;
  call.command = &c;
  call.launch = {c.rank, c.reduceRank, {}, c.limbs.data(), uint32_t(c.limbs.size()), c.accumulate};
  std::copy(c.dims, c.dims + kMaxRank, call.launch.dims);
  const OpTraits& traits = *opTraits(c.op);
  call.out = rows(c.out, c, activation);
  if (traits.a) call.a = rows(c.a, c, activation);
  if (traits.b) call.b = rows(c.b, c, activation);
  if (traits.plain) call.plain = plainRows(c, activation);
  const uint32_t iteration = activation.iterations.empty() ? 0 : activation.iterations.back();
  call.turn = size_t(iteration) * c.turnsPerIteration;
  call.work = c.rowCost;
  device_.launch(call);
  count(c);
}

Rows Interpreter::rows(const ViewSpec& view, const CommandSpec& command, const Activation& activation) const {
  const int64_t n = file_.ring().degree();
  Rows rows;
  rows.base = activation.buffers[view.buffer] + position(view, activation.iterations) * n;
  for (uint32_t d = 0; d < command.rank; d++) rows.strides[d] = view.strides[d] * n;
  rows.limbStride = view.limbStride * n;
  rows.componentStride = view.componentStride * n;
  return rows;
}

PlainRows Interpreter::plainRows(const CommandSpec& command, const Activation& activation) const {
  const ViewSpec& view = command.plain;
  const EncodedPlaintext& plaintext = *activation.plaintexts[view.buffer];
  const int64_t words = plaintext.rowWords;
  PlainRows rows;
  rows.base = plaintext.base + position(view, activation.iterations) * words;
  rows.rowWords = plaintext.rowWords;
  rows.coefficients = plaintext.coefficients;
  for (uint32_t d = 0; d < command.rank; d++) rows.strides[d] = view.strides[d] * words;
  rows.limbStride = view.limbStride * words;
  return rows;
}

}  // namespace aegis

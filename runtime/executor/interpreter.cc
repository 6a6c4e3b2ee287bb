#include "executor/interpreter.h"

#include <algorithm>
#include <limits>

#include "plan/op_traits.h"

namespace aegis {
namespace {

using Clock = std::chrono::steady_clock;

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

void Interpreter::run(uint64_t* frame, const std::vector<uint64_t*>& arguments, const RunOptions& options,
                      Channel& channel, const std::optional<Fault>& fault, RankStatistics& result) {
  const FunctionSpec& entry = program_.entry();
  ProgressMeter meter(options, entry.rowCost);
  meter_ = &meter;
  result_ = &result;
  channel_ = &channel;
  fault_ = fault.has_value() && fault->rank == result.rank ? fault : std::nullopt;
  started_ = 0;
  collectiveSeconds_.assign(file_.collectives().size(), 0);
  Activation activation = activate(entry, frame, arguments);
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
    result.collectives.push_back({collective.id, channel.executions(collective.id),
                                  collective.predictedBytes[index], channel.receivedBytes(collective.id),
                                  collectiveSeconds_[collective.id]});
  }
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
  for (const CommandSpec& command : commands) {
    if (command.op == plan::Opcode_Call) {
      call(command, activation);
    } else if (command.op == plan::Opcode_Loop) {
      activation.iterations.push_back(0);
      for (uint32_t i = 0; i < command.tripCount; i++) {
        step(command.body.empty() ? 1 : 0, command.node);
        activation.iterations.back() = i;
        block(command.body, activation);
      }
      activation.iterations.pop_back();
    } else if (command.op == plan::Opcode_Collective || command.op == plan::Opcode_Wait) {
      exchange(command, activation);
    } else {
      launch(command, activation);
    }
  }
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
  if (totals.exchanges) return block(callee.commands, inner);
  const CallSite site{callee, inner.frame, inner.buffers, inner.plaintexts, totals.launches, callee.rowCost};
  if (device_.enterCall(site)) {
    block(callee.commands, inner);
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

#include "executor/interpreter.h"

#include <algorithm>

namespace aegis {
namespace {

// A launch is cut along a batch dimension into slices of about this many word operations (some 100 ms), so
// that progress and cancellation come through. Batch elements are independent: the bits do not change.
constexpr uint64_t kSliceWordOps = uint64_t(1) << 28;

using Clock = std::chrono::steady_clock;

int64_t position(const ViewSpec& view, const std::vector<uint32_t>& iterations) {
  int64_t row = view.offset;
  for (size_t k = 0; k < view.loopStrides.size(); k++) row += int64_t(iterations[k]) * view.loopStrides[k];
  return row;
}

}  // namespace

Interpreter::Interpreter(const PlanFile& file, const ProgramSpec& program, const PlaintextStore& plaintexts,
                         ThreadPool& pool, const KeyLookup& keys)
    : file_(file), program_(program), plaintexts_(plaintexts), pool_(pool), kernels_(cpuKernels()) {
  for (const FunctionSpec& function : program.functions) prepareKeys(function.commands, keys);
}

void Interpreter::prepareKeys(const std::vector<CommandSpec>& commands, const KeyLookup& keys) {
  for (const CommandSpec& command : commands) {
    prepareKeys(command.body, keys);
    if (command.op != plan::Opcode_KeyProduct) continue;
    std::vector<KeyView>& views = keys_[&command];
    for (const uint32_t key : command.keys) {
      KeyView view = keys(key);
      bool fits = view.base != nullptr && view.digitCount == file_.keyDigitCount(key);
      if (view.rowOf == nullptr) fits &= view.rowCount == file_.keyRowCount(key);
      for (const uint16_t row : command.keyRows) fits = fits && view.place(row) < view.rowCount;
      if (!fits)
        fail("R303", "key " + std::to_string(key) + " does not have the shape that the plan asks for",
             "make new keys with `aegis keygen` for this plan");
      view.base += size_t(command.firstDigit) * 2 * view.rowCount * file_.ring().degree();
      view.digitCount -= command.firstDigit;
      views.push_back(view);
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
  block(entry.commands, activation);
  for (const Collective& collective : file_.collectives()) {
    const uint32_t index = collective.indexOf(result.rank);
    if (index == ~0u) continue;
    result.collectives.push_back({collective.id, channel.executions(collective.id),
                                  collective.predictedBytes[index], channel.receivedBytes(collective.id),
                                  collectiveSeconds_[collective.id]});
  }
}

void Interpreter::step(uint64_t work, std::string_view node) {
  channel_->beat();
  meter_->step(work, node);
}

// Blocks stay where they are until the wait: the plan was checked for that.
void Interpreter::exchange(const CommandSpec& command, const Activation& activation) {
  const Collective& collective = file_.collectives()[command.collective];
  step(0, collective.node);
  const auto start = Clock::now();
  if (command.op == plan::Opcode_Collective) {
    if (fault_.has_value() && fault_->collective == started_)
      fault_->happen(collective.describe(), [&] { step(0, collective.node); });
    started_++;
    const uint32_t index = collective.indexOf(result_->rank);
    const int64_t n = file_.ring().degree();
    const auto block = [&](const ViewSpec& view, uint64_t rows) -> uint64_t* {
      if (rows == 0) return nullptr;
      return activation.buffers[view.buffer] + position(view, activation.iterations) * n;
    };
    channel_->start(command.collective, block(command.a, collective.sendRows(index)),
                    block(command.out, collective.receiveRows(index)));
  }
  if (command.op == plan::Opcode_Wait || command.blocking) channel_->wait(command.collective);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  collectiveSeconds_[command.collective] += seconds;
  result_->waitSeconds += seconds;
  count(command, seconds);
  step(command.rowCost, collective.node);
}

void Interpreter::count(const CommandSpec& command, double seconds) {
  result_->nodeSeconds[command.node] += seconds;
  OpcodeStatistics& statistics = result_->opcodes[command.op];
  statistics.seconds += seconds;
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
    activation.plaintexts[i] = &plaintexts_[function.plaintexts[i].plaintext];
  return activation;
}

void Interpreter::block(const std::vector<CommandSpec>& commands, Activation& activation) {
  for (const CommandSpec& command : commands) {
    if (command.op == plan::Opcode_Call) {
      call(command, activation);
    } else if (command.op == plan::Opcode_Loop) {
      activation.iterations.push_back(0);
      for (uint32_t i = 0; i < command.tripCount; i++) {
        step(command.body.empty() ? 1 : 0, file_.location(command.node));
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
  block(callee.commands, inner);
}

void Interpreter::launch(const CommandSpec& command, const Activation& activation) {
  const std::string_view node = file_.location(command.node);
  const auto start = Clock::now();
  uint32_t dim = 0;
  while (dim < command.rank - command.reduceRank && command.dims[dim] == 1) dim++;
  const uint64_t slices = command.rowCost * file_.ring().degree() / kSliceWordOps;
  if (dim == command.rank - command.reduceRank || slices < 2) {
    step(0, node);
    dispatch(command, activation, ~0u, 0, 0);
    step(command.rowCost, node);
  } else {
    const uint32_t size = command.dims[dim], slice = uint32_t(std::max<uint64_t>(1, size / slices));
    for (uint32_t begin = 0; begin < size; begin += std::min(slice, size - begin)) {
      const uint32_t end = begin + std::min(slice, size - begin);
      step(0, node);
      dispatch(command, activation, dim, begin, end);
      step(command.rowCost / size * (end - begin), node);
    }
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  result_->computeSeconds += seconds;
  count(command, seconds);
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

// The whole launch, or indices begin..end-1 of dimension sliceDim.
void Interpreter::dispatch(const CommandSpec& c, const Activation& activation, uint32_t sliceDim,
                           uint32_t begin, uint32_t end) {
  const RingContext& ring = file_.ring();
  Launch launch{c.rank, c.reduceRank, {}, c.limbs.data(), uint32_t(c.limbs.size()), c.accumulate};
  std::copy(c.dims, c.dims + kMaxRank, launch.dims);
  const uint32_t iteration = activation.iterations.empty() ? 0 : activation.iterations.back();
  size_t turn = size_t(iteration) * c.turnsPerIteration;
  const bool sliced = sliceDim != ~0u;
  if (sliced) launch.dims[sliceDim] = end - begin;
  if (sliced && sliceDim == c.turnDim) turn += begin;
  const auto operand = [&](const ViewSpec& view) {
    Rows result = rows(view, c, activation);
    if (sliced) result.base += ptrdiff_t(begin) * result.strides[sliceDim];
    return result;
  };
  const auto plain = [&] {
    PlainRows result = plainRows(c, activation);
    if (sliced) result.base += ptrdiff_t(begin) * result.strides[sliceDim];
    return result;
  };
  const Rows out = operand(c.out);
  switch (c.op) {
    case plan::Opcode_Zero: return kernels_.zero(ring, pool_, launch, out);
    case plan::Opcode_Copy: return kernels_.copy(ring, pool_, launch, out, operand(c.a));
    case plan::Opcode_Add: return kernels_.add(ring, pool_, launch, out, operand(c.a), operand(c.b));
    case plan::Opcode_Sub: return kernels_.sub(ring, pool_, launch, out, operand(c.a), operand(c.b));
    case plan::Opcode_AddPlain: return kernels_.addPlain(ring, pool_, launch, out, operand(c.a), plain());
    case plan::Opcode_Contract: return kernels_.contract(ring, pool_, launch, out, operand(c.a), plain());
    case plan::Opcode_Tensor: return kernels_.tensor(ring, pool_, launch, out, operand(c.a), operand(c.b));
    case plan::Opcode_Ntt: return kernels_.ntt(ring, pool_, launch, out, operand(c.a));
    case plan::Opcode_Intt: return kernels_.intt(ring, pool_, launch, out, operand(c.a));
    case plan::Opcode_BaseConvert:
      return kernels_.baseConvert(ring, pool_, launch, out, operand(c.a), c.sourceLimbs.data(),
                                  uint32_t(c.sourceLimbs.size()));
    case plan::Opcode_SubScale:
      return kernels_.subScale(ring, pool_, launch, out, operand(c.a), operand(c.b), c.scalars.data());
    case plan::Opcode_KeyProduct:
      return kernels_.keyProduct(ring, pool_, launch, out, operand(c.a), c.digitCount,
                                 keys_.at(&c).data() + turn, c.turnDim, c.keyRows.data());
    case plan::Opcode_Automorphism:
      return kernels_.automorphism(ring, pool_, launch, out, operand(c.a), c.galois.data() + turn, c.turnDim);
    case plan::Opcode_Loop:
    case plan::Opcode_Call:
    case plan::Opcode_Collective:
    case plan::Opcode_Wait: break;
  }
  AEGIS_INVARIANT(!"a kernel");
}

}  // namespace aegis

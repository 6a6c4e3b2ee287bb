#include "plan/decode_function.h"

#include <algorithm>

#include "plan/function_decoder.h"

namespace aegis {

CheckedFunction decodeFunction(const CheckContext& context, const FunctionPlace& place,
                               const plan::Function& function) {
  return FunctionDecoder(context, place, function).run();
}

std::string FunctionDecoder::where() const {
  std::string text = "program " + std::to_string(place_.rank) + ", function " + std::to_string(place_.index) +
                     " (" + result_.spec.name + ")";
  for (size_t depth = 0; depth < position_.size(); depth++)
    text += (depth == 0 ? ", command " : ".") + std::to_string(position_[depth]);
  return text;
}

CheckedFunction FunctionDecoder::run() {
  FunctionSpec& spec = result_.spec;
  spec.name = source_.name()->str();
  spec.frameRows = source_.frame_rows();
  if (spec.frameRows > kMaxRows) refuse("R230", "the frame has " + std::to_string(spec.frameRows) + " rows");
  buffers();
  plaintextSlots();
  spec.commands = block(source_.commands(), spec.rowCost);
  return std::move(result_);
}

void FunctionDecoder::buffers() {
  FunctionSpec& spec = result_.spec;
  context_.budget.charge(source_.buffers()->size());
  for (const plan::Buffer* buffer : *source_.buffers()) {
    const std::string name = "buffer " + std::to_string(spec.buffers.size());
    if (buffer->rows() == 0 || buffer->rows() > kMaxRows)
      refuse("R230", name + " has " + std::to_string(buffer->rows()) + " rows");
    if (buffer->argument()) {
      if (spec.argumentCount != spec.buffers.size()) refuse("R230", name + " is an argument after a local");
      spec.argumentCount++;
    } else if (buffer->offset() > spec.frameRows || buffer->rows() > spec.frameRows - buffer->offset()) {
      refuse("R230", name + " lies outside of the frame");
    }
    spec.buffers.push_back({buffer->argument(), buffer->argument() ? 0 : buffer->offset(), buffer->rows()});
  }
  result_.written.assign(spec.argumentCount, false);
}

void FunctionDecoder::plaintextSlots() {
  FunctionSpec& spec = result_.spec;
  if (source_.plaintexts() == nullptr) return;
  context_.budget.charge(source_.plaintexts()->size());
  for (const plan::PlaintextSlot* slot : *source_.plaintexts()) {
    const std::string name = "plaintext slot " + std::to_string(spec.plaintexts.size());
    if (slot->argument()) {
      if (spec.plainArgumentCount != spec.plaintexts.size())
        refuse("R230", name + " is an argument after a plaintext");
      spec.plainArgumentCount++;
    } else if (slot->plaintext() >= context_.plan.plaintexts()->size()) {
      refuse("R230", name + " names plaintext " + std::to_string(slot->plaintext()));
    }
    spec.plaintexts.push_back({slot->argument(), slot->argument() ? 0 : slot->plaintext()});
  }
}

std::vector<CommandSpec> FunctionDecoder::block(const Commands* commands, uint64_t& rowCost) {
  std::vector<CommandSpec> result;
  rowCost = 0;
  if (commands == nullptr) return result;
  context_.budget.charge(commands->size());
  position_.push_back(0);
  for (const plan::Command* source : *commands) {
    command(*source, result.emplace_back());
    rowCost += result.back().rowCost;
    if (rowCost > kMaxRowCost) refuse("R243", "the plan would never come to its end");
    position_.back()++;
  }
  if (!open_.empty() && open_.back().block == position_.size())
    refuse("R246", "collective " + std::to_string(open_.back().collective) + " is never waited for");
  position_.pop_back();
  return result;
}

void FunctionDecoder::command(const plan::Command& source, CommandSpec& spec) {
  context_.budget.charge(16);
  if (source.op() > plan::Opcode_MAX) refuse("R244", "unknown command " + std::to_string(int(source.op())));
  spec.op = source.op();
  spec.node = source.node();
  if (spec.node >= context_.plan.locations()->size())
    refuse("R244", "location " + std::to_string(spec.node) + " of " +
                       std::to_string(context_.plan.locations()->size()));
  if (spec.op == plan::Opcode_Loop) return loop(source, spec);
  if (spec.op == plan::Opcode_Call) return call(source, spec);
  if (spec.op == plan::Opcode_Collective) return exchange(source, spec);
  if (spec.op == plan::Opcode_Wait) return wait(source, spec);
  const OpTraits* traits = opTraits(spec.op);
  AEGIS_INVARIANT(traits != nullptr);
  launch(source, spec, *traits);
}

void FunctionDecoder::loop(const plan::Command& source, CommandSpec& spec) {
  spec.tripCount = source.trip_count();
  require(spec.tripCount >= 1, "R235", "a loop without iterations");
  require(trips_.size() < kMaxLoopDepth, "R235", "loops are nested too deep");
  trips_.push_back(spec.tripCount);
  uint64_t bodyCost = 0;
  spec.body = block(source.body(), bodyCost);
  trips_.pop_back();
  const int128 cost = int128(std::max<uint64_t>(bodyCost, 1)) * spec.tripCount;
  if (cost > int128(kMaxRowCost)) refuse("R243", "the plan would never come to its end");
  spec.rowCost = uint64_t(cost);
}

void FunctionDecoder::call(const plan::Command& source, CommandSpec& spec) {
  spec.callee = source.callee();
  if (spec.callee >= earlier_.size())
    refuse("R234", "calls function " + std::to_string(spec.callee) + ", which is not an earlier one");
  const CheckedFunction& callee = earlier_[spec.callee];
  const uint32_t count = source.bindings() == nullptr ? 0 : source.bindings()->size();
  if (count != callee.spec.argumentCount)
    refuse("R234", "binds " + std::to_string(count) + " buffers for " +
                       std::to_string(callee.spec.argumentCount) + " arguments");
  context_.budget.charge(count);
  for (uint32_t i = 0; i < count; i++) {
    const plan::Binding& binding = *source.bindings()->Get(i);
    const std::string name = "argument " + std::to_string(i);
    if (binding.view_buffer() >= result_.spec.buffers.size())
      refuse("R234", name + " names buffer " + std::to_string(binding.view_buffer()));
    const uint64_t available = result_.spec.buffers[binding.view_buffer()].rows,
                   needed = callee.spec.buffers[i].rows;
    if (needed > available || binding.offset() > available - needed)
      refuse("R234", name + " leaves its buffer");
    spec.bindings.push_back({binding.view_buffer(), binding.offset()});
  }
  spec.frameOffset = source.frame_offset();
  const uint64_t frame = result_.spec.frameRows;
  if (callee.spec.frameRows > frame || spec.frameOffset > frame - callee.spec.frameRows)
    refuse("R234", "the callee's frame does not fit into the caller's");
  checkBindings(spec, callee);
  checkOpenCall(spec, callee);
  bindPlaintexts(source, spec, callee);
  spec.rowCost = std::max<uint64_t>(callee.spec.rowCost, 1);
}

// Arguments that the callee writes share no row with others, and no argument lies in the callee's frame.
void FunctionDecoder::checkBindings(const CommandSpec& spec, const CheckedFunction& callee) {
  struct Range {
    uint64_t space, first, end;  // space 0: the frame; 1 + i: argument i of this function
    bool written;
  };
  std::vector<Range> ranges;
  for (size_t i = 0; i < spec.bindings.size(); i++) {
    const BindingSpec& binding = spec.bindings[i];
    const BufferSpec& buffer = result_.spec.buffers[binding.buffer];
    const uint64_t first = buffer.offset + binding.offset;
    ranges.push_back({buffer.argument ? 1 + uint64_t(binding.buffer) : 0, first,
                      first + callee.spec.buffers[i].rows, bool(callee.written[i])});
    if (callee.written[i] && buffer.argument) result_.written[binding.buffer] = true;
  }
  if (callee.spec.frameRows > 0)
    ranges.push_back({0, spec.frameOffset, spec.frameOffset + callee.spec.frameRows, true});
  std::sort(ranges.begin(), ranges.end(), [](const Range& x, const Range& y) {
    return x.space != y.space ? x.space < y.space : x.first < y.first;
  });
  // In order of their starts: a range meets an earlier one exactly if it starts before the furthest end so
  // far.
  uint64_t end = 0, writtenEnd = 0;
  for (size_t i = 0; i < ranges.size(); i++) {
    const Range& range = ranges[i];
    if (i == 0 || ranges[i - 1].space != range.space) end = writtenEnd = 0;
    if (range.first < (range.written ? end : writtenEnd))
      refuse("R234", "an argument or frame that the callee writes overlaps another argument");
    end = std::max(end, range.end);
    if (range.written) writtenEnd = std::max(writtenEnd, range.end);
  }
}

void FunctionDecoder::bindPlaintexts(const plan::Command& source, CommandSpec& spec,
                                     const CheckedFunction& callee) {
  const uint32_t count = source.plain_bindings() == nullptr ? 0 : source.plain_bindings()->size();
  if (count != callee.spec.plainArgumentCount)
    refuse("R234", "binds " + std::to_string(count) + " plaintexts for " +
                       std::to_string(callee.spec.plainArgumentCount) + " arguments");
  context_.budget.charge(count);
  for (uint32_t i = 0; i < count; i++) {
    const uint32_t slot = source.plain_bindings()->Get(i);
    if (slot >= result_.spec.plaintexts.size())
      refuse("R234", "binds plaintext slot " + std::to_string(slot));
    spec.plainBindings.push_back(slot);
  }
  for (const auto& [argument, access] : callee.plainUses) usePlaintext(spec.plainBindings[argument], access);
}

void FunctionDecoder::usePlaintext(uint32_t slot, std::shared_ptr<const PlainAccess> access) {
  context_.budget.charge(8 + access->limbs.size());
  const PlainSlotSpec& plaintext = result_.spec.plaintexts[slot];
  if (!plaintext.argument) return checkAccess(*access, plaintext.plaintext);
  if (knownUses_.emplace(slot, access.get()).second) result_.plainUses.emplace_back(slot, std::move(access));
}

// Rows of a plaintext are [elements][limbs]: the access must stay inside and find its own limbs; a row of
// coefficients is for all of them.
void FunctionDecoder::checkAccess(const PlainAccess& access, uint32_t plaintext) const {
  const plan::Plaintext& p = *context_.plan.plaintexts()->Get(plaintext);
  const std::string what = "reads plaintext " + std::to_string(plaintext) + " for " + access.where;
  const int64_t limbs = int64_t(rowsPerElement(p));
  if (access.firstRow < 0 || access.lastRow >= int128(p.elements()) * limbs)
    refuse("R239", what + " outside of its rows");
  if (access.strideDivisor % limbs != 0) refuse("R239", what + " with strides that are no whole elements");
  for (size_t j = 0; j < access.limbs.size(); j++) {
    const int128 limb = access.offset % limbs + int128(j) * access.limbStride;
    if (limb < 0 || limb >= limbs || (!p.coefficients() && p.limbs()->Get(uint32_t(limb)) != access.limbs[j]))
      refuse("R239", what + " at other limbs than it has");
  }
}

}  // namespace aegis

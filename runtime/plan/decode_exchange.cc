// Commands that start a collective or wait for one: blocks inside of their buffers in every iteration, and
// untouched while the collective is open.
#include <algorithm>

#include "plan/function_decoder.h"

namespace aegis {

ViewSpec FunctionDecoder::blockView(const plan::View* source, const char* name, uint64_t rows) const {
  if (source == nullptr) refuse("R232", std::string("the ") + name + " block is missing");
  ViewSpec view;
  view.buffer = source->buffer();
  if (source->offset() > kMaxRows)
    refuse("R232", std::string("the ") + name + " block starts outside of its buffer");
  view.offset = int64_t(source->offset());
  view.limbStride = rows == 1 ? 0 : 1;
  const uint32_t strides = source->loop_strides() == nullptr ? 0 : source->loop_strides()->size();
  if (strides > trips_.size())
    refuse("R232", std::string("the ") + name + " block has more strides than there are loops");
  for (uint32_t k = 0; k < strides; k++) {
    const int64_t stride = trips_[k] == 1 ? 0 : source->loop_strides()->Get(k);
    if (stride < -int64_t(kMaxRows) || stride > int64_t(kMaxRows))
      refuse("R232", std::string("the ") + name + " block has a stride beyond any buffer");
    view.loopStrides.push_back(stride);
  }
  view.loopStrides.resize(trips_.size(), 0);
  return view;
}

void FunctionDecoder::exchange(const plan::Command& source, CommandSpec& spec) {
  spec.collective = source.collective();
  spec.blocking = source.blocking();
  if (spec.collective >= context_.collectives.size())
    refuse("R246", "collective " + std::to_string(spec.collective) + " of " +
                       std::to_string(context_.collectives.size()));
  const Collective& collective = context_.collectives[spec.collective];
  const uint32_t index = collective.indexOf(place_.rank);
  if (index == ~0u)
    refuse("R246", "collective " + std::to_string(spec.collective) + " is for other ranks");
  OpenExchange open{spec.collective, trips_.size(), position_.size(), {}, {}, collective.sendRows(index),
                    collective.receiveRows(index)};
  if (open.sendRows > 0) {
    open.send = spec.a = blockView(source.a(), "send", open.sendRows);
    checkInside(spec.a, "a", spec, 1, open.sendRows);
    checkOpen(spec.a, spec, 1, open.sendRows, false);
  }
  if (open.receiveRows > 0) {
    open.receive = spec.out = blockView(source.out(), "receive", open.receiveRows);
    checkInside(spec.out, "out", spec, 1, open.receiveRows);
    checkOpen(spec.out, spec, 1, open.receiveRows, true);
    if (open.sendRows > 0 && meetsBlock(open, true, spec.out, spec, 1, open.receiveRows))
      refuse("R233", "the receive block overlaps the send block");
    if (result_.spec.buffers[spec.out.buffer].argument) result_.written[spec.out.buffer] = true;
  }
  spec.rowsMoved = open.sendRows + open.receiveRows;
  spec.rowCost = std::max<uint64_t>(open.receiveRows, 1);
  startCollective(spec);
  if (!spec.blocking) open_.push_back(std::move(open));
}

void FunctionDecoder::startCollective(const CommandSpec& spec) {
  for (const OpenExchange& open : open_)
    if (open.collective == spec.collective)
      refuse("R246", "collective " + std::to_string(spec.collective) + " is started while it is open");
  result_.collectives.insert(spec.collective);
}

void FunctionDecoder::wait(const plan::Command& source, CommandSpec& spec) {
  spec.collective = source.collective();
  const auto open = std::find_if(open_.begin(), open_.end(), [&](const OpenExchange& one) {
    return one.collective == spec.collective && one.block == position_.size();
  });
  if (open == open_.end())
    refuse("R246", "waits for collective " + std::to_string(spec.collective) +
                       ", which was not started in this block");
  open_.erase(open);
  spec.rowCost = 1;
}

bool FunctionDecoder::meetsBlock(const OpenExchange& open, bool send, ViewSpec view, const CommandSpec& spec,
                                 uint64_t components, uint64_t limbs) const {
  const ViewSpec& block = send ? open.send : open.receive;
  const uint64_t count = send ? open.sendRows : open.receiveRows;
  if (count == 0) return false;
  const BufferSpec& blockBuffer = result_.spec.buffers[block.buffer];
  const BufferSpec& buffer = result_.spec.buffers[view.buffer];
  if (buffer.argument != blockBuffer.argument || (buffer.argument && view.buffer != block.buffer))
    return false;
  RowSet fixed(block.offset + int64_t(blockBuffer.offset));
  fixed.add(count, 1);
  view.offset += int64_t(buffer.offset);
  RowSet moving = rows(view, spec, components, limbs);
  // Both move with the loops around the block: what counts is how they move against each other.
  for (size_t k = 0; k < trips_.size(); k++)
    moving.add(trips_[k], view.loopStrides[k] - (k < open.depth ? block.loopStrides[k] : 0));
  return RowSet::meet(moving, fixed, context_.budget);
}

void FunctionDecoder::checkOpen(const ViewSpec& view, const CommandSpec& spec, uint64_t components,
                                uint64_t limbs, bool writes) {
  context_.budget.charge(open_.size());
  for (const OpenExchange& open : open_)
    if (meetsBlock(open, false, view, spec, components, limbs) ||
        (writes && meetsBlock(open, true, view, spec, components, limbs)))
      refuse("R246", "touches rows of collective " + std::to_string(open.collective) + ", which is open");
}

void FunctionDecoder::checkOpenCall(const CommandSpec& spec, const CheckedFunction& callee) {
  const auto touch = [&](uint32_t buffer, uint64_t offset, uint64_t rows, bool writes) {
    ViewSpec view;
    view.buffer = buffer;
    view.offset = int64_t(offset);
    view.limbStride = 1;
    view.loopStrides.resize(trips_.size(), 0);
    checkOpen(view, spec, 1, rows, writes);
  };
  for (const uint32_t collective : callee.collectives) {
    context_.budget.charge(1 + open_.size());
    CommandSpec inner;
    inner.collective = collective;
    startCollective(inner);
  }
  if (open_.empty()) return;
  for (size_t i = 0; i < spec.bindings.size(); i++)
    touch(spec.bindings[i].buffer, spec.bindings[i].offset, callee.spec.buffers[i].rows, callee.written[i]);
  if (callee.spec.frameRows == 0) return;
  // The frame belongs to no buffer: seen from the first local one, as rows of the frame.
  for (uint32_t b = result_.spec.argumentCount; b < result_.spec.buffers.size(); b++) {
    ViewSpec view;
    view.buffer = b;
    view.offset = int64_t(spec.frameOffset) - int64_t(result_.spec.buffers[b].offset);
    view.limbStride = 1;
    view.loopStrides.resize(trips_.size(), 0);
    checkOpen(view, spec, 1, callee.spec.frameRows, true);
    return;
  }
}

}  // namespace aegis

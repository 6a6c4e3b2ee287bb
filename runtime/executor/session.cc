#include "executor/session.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "support/error.h"

namespace aegis {
namespace {

const ProgramSpec& programOf(const PlanFile& plan, uint32_t rank) {
  if (rank >= plan.programs().size())
    fail("R403", "rank " + std::to_string(rank) + " of a plan for " + std::to_string(plan.programs().size()) +
                     " ranks");
  return plan.programs()[rank];
}

uint64_t argumentRows(const FunctionSpec& entry) {
  uint64_t rows = 0;
  for (uint32_t i = 0; i < entry.argumentCount; i++) rows += entry.buffers[i].rows;
  return rows;
}

}  // namespace

Session::Session(std::shared_ptr<const PlanFile> plan, const Weights& weights, KeySource keys,
                 uint32_t threads, const RunOptions& loading, uint32_t rank)
    : plan_(std::move(plan)),
      program_(programOf(*plan_, rank)),
      keys_(std::move(keys)),
      pool_(threads),
      plaintexts_(*plan_, weights, pool_, loading),
      interpreter_(*plan_, program_, plaintexts_, pool_, keys_.view),
      arena_((argumentRows(program_.entry()) + program_.entry().frameRows) * plan_->ring().degree()) {
  arena_.touch(pool_);
  uint64_t* next = arena_.data();
  for (uint32_t i = 0; i < program_.entry().argumentCount; i++) {
    arguments_.push_back(next);
    next += program_.entry().buffers[i].rows * plan_->ring().degree();
  }
  frame_ = next;
}

void Session::checkInput(const plan::Port& port, const CiphertextArray& input) {
  const std::string name = "input " + port.name()->str();
  const size_t n = plan_->ring().degree(), limbs = port.level() + size_t(1);
  if (input.elements != port.elements() || input.limbCount != limbs ||
      input.data.size() != port.elements() * 2 * limbs * n)
    fail("R302", name + " has " + std::to_string(input.elements) + " ciphertexts of " +
                     std::to_string(input.limbCount) + " limbs but the plan takes " +
                     std::to_string(port.elements()) + " of " + std::to_string(limbs));
  std::atomic<bool> canonical{true};
  pool_.parallelFor(size_t(port.elements()) * 2 * limbs, 1, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; row++) {
      const uint64_t q = plan_->ring().modulus(uint32_t(row % limbs));
      const uint64_t* words = input.data.data() + row * n;
      uint64_t over = 0;
      for (size_t k = 0; k < n; k++) over |= uint64_t(words[k] >= q);
      if (over) canonical = false;
    }
  });
  if (!canonical) fail("R302", name + " has a residue that is not below its prime");
}

void Session::copyIn(const CiphertextArray& input, uint64_t* rows) {
  pool_.parallelFor(input.data.size(), size_t(1) << 18, [&](size_t begin, size_t end) {
    std::memcpy(rows + begin, input.data.data() + begin, (end - begin) * sizeof(uint64_t));
  });
}

RunResult Session::run(const std::vector<CiphertextArray>& inputs, const RunOptions& options) {
  const plan::Plan& plan = plan_->plan();
  if (inputs.size() != plan.inputs()->size())
    fail("R302", "the plan takes " + std::to_string(plan.inputs()->size()) + " inputs but got " +
                     std::to_string(inputs.size()));
  const std::lock_guard<std::mutex> lock(running_);
  const auto start = std::chrono::steady_clock::now();
  RunResult result;
  result.nodeSeconds.assign(plan.locations()->size(), 0);
  uint64_t portBytes = 0;
  for (uint32_t i = 0; i < inputs.size(); i++) {
    checkInput(*plan.inputs()->Get(i), inputs[i]);
    copyIn(inputs[i], arguments_[plan.inputs()->Get(i)->buffer()]);
    portBytes += inputs[i].data.size() * sizeof(uint64_t);
  }
  interpreter_.run(frame_, arguments_, options, result);
  for (const plan::Port* port : *plan.outputs()) {
    const uint32_t limbs = port->level() + 1u;
    const uint64_t* rows = arguments_[port->buffer()];
    const size_t words = size_t(port->elements()) * 2 * limbs * plan_->ring().degree();
    result.outputs.push_back({port->elements(), limbs, std::vector<uint64_t>(rows, rows + words)});
    portBytes += words * sizeof(uint64_t);
  }
  result.arenaBytes = arena_.bytes();
  result.staticBytes = staticBytes();
  result.peakBytes = result.arenaBytes + result.staticBytes + portBytes;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace aegis

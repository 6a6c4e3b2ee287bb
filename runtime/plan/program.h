// The commands of a plan, decoded and checked (decode_program.cc): what the executor runs. Nothing here
// refers to the file's bytes any more. Strides of dimensions that have one index are 0.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hal/channel.h"
#include "hal/kernels.h"
#include "plan/plan_generated.h"

namespace aegis {

// In rows (plan.fbs, View): element (i..) lies at offset + sum i_d strides[d] + sum_k iteration_k
// loopStrides[k].
struct ViewSpec {
  uint32_t buffer = 0;
  int64_t offset = 0;
  int64_t strides[kMaxRank] = {};
  int64_t componentStride = 0, limbStride = 0;
  std::vector<int64_t> loopStrides;  // outermost loop first
};

struct BindingSpec {
  uint32_t buffer = 0;
  uint64_t offset = 0;
};

struct CommandSpec {
  plan::Opcode op = plan::Opcode_Zero;
  uint32_t rank = 0, reduceRank = 0;
  uint32_t dims[kMaxRank] = {};
  bool accumulate = false;
  std::vector<uint16_t> limbs, sourceLimbs;
  ViewSpec out, a, b, plain;
  std::vector<uint64_t> scalars;
  std::vector<uint32_t> keys;     // all of one key class
  std::vector<uint16_t> keyRows;  // row of each limb in the whole key
  uint32_t firstDigit = 0, digitCount = 0;  // the operand's digits meet digits firstDigit.. of the key
  std::vector<uint32_t> galois;
  uint32_t turnDim = ~0u;          // dimension along which keys or Galois elements change, ~0u: none
  uint32_t turnsPerIteration = 0;  // of the innermost loop
  uint32_t tripCount = 0;
  std::vector<CommandSpec> body;
  uint32_t callee = 0;
  std::vector<BindingSpec> bindings;
  std::vector<uint32_t> plainBindings;
  uint64_t frameOffset = 0;
  uint32_t collective =
      0;  // `a` is the send block, `out` the receive block; only offset and loopStrides count
  bool blocking = true;
  uint32_t node = 0;
  uint64_t rowCost = 0;    // row passes of one execution, loops and calls included: the unit of progress
  uint64_t rowsMoved = 0;  // rows read and written by one launch
};

struct BufferSpec {
  bool argument = false;
  uint64_t offset = 0, rows = 0;  // offset in the frame, locals only
};

struct PlainSlotSpec {
  bool argument = false;
  uint32_t plaintext = 0;
};

struct FunctionSpec {
  std::string name;
  uint64_t frameRows = 0;
  std::vector<BufferSpec> buffers;  // arguments first
  uint32_t argumentCount = 0;
  std::vector<PlainSlotSpec> plaintexts;
  uint32_t plainArgumentCount = 0;
  std::vector<CommandSpec> commands;
  uint64_t rowCost = 0;
};

// A key, or the rows of it that a rank holds.
struct KeyPartSpec {
  uint32_t key = 0;
  std::vector<uint16_t> rows;  // of the whole key (kernels.h, KeyView), rising
};

// What a rank's argument buffer holds of a port: [element][component][limb].
struct PortPartSpec {
  uint32_t buffer = 0;
  std::vector<uint32_t> elements;  // rising
  std::vector<uint16_t> limbs;     // rising
};

// Bytes that a rank holds: what the plan predicts, once checked what a run takes.
struct RankMemorySpec {
  uint64_t ports = 0, frame = 0, keys = 0, plaintexts = 0;
  uint64_t staticBytes() const { return keys + plaintexts; }
  uint64_t arenaBytes() const { return ports + frame; }
  uint64_t total() const { return staticBytes() + arenaBytes(); }
};

struct ProgramSpec {
  std::vector<FunctionSpec> functions;
  std::vector<KeyPartSpec> keys;
  std::vector<PortPartSpec> inputs, outputs;
  std::vector<uint32_t> plaintexts;  // that the functions name, rising
  RankMemorySpec memory;
  const FunctionSpec& entry() const { return functions.back(); }
};

}  // namespace aegis

// One function of a program, decoded and checked (internal to runtime/plan).
//
// What holds inside of every function, by induction over calls: a function's arguments, its frame and
// everything that its callees touch are disjoint memory, except that arguments nobody writes may overlap each
// other. So aliasing can be decided inside of the function.
#pragma once

#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "plan/checks.h"
#include "plan/row_set.h"

namespace aegis {

// How some launch reads a plaintext: checked against the plaintext where a call binds it.
struct PlainAccess {
  std::string where;
  int128 firstRow = 0, lastRow = 0;
  int64_t offset = 0, limbStride = 0;
  int64_t strideDivisor = 0;  // gcd of all batch and loop strides
  std::vector<uint16_t> limbs;
};

// A function and what its callers must know.
struct CheckedFunction {
  FunctionSpec spec;
  std::vector<bool> written;  // by argument buffer
  std::vector<std::pair<uint32_t, std::shared_ptr<const PlainAccess>>>
      plainUses;  // (argument plaintext, access)
  std::set<uint32_t> collectives;  // that it or its callees start
};

// By key, the rows of the whole key that the rank holds; shorter where the last ones are absent.
using HeldKeys = std::vector<std::vector<bool>>;

struct FunctionPlace {
  const std::vector<CheckedFunction>& earlier;
  const HeldKeys& held;
  uint32_t index, rank;
};

CheckedFunction decodeFunction(const CheckContext& context, const FunctionPlace& place,
                               const plan::Function& function);

}  // namespace aegis

// One function of a program, decoded and checked (internal to runtime/plan).
//
// What holds inside of every function, by induction over calls: a function's arguments, its frame and
// everything that its callees touch are disjoint memory, except that arguments nobody writes may overlap each
// other. So aliasing can be decided inside of the function.
#pragma once

#include <memory>
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
};

CheckedFunction decodeFunction(const CheckContext& context, const std::vector<CheckedFunction>& earlier,
                               const plan::Function& function, uint32_t index, uint32_t rank);

}  // namespace aegis

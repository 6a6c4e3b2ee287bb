// The parts of plan validation (internal to runtime/plan).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ckks/ring.h"
#include "plan/plan_file.h"
#include "support/error.h"

namespace aegis {

__extension__ typedef __int128 int128;

// Limits far above any real plan, so that hostile numbers cannot overflow or run for hours.
constexpr uint32_t kMaxPrimes = 512;
constexpr uint32_t kMaxLoopDepth = 8;
constexpr uint64_t kMaxRows = uint64_t(1) << 46;
constexpr uint64_t kMaxLaunchElements = uint64_t(1) << 40;
constexpr uint64_t kMaxRowCost = uint64_t(1) << 50;

// Work that validation itself may do: flatbuffers may share one vector among many tables, so small files can
// ask for much. R243 when it is spent.
class CheckBudget {
 public:
  void charge(uint64_t work) {
    if (work > left_) fail("R243", "the plan is too complex to be validated");
    left_ -= work;
  }

 private:
  uint64_t left_ = uint64_t(1) << 30;
};

struct CheckContext {
  const plan::Plan& plan;
  const RingContext& ring;
  CheckBudget& budget;

  uint32_t slots() const { return ring.degree() / 2; }
};

inline bool isPowerOfTwo(uint64_t x) { return x != 0 && (x & (x - 1)) == 0; }

// R213 parameters, R214 key classes, R215 keys, R216 security claims; and what RingContext refuses.
std::unique_ptr<RingContext> checkParameters(const plan::Parameters& parameters);
void checkKeys(const CheckContext& context);
// R222 index tables out of range, R220 shape of a plaintext, R221 its recipe.
void checkPlaintexts(const CheckContext& context);
// R240. Every argument of every program's entry function is the buffer of exactly one port.
void checkPorts(const CheckContext& context, const std::vector<ProgramSpec>& programs);
// R230..R239, R241, R244, R245: see decode_program.cc.
ProgramSpec decodeProgram(const CheckContext& context, const plan::Program& program, uint32_t rank);
// R242 above the limit.
PlanMemory checkMemory(const CheckContext& context, const std::vector<ProgramSpec>& programs,
                       uint64_t limitBytes);

}  // namespace aegis

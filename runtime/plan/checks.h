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
  const std::vector<Collective>& collectives;

  uint32_t slots() const { return ring.degree() / 2; }
};

// Encoded, as a run holds it.
inline uint64_t plaintextBytesOf(const plan::Plaintext& p) {
  return uint64_t(p.elements()) * rowsPerElement(p) * p.row_words() * sizeof(uint64_t);
}

inline bool isPowerOfTwo(uint64_t x) { return x != 0 && (x & (x - 1)) == 0; }

// R213 parameters, R214 key classes, R215 keys, R216 security claims; and what RingContext refuses.
std::unique_ptr<RingContext> checkParameters(const plan::Parameters& parameters);
void checkKeys(const CheckContext& context);
// R222 index tables out of range, R220 shape of a plaintext, R221 its recipe.
void checkPlaintexts(const CheckContext& context);
// R240 ports; R241 parts of ports. Every argument of every program's entry function is the buffer of exactly
// one port, and all parts of an output together are the output.
void checkPorts(const CheckContext& context, std::vector<ProgramSpec>& programs);
// R245.
std::vector<Collective> decodeCollectives(const CheckContext& context);
// R247: some order of the plan's collectives fits all ranks, so that no rank waits for ever.
void checkCollectiveOrder(const CheckContext& context, const std::vector<ProgramSpec>& programs);
// R230..R239, R244..R246, R248: see decode_program.cc.
ProgramSpec decodeProgram(const CheckContext& context, const plan::Program& program, uint32_t rank);

}  // namespace aegis

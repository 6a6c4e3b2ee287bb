// A plan file, read and validated: everything that the runtime uses later was checked here, so a truncated,
// altered or hostile file ends in a coded error and never in a crash. Codes R201..R248, see docs/runtime.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ckks/ring.h"
#include "plan/plan_generated.h"
#include "plan/program.h"

namespace aegis {

constexpr uint16_t kPlanFormatMajor = 2;
constexpr uint64_t kNoMemoryLimit = ~uint64_t(0);

struct PlanOptions {
  // Largest number of bytes that running the plan may need; 0: the machine's physical memory. Those who only
  // read a plan (inspect, keygen) pass kNoMemoryLimit.
  uint64_t memoryLimitBytes = 0;
};
constexpr uint32_t kAllRanks = ~0u;

// May rows of this many words (a power of two) be held as coefficients? Expanding one for a limb takes w/2
// log2(w) butterflies: at most N/2, against N multiply-adds for each of a ciphertext's two polynomials.
inline bool smallEnoughToExpand(uint32_t words, uint32_t degree) {
  return uint64_t(words) * uint32_t(__builtin_ctz(words)) <= degree;
}

// Rows of row_words words that hold one element of a plaintext.
inline uint32_t rowsPerElement(const plan::Plaintext& p) { return p.coefficients() ? 1 : p.limbs()->size(); }

// What a process keeps resident, in bytes.
struct PlanMemory {
  uint64_t plaintextBytes = 0, keyBytes = 0;  // what several ranks share counts once
  uint64_t arenaBytes = 0;                    // frames and the entries' arguments
  uint64_t total() const { return plaintextBytes + keyBytes + arenaBytes; }
};

// Digits of a key of this class at `level`.
uint32_t keyDigitCount(const plan::KeyClass& keyClass, uint32_t level);

class PlanFile {
 public:
  // R101: missing or unreadable. R2xx: not a valid plan.
  static PlanFile open(const std::string& path, const PlanOptions& options = {});
  static PlanFile fromBytes(std::vector<uint8_t> bytes, const PlanOptions& options = {});

  // Verified; parameters, keys, tables, plaintexts, ports and locations may be used as they are. Commands
  // come from programs() only.
  const plan::Plan& plan() const { return *plan::GetPlan(bytes_.data()); }
  const RingContext& ring() const { return *ring_; }
  const std::vector<ProgramSpec>& programs() const { return programs_; }  // one per rank
  const std::vector<Collective>& collectives() const { return collectives_; }
  // Of a process that runs all ranks, or one.
  const PlanMemory& memory() const { return memory_; }
  PlanMemory memoryOf(const std::vector<uint32_t>& ranks) const;
  // R242: a process that runs this rank, or all, needs more than this; 0: more than the machine has.
  void requireMemory(uint64_t limitBytes, uint32_t rank = kAllRanks) const;
  bool insecure() const { return plan().parameters()->insecure(); }
  std::string_view location(uint32_t node) const { return plan().locations()->Get(node)->string_view(); }
  const std::vector<uint8_t>& bytes() const { return bytes_; }

  // The key class of Plan.keys[key], and how many rows its keys have.
  const plan::KeyClass& keyClass(uint32_t key) const;
  uint32_t keyRowCount(uint32_t key) const;
  uint32_t keyDigitCount(uint32_t key) const;
  // By key: the rows that any of these ranks holds, rising.
  std::vector<std::vector<uint16_t>> keyRowsOf(const std::vector<uint32_t>& ranks) const;

 private:
  PlanFile() = default;

  std::vector<uint8_t> bytes_;
  std::unique_ptr<RingContext> ring_;
  std::vector<ProgramSpec> programs_;
  std::vector<Collective> collectives_;
  PlanMemory memory_;
};

}  // namespace aegis

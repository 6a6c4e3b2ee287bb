// Parameters, key classes, keys and the memory they ask for.
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "plan/checks.h"

namespace aegis {
namespace {

// Largest log2(QP) for 128, 192, 256 bits (NUMBERS section 2; src/target/security.ts states the same).
constexpr struct {
  uint32_t bits;
  uint32_t maxLogQP[8];  // logN 10..17, 0: no entry
} kSecurity[] = {
    {256, {0, 27, 56, 114, 230, 462, 929, 1866}},
    {192, {0, 36, 73, 147, 297, 597, 1199, 2411}},
    {128, {26, 53, 106, 214, 430, 868, 1747, 3523}},
};
constexpr double kMaxSparseKeyBits = 121;

uint32_t securityBitsOf(uint32_t logN, double logQP) {
  if (logN < 10 || logN > 17) return 0;
  for (const auto& row : kSecurity)
    if (row.maxLogQP[logN - 10] != 0 && logQP <= row.maxLogQP[logN - 10]) return row.bits;
  return 0;
}

double log2Of(const plan::Parameters& p, uint32_t first, uint32_t count) {
  double sum = 0;
  for (uint32_t i = first; i < first + count; i++) sum += std::log2(double(p.primes()->Get(i)));
  return sum;
}

// The word INSECURE must not be missing: the claim is checked against the primes, not believed.
void checkSecurity(const plan::Parameters& p) {
  const double logQP = log2Of(p, 0, p.primes()->size());
  if (!(std::fabs(p.log_qp() - logQP) < 1e-3))
    fail("R216", "log2(QP) is " + std::to_string(logQP) + " but the plan says " + std::to_string(p.log_qp()));
  const uint32_t bits = securityBitsOf(p.log_n(), logQP);
  if (p.security_bits() > bits)
    fail("R216", "the plan claims " + std::to_string(p.security_bits()) +
                     "-bit security but its parameters give " + std::to_string(bits));
  if (bits < 128 && !p.insecure())
    fail("R216", "the parameters are below 128-bit security but the plan is not marked INSECURE");
}

void checkKeyClass(const plan::Parameters& p, const plan::KeyClass& c) {
  const std::string name = "key class " + c.name()->str();
  if (c.level() > p.max_level())
    fail("R214", name + " has level " + std::to_string(c.level()) + " above the chain");
  if (c.specials() == 0 || c.specials() > p.specials())
    fail("R214", name + " has " + std::to_string(c.specials()) + " special primes of " +
                     std::to_string(p.specials()));
  uint32_t next = 0;
  for (const plan::DigitRange* digit : *c.digits()) {
    if (digit->first() != next || digit->count() == 0)
      fail("R214", name + ": the digits do not cover its limbs in order");
    next += digit->count();
    if (next > uint32_t(c.level()) + 1) break;
  }
  if (next != uint32_t(c.level()) + 1)
    fail("R214",
         name + ": the digits cover " + std::to_string(next) + " limbs of " + std::to_string(c.level() + 1));
}

}  // namespace

std::unique_ptr<RingContext> checkParameters(const plan::Parameters& p) {
  const uint32_t count = p.primes()->size();
  if (count > kMaxPrimes || count != uint32_t(p.max_level()) + 1 + p.specials())
    fail("R213", std::to_string(count) + " primes for " + std::to_string(p.max_level()) + " levels and " +
                     std::to_string(p.specials()) + " special primes");
  auto ring =
      std::make_unique<RingContext>(p.log_n(), std::vector<uint64_t>(p.primes()->begin(), p.primes()->end()));
  if (p.scales()->size() != uint32_t(p.max_level()) + 1)
    fail("R213", "a plan of " + std::to_string(p.max_level()) + " levels has " +
                     std::to_string(p.scales()->size()) + " scales");
  for (const double scale : *p.scales())
    if (!std::isfinite(scale) || scale <= 0) fail("R213", "a canonical scale is " + std::to_string(scale));
  if (p.ephemeral_weight() > ring->degree())
    fail("R213", "the sparse secret's weight " + std::to_string(p.ephemeral_weight()) + " is above N");
  checkSecurity(p);
  if (p.key_classes()->size() > 64) fail("R214", "more than 64 key classes");
  for (const plan::KeyClass* keyClass : *p.key_classes()) checkKeyClass(p, *keyClass);
  return ring;
}

void checkKeys(const CheckContext& context) {
  const plan::Parameters& p = *context.plan.parameters();
  context.budget.charge(context.plan.keys()->size());
  for (uint32_t i = 0; i < context.plan.keys()->size(); i++) {
    const plan::Key& key = *context.plan.keys()->Get(i);
    const std::string name = "key " + std::to_string(i);
    if (key.kind() > plan::KeyKind_MAX)
      fail("R215", name + " has unknown kind " + std::to_string(key.kind()));
    if (key.key_class() >= p.key_classes()->size())
      fail("R215", name + " names key class " + std::to_string(key.key_class()));
    const plan::KeyClass& keyClass = *p.key_classes()->Get(key.key_class());
    if (key.level() > keyClass.level())
      fail("R215", name + " has level " + std::to_string(key.level()) + " above its class");
    if (key.kind() == plan::KeyKind_Galois &&
        (key.galois() % 2 == 0 || key.galois() >= 2 * context.ring.degree()))
      fail("R215", name + " has Galois element " + std::to_string(key.galois()));
    // A key that hides the main secret under the sparse one is only safe at a small modulus (NUMBERS 2).
    const double bits =
        log2Of(p, 0, key.level() + 1u) + log2Of(p, p.max_level() + 1u, keyClass.specials());
    if (key.kind() == plan::KeyKind_ToSparse && bits > kMaxSparseKeyBits)
      fail("R215",
           name + " to the sparse secret has a modulus of " + std::to_string(bits) + " bits, above 121");
  }
}

PlanMemory PlanFile::memoryOf(const std::vector<uint32_t>& ranks) const {
  const int128 rowBytes = int128(ring().degree()) * sizeof(uint64_t);
  int128 plaintextBytes = 0, keyBytes = 0, arenaBytes = 0;
  std::vector<bool> used(plan().plaintexts()->size(), false);
  for (const uint32_t rank : ranks) {
    for (const uint32_t plaintext : programs_[rank].plaintexts) used[plaintext] = true;
    arenaBytes += programs_[rank].memory.arenaBytes();
  }
  for (uint32_t i = 0; i < used.size(); i++)
    if (used[i]) plaintextBytes += plaintextBytesOf(*plan().plaintexts()->Get(i));
  const std::vector<std::vector<uint16_t>> keyRows = keyRowsOf(ranks);
  for (uint32_t i = 0; i < keyRows.size(); i++)
    keyBytes += int128(keyDigitCount(i)) * 2 * keyRows[i].size() * rowBytes;
  if (plaintextBytes + keyBytes + arenaBytes > int128(1) << 62)
    fail("R242", "running the plan needs more memory than any machine has");
  return {uint64_t(plaintextBytes), uint64_t(keyBytes), uint64_t(arenaBytes)};
}

void PlanFile::requireMemory(uint64_t limitBytes, uint32_t rank) const {
  if (limitBytes == 0) limitBytes = uint64_t(sysconf(_SC_PHYS_PAGES)) * uint64_t(sysconf(_SC_PAGE_SIZE));
  const PlanMemory memory = rank == kAllRanks ? memory_ : memoryOf({rank});
  if (memory.total() <= limitBytes) return;
  const auto gibibytes = [](uint64_t bytes) { return std::to_string(double(bytes) / (1 << 30)); };
  fail("R242",
       "running the plan needs " + gibibytes(memory.total()) + " GiB (keys " + gibibytes(memory.keyBytes) +
           ", weights " + gibibytes(memory.plaintextBytes) + ", buffers " + gibibytes(memory.arenaBytes) +
           ") but " + gibibytes(limitBytes) + " GiB are to be had",
       "use a machine with more memory, or compile with a smaller --memory-limit");
}

}  // namespace aegis

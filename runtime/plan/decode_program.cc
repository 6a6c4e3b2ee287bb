// Programs: the rows of keys that a rank holds, then functions in order, each decoded and checked
// (decode_function.cc, decode_launch.cc, decode_exchange.cc).
//
// Codes: R230 functions, buffers, frames; R231 dimensions and limbs of a launch; R232 a view leaves its
// buffer; R233 an output overlaps an input or itself; R234 calls; R235 loops; R236 key products; R237
// automorphisms; R238 base conversions and scalars; R239 plaintext operands; R244 unknown command or
// location; R246 commands that start a collective or wait for one; R248 parts of keys, memory.
#include <algorithm>

#include "plan/decode_function.h"

namespace aegis {
namespace {

constexpr int128 kMaxBytes = int128(1) << 62;

std::vector<uint16_t> partRows(const CheckContext& context, const plan::KeyPart& part,
                               const std::string& name) {
  const plan::Key& key = *context.plan.keys()->Get(part.key());
  const plan::KeyClass& keyClass = *context.plan.parameters()->key_classes()->Get(key.key_class());
  const uint32_t maxLevel = context.plan.parameters()->max_level(), specials = keyClass.specials();
  std::vector<uint16_t> rows;
  if (part.limbs() == nullptr || part.limbs()->size() == 0) {
    for (uint32_t row = 0; row < specials + key.level() + 1u; row++) rows.push_back(uint16_t(row));
  } else {
    context.budget.charge(part.limbs()->size());
    int32_t last = -1;
    for (const uint16_t limb : *part.limbs()) {
      const bool special = limb > maxLevel;
      const uint32_t index = special ? limb - maxLevel - 1 : limb;
      if (int32_t(limb) <= last || (special ? index >= specials : index > key.level()))
        fail("R248", name + " has limb " + std::to_string(limb) + ", out of order or none of the key");
      last = limb;
      rows.push_back(uint16_t(special ? index : specials + index));
    }
    std::sort(rows.begin(), rows.end());
  }
  context.budget.charge(rows.size());
  return rows;
}

std::vector<KeyPartSpec> keyParts(const CheckContext& context, const plan::Program& program,
                                  const std::string& name) {
  std::vector<KeyPartSpec> parts;
  std::vector<bool> seen(context.plan.keys()->size(), false);
  context.budget.charge(1 + seen.size() / 64);
  for (const plan::KeyPart* part : *program.keys()) {
    const std::string what = name + ", key part " + std::to_string(parts.size());
    if (part->key() >= seen.size()) fail("R248", what + " names key " + std::to_string(part->key()));
    if (seen[part->key()]) fail("R248", what + " names key " + std::to_string(part->key()) + " again");
    seen[part->key()] = true;
    parts.push_back({part->key(), partRows(context, *part, what)});
  }
  return parts;
}

uint64_t boundedBytes(int128 bytes) {
  if (bytes > kMaxBytes) fail("R242", "running the plan needs more memory than any machine has");
  return uint64_t(bytes);
}

RankMemorySpec memoryOf(const CheckContext& context, const ProgramSpec& program) {
  const int128 rowBytes = int128(context.ring.degree()) * sizeof(uint64_t);
  const FunctionSpec& entry = program.entry();
  int128 ports = 0, keys = 0, plaintexts = 0;
  for (uint32_t i = 0; i < entry.argumentCount; i++) ports += entry.buffers[i].rows * rowBytes;
  for (const KeyPartSpec& part : program.keys) {
    const plan::Key& key = *context.plan.keys()->Get(part.key);
    const plan::KeyClass& keyClass = *context.plan.parameters()->key_classes()->Get(key.key_class());
    keys += int128(keyDigitCount(keyClass, key.level())) * 2 * part.rows.size() * rowBytes;
  }
  for (const uint32_t i : program.plaintexts)
    plaintexts += plaintextBytesOf(*context.plan.plaintexts()->Get(i));
  boundedBytes(ports + int128(entry.frameRows) * rowBytes + keys + plaintexts);
  return {boundedBytes(ports), boundedBytes(entry.frameRows * rowBytes), boundedBytes(keys),
          boundedBytes(plaintexts)};
}

// A plan without predictions has zeros.
void checkPrediction(const plan::RankMemory& predicted, const RankMemorySpec& memory,
                     const std::string& name) {
  if ((predicted.ports() | predicted.frame() | predicted.keys() | predicted.plaintexts()) == 0) return;
  const auto check = [&](const char* what, uint64_t said, uint64_t is) {
    if (said != is)
      fail("R248", name + " needs " + std::to_string(is) + " bytes for " + what + " but the plan says " +
                       std::to_string(said));
  };
  check("ports", predicted.ports(), memory.ports);
  check("its frame", predicted.frame(), memory.frame);
  check("keys", predicted.keys(), memory.keys);
  check("plaintexts", predicted.plaintexts(), memory.plaintexts);
}

std::vector<uint32_t> usedPlaintexts(const std::vector<FunctionSpec>& functions) {
  std::vector<uint32_t> used;
  for (const FunctionSpec& function : functions)
    for (const PlainSlotSpec& slot : function.plaintexts)
      if (!slot.argument) used.push_back(slot.plaintext);
  std::sort(used.begin(), used.end());
  used.erase(std::unique(used.begin(), used.end()), used.end());
  return used;
}

}  // namespace

ProgramSpec decodeProgram(const CheckContext& context, const plan::Program& program, uint32_t rank) {
  const std::string name = "program " + std::to_string(rank);
  if (program.functions()->size() == 0) fail("R230", name + " has no functions");
  ProgramSpec result;
  result.keys = keyParts(context, program, name);
  HeldKeys held(context.plan.keys()->size());
  for (const KeyPartSpec& part : result.keys) {
    held[part.key].resize(part.rows.back() + 1u, false);
    for (const uint16_t row : part.rows) held[part.key][row] = true;
  }
  std::vector<CheckedFunction> functions;
  context.budget.charge(program.functions()->size());
  for (uint32_t i = 0; i < program.functions()->size(); i++)
    functions.push_back(
        decodeFunction(context, {functions, held, i, rank}, *program.functions()->Get(i)));
  if (functions.back().spec.plainArgumentCount != 0)
    fail("R230", "the entry function of " + name + " takes plaintext arguments");
  for (CheckedFunction& function : functions) result.functions.push_back(std::move(function.spec));
  result.plaintexts = usedPlaintexts(result.functions);
  result.memory = memoryOf(context, result);
  checkPrediction(*program.memory(), result.memory, name);
  return result;
}

}  // namespace aegis

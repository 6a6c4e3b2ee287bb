#include "backends/cuda/tables.h"

#include <algorithm>
#include <cstring>

#include "backends/cuda/launches.h"
#include "backends/cuda/streamer.h"
#include "ckks/ring.h"

namespace aegis {
namespace {

constexpr size_t kAlignBytes = 16;
// Beyond the least: 64 MiB, which a second-level cache of 50 MB holds most of.
constexpr uint64_t kScratchWords = uint64_t(1) << 23;

}  // namespace

PlainExtent plainExtent(const Launch& launch, const PlainRows& rows) {
  PlainExtent extent;
  ptrdiff_t high = 0;
  const auto add = [&](uint32_t count, ptrdiff_t stride) {
    (stride < 0 ? extent.first : high) += ptrdiff_t(count - 1) * stride;
  };
  for (uint32_t d = 0; d < launch.rank; d++) add(launch.dims[d], rows.strides[d]);
  add(launch.limbCount, rows.limbStride);
  extent.words = uint64_t(high - extent.first) + rows.rowWords;
  return extent;
}

// A pointer that is an offset until load() adds the block's address; offset 0 is never used, so null stays.
template <class T>
const T* ProgramTables::put(const T* data, size_t count) {
  if (count == 0) return nullptr;
  const std::string contents(reinterpret_cast<const char*>(data), count * sizeof(T));
  const auto [found, isNew] = offsets_.try_emplace(contents, bytes_.size());
  if (isNew) {
    bytes_.insert(bytes_.end(), contents.begin(), contents.end());
    bytes_.resize((bytes_.size() + kAlignBytes - 1) / kAlignBytes * kAlignBytes);
  }
  return reinterpret_cast<const T*>(found->second);
}

ProgramTables::ProgramTables(const PlanFile& plan, uint32_t rank, const Residents& residents)
    : plan_(plan), program_(plan.programs()[rank]), residents_(residents), bytes_(kAlignBytes, 0) {
  for (const FunctionSpec& function : program_.functions) add(function.commands);
  for (const Collective& collective : plan.collectives()) {
    const uint32_t index = collective.indexOf(rank);
    if (index == ~0u || !collective.reduces()) continue;
    const bool scatters = collective.kind == CollectiveKind::kReduceScatter;
    const std::vector<uint16_t>& limbs = collective.limbs[scatters ? index : 0];
    collectiveLimbs_[collective.id] = put(limbs.data(), limbs.size());
  }
  std::vector<uint32_t> plaintexts;
  for (const PlainSlotSpec& slot : program_.entry().plaintexts) plaintexts.push_back(slot.plaintext);
  findScratch(uint32_t(program_.functions.size() - 1), plaintexts);
}

void ProgramTables::add(const std::vector<CommandSpec>& commands) {
  for (const CommandSpec& c : commands) {
    add(c.body);
    if (c.limbs.empty()) continue;  // no launch
    CommandTables& tables = commands_[&c];
    tables.limbs = put(c.limbs.data(), c.limbs.size());
    tables.scalars = put(c.scalars.data(), c.scalars.size());
    tables.keyRows = put(c.keyRows.data(), c.keyRows.size());
    tables.galois = put(c.galois.data(), c.galois.size());
    if (c.op == plan::Opcode_BaseConvert) addConversion(c, tables.conversion);
    if (c.op == plan::Opcode_KeyProduct) addKeys(c, tables);
  }
}

// Room for the views: the addresses come with load().
void ProgramTables::addKeys(const CommandSpec& c, CommandTables& tables) {
  const auto [found, isNew] = keys_.try_emplace({c.keys, c.firstDigit}, bytes_.size());
  uint64_t key = 0;
  for (const uint32_t one : c.keys) key = std::max(key, residents_.keyBytes(one) + Streamer::kAlignBytes);
  const uint64_t turns = c.turnDim == ~0u ? 1 : c.dims[c.turnDim];
  keyBytes_ = std::max(keyBytes_, turns * key + Streamer::kSlotBytes);
  if (isNew) bytes_.resize(bytes_.size() + c.keys.size() * sizeof(KeyView));
  bytes_.resize((bytes_.size() + kAlignBytes - 1) / kAlignBytes * kAlignBytes);
  tables.keys = reinterpret_cast<const KeyView*>(found->second);
}

void ProgramTables::addConversion(const CommandSpec& c, ConversionTable& table) {
  const auto sources = uint32_t(c.sourceLimbs.size()), destinations = uint32_t(c.limbs.size());
  table = plan_.ring().conversion(c.sourceLimbs.data(), sources, c.limbs.data(), destinations);
  table.sources = put(table.sources, sources);
  table.destinations = put(table.destinations, destinations);
  table.scale = put(table.scale, sources);
  table.scaleShoup64 = put(table.scaleShoup64, sources);
  table.scaleShoup52 = nullptr;
  table.matrix = put(table.matrix, size_t(sources) * destinations);
  table.offset = put(table.offset, destinations);
}

void ProgramTables::findScratch(uint32_t function, const std::vector<uint32_t>& plaintexts) {
  if (!visited_.try_emplace({function, plaintexts}, true).second) return;
  findScratch(program_.functions[function].commands, plaintexts);
}

// plaintexts: of the function's slots, by index into Plan.plaintexts.
void ProgramTables::findScratch(const std::vector<CommandSpec>& commands,
                                const std::vector<uint32_t>& plaintexts) {
  for (const CommandSpec& c : commands) {
    if (c.op == plan::Opcode_Loop) findScratch(c.body, plaintexts);
    if (c.op == plan::Opcode_Call) {
      std::vector<uint32_t> inner;
      for (const uint32_t slot : c.plainBindings) inner.push_back(plaintexts[slot]);
      const FunctionSpec& callee = program_.functions[c.callee];
      for (size_t i = callee.plainArgumentCount; i < callee.plaintexts.size(); i++)
        inner.push_back(callee.plaintexts[i].plaintext);
      findScratch(c.callee, inner);
    }
    if (c.op != plan::Opcode_AddPlain && c.op != plan::Opcode_Contract) continue;
    const plan::Plaintext& p = *plan_.plan().plaintexts()->Get(plaintexts[c.plain.buffer]);
    PlainRows rows;
    rows.rowWords = p.row_words();
    rows.coefficients = p.coefficients();
    for (uint32_t d = 0; d < c.rank; d++) rows.strides[d] = c.plain.strides[d] * rows.rowWords;
    rows.limbStride = c.plain.limbStride * rows.rowWords;
    Launch launch{c.rank, c.reduceRank, {}, nullptr, uint32_t(c.limbs.size()), false};
    std::copy(c.dims, c.dims + kMaxRank, launch.dims);
    plainBytes_ = std::max(plainBytes_, plainExtent(launch, rows).words * 8 + Streamer::kAlignBytes);
    const uint64_t limb = cuda::scratchWords(launch, rows);
    scratchWords_ = std::max(scratchWords_, std::max(limb, std::min(limb * c.limbs.size(), kScratchWords)));
  }
}

void ProgramTables::load(const Gpu& gpu, Stager& stager) {
  gpu.use();
  for (const auto& [keys, offset] : keys_)
    for (size_t i = 0; i < keys.first.size(); i++) {
      const KeyView view = residents_.key(keys.first[i], keys.second);
      std::memcpy(bytes_.data() + offset + i * sizeof view, &view, sizeof view);
    }
  block_ = gpu.allocate(bytes_.size());
  stager.upload(block_.get(), bytes_.data(), bytes_.size());
  stager.drain();
  const auto move = [this](auto*& pointer) {
    using T = std::remove_reference_t<decltype(pointer)>;
    if (pointer == nullptr) return;
    pointer = reinterpret_cast<T>(static_cast<uint8_t*>(block_.get()) + reinterpret_cast<uintptr_t>(pointer));
  };
  for (auto& [command, tables] : commands_) {
    move(tables.limbs), move(tables.scalars), move(tables.keyRows), move(tables.keys), move(tables.galois);
    ConversionTable& c = tables.conversion;
    move(c.sources), move(c.destinations), move(c.scale), move(c.scaleShoup64);
    move(c.matrix), move(c.offset);
  }
  for (auto& [id, limbs] : collectiveLimbs_) move(limbs);
  bytes_ = {};
  offsets_.clear();
}

}  // namespace aegis

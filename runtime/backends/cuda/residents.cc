#include "backends/cuda/residents.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "backends/cuda/twiddles.h"
#include "ckks/ring.h"
#include "executor/plaintext_store.h"
#include "executor/progress.h"
#include "hal/thread_pool.h"

namespace aegis {
namespace {

void addTransforms(const std::vector<CommandSpec>& commands, std::vector<bool>& primes) {
  for (const CommandSpec& command : commands) {
    addTransforms(command.body, primes);
    switch (command.op) {
      case plan::Opcode_Ntt:
      case plan::Opcode_Intt:
      case plan::Opcode_NttSubScale:
      case plan::Opcode_AddPlain:  // of coefficients, perhaps
      case plan::Opcode_Contract:
        for (const uint16_t limb : command.limbs) primes[limb] = true;
        break;
      default: break;  // the others take no twiddles
    }
  }
}

template <class T>
T* at(const CudaHandle& block, uint64_t offset) {
  return reinterpret_cast<T*>(static_cast<uint8_t*>(block.get()) + offset);
}

}  // namespace

Residents::Residents(const PlanFile& plan, const std::vector<uint32_t>& ranks, const KeyLookup& keys,
                     TwiddleForm twiddles)
    : plan_(plan), ranks_(ranks), twiddles_(twiddles), used_(plaintextsOf(plan, ranks)),
      transforms_(plan.ring().primeCount(), false) {
  const uint64_t rowBytes = uint64_t(plan.ring().degree()) * sizeof(uint64_t);
  const std::vector<std::vector<uint16_t>> held = plan.keyRowsOf(ranks);
  for (const uint32_t rank : ranks) {
    const ProgramSpec& program = plan.programs()[rank];
    keyViews(plan, program, keys);  // refuses what does not fit
    for (const FunctionSpec& function : program.functions) addTransforms(function.commands, transforms_);
    for (const KeyPartSpec& part : program.keys) {
      const KeyView view = keys(part.key);
      if (held[part.key].empty() || view.base == nullptr) continue;
      GpuKey& key = keys_[view.base];
      key.host = view;
      key.wholeRows = plan.keyRowCount(part.key);
      std::set<uint16_t> rows(key.rows.begin(), key.rows.end());
      rows.insert(held[part.key].begin(), held[part.key].end());
      key.rows.assign(rows.begin(), rows.end());
      keyOf_[part.key] = &key;
    }
  }
  bytes_.ring = uint64_t(std::count(transforms_.begin(), transforms_.end(), true)) *
                    cuda::twiddleArrays(twiddles_) * rowBytes +
                plan.ring().primeCount() * (sizeof(Prime) + sizeof(NttTable));
  for (const auto& [base, key] : keys_)
    bytes_.keys += key.words(plan.ring().degree()) * sizeof(uint64_t) + key.wholeRows * sizeof(uint16_t);
  for (uint32_t i = 0; i < used_.size(); i++)
    if (used_[i]) bytes_.plaintexts += plaintextWords(*plan.plan().plaintexts()->Get(i)) * sizeof(uint64_t);
}

void Residents::load(const Gpu& gpu, Stager& stager, ThreadPool& pool, const RunOptions& loading,
                     const Streaming& streaming) {
  gpu.use();
  streaming_ = streaming;
  loadRing(gpu, stager, pool);
  uint64_t keyWords = 0, places = 0;
  for (const auto& [base, key] : keys_) {
    keyWords += key.words(plan_.ring().degree());
    places += key.wholeRows;
  }
  const uint64_t keyBytes = keyWords * sizeof(uint64_t);
  keyRows_ = streaming.keys ? gpu.allocatePinned(keyBytes) : gpu.allocate(keyBytes);
  keyPlaces_ = gpu.allocate(places * sizeof(uint16_t));
  loadKeys(stager, pool, loading);
  plaintextRows_ =
      streaming.plaintexts ? gpu.allocatePinned(bytes_.plaintexts) : gpu.allocate(bytes_.plaintexts);
  uint64_t offset = 0;
  for (uint32_t i = 0; i < used_.size(); i++) {
    const plan::Plaintext& p = *plan_.plan().plaintexts()->Get(i);
    const uint64_t* base = used_[i] ? at<uint64_t>(plaintextRows_, offset) : nullptr;
    plaintexts_.push_back({base, p.row_words(), p.coefficients()});
    if (used_[i]) offset += plaintextWords(p) * sizeof(uint64_t);
  }
  stager.drain();
}

void Residents::loadRing(const Gpu& gpu, Stager& stager, ThreadPool& pool) {
  const RingContext& ring = plan_.ring();
  const uint64_t rowBytes = uint64_t(ring.degree()) * sizeof(uint64_t);
  std::vector<uint32_t> used;
  for (uint32_t i = 0; i < transforms_.size(); i++)
    if (transforms_[i]) used.push_back(i);
  pool.parallelFor(used.size(), 1, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; i++) ring.nttTable(used[i], twiddles_);
  });
  twiddleRows_ = gpu.allocate(used.size() * cuda::twiddleArrays(twiddles_) * rowBytes);
  std::vector<NttTable> tables(ring.primeCount());
  std::vector<Prime> primes;
  for (uint32_t i = 0; i < ring.primeCount(); i++) primes.push_back(ring.prime(i));
  uint64_t next = 0;
  for (const uint32_t i : used) {
    tables[i] = ring.nttTable(i, twiddles_);
    cuda::moveTwiddles(tables[i], [&](const auto* words) {
      auto* const to = at<std::decay_t<decltype(*words)>>(twiddleRows_, next);
      stager.upload(to, words, rowBytes);
      next += rowBytes;
      return to;
    });
  }
  const uint64_t primeBytes = primes.size() * sizeof(Prime), tableBytes = tables.size() * sizeof(NttTable);
  ringTables_ = gpu.allocate(primeBytes + tableBytes);
  stager.upload(at<uint8_t>(ringTables_, 0), primes.data(), primeBytes);
  stager.upload(at<uint8_t>(ringTables_, primeBytes), tables.data(), tableBytes);
  stager.drain();
  ring_ = {ring.logN(), at<Prime>(ringTables_, 0), at<NttTable>(ringTables_, primeBytes)};
}

void Residents::loadKeys(Stager& stager, ThreadPool& pool, const RunOptions& loading) {
  const uint64_t n = plan_.ring().degree(), rowBytes = n * sizeof(uint64_t);
  uint64_t word = 0, place = 0;
  ProgressMeter meter(loading, bytes_.keys);
  for (auto& [base, key] : keys_) {
    meter.step(0, "keys");
    uint64_t* const to = at<uint64_t>(keyRows_, word * sizeof(uint64_t));
    key.base = to;
    const uint64_t held = key.rows.size(), words = key.words(n);
    const auto pack = [&, &key = key](uint64_t from, uint64_t bytes, uint8_t* out) {  // whole rows
      pool.parallelFor(bytes / rowBytes, 4, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; i++) {
          const uint64_t block = (from / rowBytes + i) / held;
          const uint32_t row = key.host.place(key.rows[(from / rowBytes + i) % held]);
          const uint64_t* source = key.host.base + (block * key.host.rowCount + row) * n;
          std::memcpy(out + i * rowBytes, source, rowBytes);
        }
      });
    };
    if (streaming_.keys) pack(0, words * sizeof(uint64_t), reinterpret_cast<uint8_t*>(to));
    else stager.upload(to, words * sizeof(uint64_t), pack);
    word += words;
    if (held < key.wholeRows) {
      std::vector<uint16_t> places(key.wholeRows, kAbsentKeyRow);
      for (size_t i = 0; i < held; i++) places[key.rows[i]] = uint16_t(i);
      uint16_t* const rowOf = at<uint16_t>(keyPlaces_, place * sizeof(uint16_t));
      stager.upload(rowOf, places.data(), places.size() * sizeof(uint16_t));
      key.rowOf = rowOf;
    }
    place += key.wholeRows;
    meter.step(words * sizeof(uint64_t), "keys");
  }
  stager.drain();
}

void Residents::loadPlaintext(Stager& stager, uint32_t plaintext, uint64_t first, const uint64_t* from,
                              uint64_t words) {
  if (!used_[plaintext]) return;
  auto* const to = const_cast<uint64_t*>(plaintexts_[plaintext].base) + first;
  if (streaming_.plaintexts) std::memcpy(to, from, words * sizeof(uint64_t));
  else stager.upload(to, from, words * sizeof(uint64_t));
}

KeyView Residents::key(uint32_t planKey, uint32_t firstDigit) const {
  const GpuKey& key = *keyOf_.at(planKey);
  const auto held = uint32_t(key.rows.size());
  const uint64_t skipped = uint64_t(firstDigit) * 2 * held * plan_.ring().degree();
  return {key.base + skipped, key.host.digitCount - firstDigit, held, key.rowOf};
}

}  // namespace aegis

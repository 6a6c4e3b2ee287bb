#include "client/eval_keys.h"

#include <sys/mman.h>

#include <algorithm>
#include <iterator>
#include <map>

#include "ckks/modulus.h"
#include "client/key_files.h"
#include "client/machine.h"
#include "support/error.h"

namespace aegis {
namespace {

// Rows of one key that are loaded; plan entries of one name share them.
struct Held {
  std::vector<uint16_t> rows;
  size_t offset = 0;  // words
  bool loaded = false;
};

// Where one key lies in the file and in memory.
struct Place {
  const KeySpec* key;
  const TensorInfo* tensor;
  const std::vector<uint16_t>* rows;
  uint64_t* base;
};

void loadRow(const SafeTensors& file, const ClientParameters& p, const Seed& seed, const Place& place,
             size_t item) {
  const KeyClassShape& shape = place.key->shape;
  const size_t n = p.degree(), held = place.rows->size(), digit = item / held,
               row = (*place.rows)[item % held];
  const Prime prime = makePrime(p.primes[shape.limbs[row]]);
  uint64_t* b = place.base + (digit * 2 * held + item % held) * n;
  const size_t inFile = digit * shape.limbs.size() + row;
  file.read(*place.tensor, inFile * n * sizeof(uint64_t), b, n * sizeof(uint64_t));
  if (!isCanonicalRow(b, n, prime.q))
    fail("R302", "key " + place.key->name(p.keyClasses) + " of " + file.name()
                     + " has a residue that is not below its prime");
  expandUniform(seed, place.key->nonce(uint32_t(digit), uint32_t(row)), prime, b + held * n, n);
}

std::vector<uint16_t> allRows(const KeyClassShape& shape) {
  std::vector<uint16_t> rows(shape.limbs.size());
  for (size_t i = 0; i < rows.size(); i++) rows[i] = uint16_t(i);
  return rows;
}

// By name. Shapes first: nothing is allocated for a file that does not have every key in full.
std::map<std::string, Held> heldRows(const SafeTensors& file, const ClientParameters& p,
                                     const std::vector<std::vector<uint16_t>>* rows) {
  std::map<std::string, Held> result;
  for (size_t i = 0; i < p.keys.size(); i++) {
    const KeyClassShape& shape = p.keys[i].shape;
    const std::string name = p.keys[i].name(p.keyClasses);
    if (file.find(name) == nullptr)
      fail("R304", file.name() + " has no key \"" + name + "\" that the plan needs",
           "run aegis keygen for this plan");
    file.require(name, Dtype::kU64, {shape.digits.size(), shape.limbs.size(), p.degree()});
    Held& held = result[name];
    const std::vector<uint16_t> wanted = rows == nullptr ? allRows(shape) : (*rows)[i];
    std::vector<uint16_t> merged;
    std::set_union(held.rows.begin(), held.rows.end(), wanted.begin(), wanted.end(),
                   std::back_inserter(merged));
    held.rows = std::move(merged);
  }
  return result;
}

}  // namespace

void EvalKeys::Unmap::operator()(uint64_t* data) const { munmap(data, bytes); }

EvalKeys EvalKeys::open(const std::string& path, const plan::Plan& plan, uint32_t threads,
                        const Progress& progress) {
  ThreadPool pool(threads);
  return open(path, ClientParameters::fromPlan(plan), pool, progress);
}

EvalKeys EvalKeys::open(const std::string& path, const ClientParameters& p, ThreadPool& pool,
                        const Progress& progress, const std::vector<std::vector<uint16_t>>* rows) {
  const SafeTensors file = SafeTensors::open(path);
  checkMetadata(file, "aegis-eval-keys", p);
  EvalKeys keys;
  keys.keyId_ = keyIdOf(file);
  const Seed seed = seedOf(file);
  std::map<std::string, Held> held = heldRows(file, p, rows);
  size_t words = 0;
  for (const KeySpec& key : p.keys) {
    Held& one = held[key.name(p.keyClasses)];
    if (one.loaded) continue;
    one.loaded = true;
    one.offset = words;
    words += key.shape.digits.size() * 2 * one.rows.size() * p.degree();
  }
  for (auto& entry : held) entry.second.loaded = false;
  keys.allocate(words * sizeof(uint64_t));
  for (size_t i = 0; i < p.keys.size(); i++) {
    const KeySpec& key = p.keys[i];
    const std::string name = key.name(p.keyClasses);
    Held& one = held[name];
    const Place place{&key, file.find(name), &one.rows, keys.memory_.get() + one.offset};
    keys.addView(key, one.rows, place.base);
    progress.step("load-keys", i, p.keys.size());
    if (one.loaded) continue;
    one.loaded = true;
    pool.parallelFor(key.shape.digits.size() * one.rows.size(), 1, [&](size_t begin, size_t end) {
      for (size_t item = begin; item < end; item++) loadRow(file, p, seed, place, item);
    });
  }
  progress.step("load-keys", p.keys.size(), p.keys.size());
  return keys;
}

// Mapped and not from the heap, so that huge pages are used where the system has them.
void EvalKeys::allocate(size_t bytes) {
  bytes_ = bytes;
  if (bytes == 0) return;
  const uint64_t available = availableMemoryBytes();
  if (bytes > available)
    fail("R501",
         "the evaluation keys need " + printGibibytes(bytes) + " of memory, " + printGibibytes(available) +
             " are free",
         "compile with --memory-limit, or use a larger machine");
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    fail("R501", "cannot allocate " + printGibibytes(bytes) + " for the evaluation keys");
  madvise(memory, bytes, MADV_HUGEPAGE);
  memory_ = Memory(static_cast<uint64_t*>(memory), Unmap{bytes});
}

void EvalKeys::addView(const KeySpec& key, const std::vector<uint16_t>& rows, const uint64_t* base) {
  const size_t whole = key.shape.limbs.size();
  KeyView view{rows.empty() ? nullptr : base, uint32_t(key.shape.digits.size()), uint32_t(rows.size())};
  if (rows.size() < whole) {
    places_.push_back(std::make_unique<uint16_t[]>(whole));
    std::fill_n(places_.back().get(), whole, kAbsentKeyRow);
    for (size_t i = 0; i < rows.size(); i++) places_.back()[rows[i]] = uint16_t(i);
    view.rowOf = places_.back().get();
  }
  views_.push_back(view);
}

KeyView EvalKeys::view(uint32_t planKeyIndex) const {
  AEGIS_INVARIANT(planKeyIndex < views_.size());
  return views_[planKeyIndex];
}

}  // namespace aegis

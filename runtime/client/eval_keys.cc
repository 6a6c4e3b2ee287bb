#include "client/eval_keys.h"

#include <sys/mman.h>

#include <map>

#include "ckks/modulus.h"
#include "client/key_files.h"
#include "client/machine.h"
#include "support/error.h"

namespace aegis {
namespace {

// Where one key lies in the file and in memory.
struct Place {
  const KeySpec* key;
  const TensorInfo* tensor;
  uint64_t* base;
};

void loadRow(const SafeTensors& file, const ClientParameters& p, const Seed& seed, const Place& place,
             size_t item) {
  const KeyClassShape& shape = place.key->shape;
  const size_t n = p.degree(), rows = shape.limbs.size(), digit = item / rows, row = item % rows;
  const Prime prime = makePrime(p.primes[shape.limbs[row]]);
  uint64_t* b = place.base + (digit * 2 * rows + row) * n;
  file.read(*place.tensor, item * n * sizeof(uint64_t), b, n * sizeof(uint64_t));
  if (!isCanonicalRow(b, n, prime.q))
    fail("R302", "key " + place.key->name(p.keyClasses) + " of " + file.name()
                     + " has a residue that is not below its prime");
  expandUniform(seed, place.key->nonce(uint32_t(digit), uint32_t(row)), prime, b + rows * n, n);
}

}  // namespace

void EvalKeys::Unmap::operator()(uint64_t* data) const { munmap(data, bytes); }

EvalKeys EvalKeys::open(const std::string& path, const plan::Plan& plan, uint32_t threads,
                        const Progress& progress) {
  ThreadPool pool(threads);
  return open(path, ClientParameters::fromPlan(plan), pool, progress);
}

EvalKeys EvalKeys::open(const std::string& path, const ClientParameters& p, ThreadPool& pool,
                        const Progress& progress) {
  const SafeTensors file = SafeTensors::open(path);
  checkMetadata(file, "aegis-eval-keys", p);
  EvalKeys keys;
  keys.keyId_ = keyIdOf(file);
  const Seed seed = seedOf(file);

  // Shapes first: nothing is allocated for a file that does not have every key in full.
  std::map<std::string, size_t> offsets;  // words; plan entries of one name share the key
  size_t words = 0;
  for (const KeySpec& key : p.keys) {
    const std::string name = key.name(p.keyClasses);
    const KeyClassShape& shape = key.shape;
    if (file.find(name) == nullptr)
      fail("R304", file.name() + " has no key \"" + name + "\" that the plan needs",
           "run aegis keygen for this plan");
    file.require(name, Dtype::kU64, {shape.digits.size(), shape.limbs.size(), p.degree()});
    if (offsets.emplace(name, words).second) words += 2 * p.keyElements(key);
  }
  keys.bytes_ = words * sizeof(uint64_t);
  if (words == 0) return keys;

  const uint64_t available = availableMemoryBytes();
  if (keys.bytes_ > available)
    fail("R501",
         "the evaluation keys need " + printGibibytes(keys.bytes_) + " of memory, "
             + printGibibytes(available) + " are free",
         "compile with --memory-limit, or use a larger machine");
  // Mapped and not from the heap, so that huge pages are used where the system has them.
  void* memory = mmap(nullptr, keys.bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    fail("R501", "cannot allocate " + printGibibytes(keys.bytes_) + " for the evaluation keys");
  madvise(memory, keys.bytes_, MADV_HUGEPAGE);
  keys.memory_ = Memory(static_cast<uint64_t*>(memory), Unmap{keys.bytes_});

  std::map<std::string, bool> loaded;
  for (size_t i = 0; i < p.keys.size(); i++) {
    const KeySpec& key = p.keys[i];
    const std::string name = key.name(p.keyClasses);
    const KeyClassShape& shape = key.shape;
    const Place place{&key, file.find(name), keys.memory_.get() + offsets[name]};
    const size_t digits = shape.digits.size(), rows = shape.limbs.size();
    keys.views_.push_back(KeyView{place.base, uint32_t(digits), uint32_t(rows)});
    progress.step("load-keys", i, p.keys.size());
    if (loaded[name]) continue;
    loaded[name] = true;
    pool.parallelFor(digits * rows, 1, [&](size_t begin, size_t end) {
      for (size_t item = begin; item < end; item++) loadRow(file, p, seed, place, item);
    });
  }
  progress.step("load-keys", p.keys.size(), p.keys.size());
  return keys;
}

KeyView EvalKeys::view(uint32_t planKeyIndex) const {
  AEGIS_INVARIANT(planKeyIndex < views_.size());
  return views_[planKeyIndex];
}

}  // namespace aegis

#include "ckks/ring.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>
#include <string>

#include "support/error.h"

namespace aegis {
namespace {

constexpr size_t kHugePageBytes = size_t(2) << 20;

}  // namespace

// Memory of the twiddles, in huge pages where the machine has them: a transform of 2^16 words reads 300 small
// pages of twiddles. Pieces start on cache lines and live as long as the ring.
class RingContext::TableMemory {
 public:
  ~TableMemory() {
    for (void* chunk : chunks_) ::operator delete(chunk, std::align_val_t(kHugePageBytes));
  }
  template <class Word>
  Word* allocate(size_t count) {
    const size_t bytes = (count * sizeof(Word) + 63) & ~size_t(63);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (bytes > left_) {
      const size_t size = (bytes + kHugePageBytes - 1) & ~(kHugePageBytes - 1);
      chunks_.reserve(chunks_.size() + 1);
      chunks_.push_back(::operator new(size, std::align_val_t(kHugePageBytes)));
      next_ = static_cast<char*>(chunks_.back());
      left_ = size;
      madvise(next_, size, MADV_HUGEPAGE);  // only a hint
    }
    Word* const piece = reinterpret_cast<Word*>(next_);
    next_ += bytes;
    left_ -= bytes;
    return piece;
  }

 private:
  std::mutex mutex_;
  std::vector<void*> chunks_;
  char* next_ = nullptr;
  size_t left_ = 0;
};

// Twiddles as integers, shared by both Shoup forms; the other arrays only exist once a kernel of that form
// asks.
struct RingContext::PrimeTables {
  std::once_flag once[kTwiddleForms], wordsOnce;
  NttTable table[kTwiddleForms];
  uint64_t *forward = nullptr, *inverse = nullptr;
  double* floats[4] = {};  // forward, its companion, inverse, its companion

  void buildWords(TableMemory& memory, uint32_t logN, uint64_t q, uint64_t psi) {
    const uint32_t n = uint32_t(1) << logN;
    forward = memory.allocate<uint64_t>(n);
    inverse = memory.allocate<uint64_t>(n);
    const uint64_t psiInverse = invMod(psi, q);
    uint64_t power = 1, powerInverse = 1;
    for (uint32_t i = 0; i < n; i++) {
      const uint32_t k = reverseBits(i, logN);
      forward[k] = power;
      inverse[k] = powerInverse;
      power = mulMod(power, psi, q);
      powerInverse = mulMod(powerInverse, psiInverse, q);
    }
  }

  void build(TableMemory& memory, TwiddleForm form, uint32_t logN, const Prime& prime) {
    NttTable& t = table[uint32_t(form)];
    t.logN = logN;
    t.form = form;
    t.prime = prime;
    const uint32_t n = uint32_t(1) << logN;
    const uint64_t q = prime.q, nInverse = invMod(n, q), last = mulMod(nInverse, inverse[1], q);
    if (form == TwiddleForm::kFloat) {
      for (auto& array : floats) array = memory.allocate<double>(n);
      for (uint32_t k = 0; k < n; k++) {
        floats[0][k] = double(forward[k]);
        floats[1][k] = double(forward[k]) / double(q);
        floats[2][k] = double(inverse[k]);
        floats[3][k] = double(inverse[k]) / double(q);
      }
      t.floats = {floats[0],        floats[1],
                  floats[2],        floats[3],
                  double(nInverse), double(nInverse) / double(q),
                  double(last),     double(last) / double(q)};
      return;
    }
    if (form == TwiddleForm::kCentred) {
      const auto centred = [q](uint64_t w) { return w > q / 2 ? -double(q - w) : double(w); };
      double* const forwardOf = memory.allocate<double>(n);
      double* const inverseOf = memory.allocate<double>(n);
      std::transform(forward, forward + n, forwardOf, centred);
      std::transform(inverse, inverse + n, inverseOf, centred);
      t.floats = {forwardOf, nullptr, inverseOf, nullptr, centred(nInverse), 0, centred(last), 0};
      return;
    }
    const auto companion = form == TwiddleForm::kShoup64 ? shoup64 : shoup52;
    uint64_t* const forwardOf = memory.allocate<uint64_t>(n);
    uint64_t* const inverseOf = memory.allocate<uint64_t>(n);
    for (uint32_t k = 0; k < n; k++) {
      forwardOf[k] = companion(forward[k], q);
      inverseOf[k] = companion(inverse[k], q);
    }
    t.words = {forward,  forwardOf,              inverse, inverseOf,
               nInverse, companion(nInverse, q), last,    companion(last, q)};
  }
};

struct RingContext::Conversion {
  ConversionTable table;
  std::vector<Prime> sources, destinations;
  std::vector<uint64_t> scale, scale64, scale52, matrix, offset;
};

RingContext::RingContext(uint32_t logN, std::vector<uint64_t> primes)
    : logN_(logN), memory_(std::make_unique<TableMemory>()) {
  if (logN < kMinLogN || logN > kMaxLogN)
    fail("R201", "ring degree 2^" + std::to_string(logN) + " is outside 2^4..2^17");
  if (primes.empty() || primes.size() > 65535)
    fail("R202", "a ring needs 1 to 65535 primes but got " + std::to_string(primes.size()));
  const uint64_t order = uint64_t(2) << logN;
  std::vector<uint64_t> sorted = primes;
  std::sort(sorted.begin(), sorted.end());
  const auto repeated = std::adjacent_find(sorted.begin(), sorted.end());
  for (uint64_t q : primes) {
    if (q >> kMaxPrimeBits) fail("R203", "modulus " + std::to_string(q) + " is not below 2^50");
    if (!isPrime(q)) fail("R204", "modulus " + std::to_string(q) + " is not prime");
    if (q % order != 1)
      fail("R205", "modulus " + std::to_string(q) + " is not 1 mod 2N = " + std::to_string(order));
  }
  if (repeated != sorted.end()) fail("R206", "modulus " + std::to_string(*repeated) + " occurs twice");
  tables_ = std::make_unique<std::unique_ptr<PrimeTables>[]>(primes.size());
  for (size_t i = 0; i < primes.size(); i++) {
    primes_.push_back(makePrime(primes[i]));
    psi_.push_back(primitiveRoot(primes[i], order));
    tables_[i] = std::make_unique<PrimeTables>();
  }
}

RingContext::~RingContext() = default;

const NttTable& RingContext::nttTable(uint32_t index, TwiddleForm form) const {
  AEGIS_INVARIANT(index < primes_.size());
  PrimeTables& tables = *tables_[index];
  std::call_once(tables.once[uint32_t(form)], [&] {
    std::call_once(tables.wordsOnce,
                   [&] { tables.buildWords(*memory_, logN_, modulus(index), psi_[index]); });
    tables.build(*memory_, form, logN_, primes_[index]);
  });
  return tables.table[uint32_t(form)];
}

const uint32_t* RingContext::permutation(uint32_t galois) const {
  if (galois % 2 == 0) fail("R207", "Galois element " + std::to_string(galois) + " is even");
  const uint32_t n = degree(), mask = 2 * n - 1;
  galois &= mask;
  const std::lock_guard<std::mutex> lock(permutationMutex_);
  auto& entry = permutations_[galois];
  if (!entry) {
    if (reversed_.empty()) {
      reversed_.resize(n);
      for (uint32_t k = 0; k < n; k++) reversed_[k] = bitReverse(k);
    }
    auto table = std::make_unique<uint32_t[]>(n + n / 8);
    for (uint32_t k = 0; k < n; k++) {
      const uint32_t exponent =
          galois * (2 * reversed_[k] + 1) & mask;  // 32-bit wrap is exact: 2N divides 2^32
      table[k] = reversed_[exponent / 2];
    }
    for (uint32_t u = 0; u < n / 8; u++) table[n + u] = table[8 * u];
    entry = std::move(table);
  }
  return entry.get();
}

const ConversionTable& RingContext::conversion(const uint16_t* sources, uint32_t sourceCount,
                                               const uint16_t* destinations,
                                               uint32_t destinationCount) const {
  std::vector<uint16_t> key;
  key.reserve(1 + sourceCount + destinationCount);
  key.push_back(uint16_t(sourceCount));
  key.insert(key.end(), sources, sources + sourceCount);
  key.insert(key.end(), destinations, destinations + destinationCount);

  const std::lock_guard<std::mutex> lock(conversionMutex_);
  auto& entry = conversions_[key];
  if (entry) return entry->table;
  std::vector<uint16_t> sorted(sources, sources + sourceCount);
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
    fail("R208", "base conversion from a repeated prime");
  auto c = std::make_unique<Conversion>();
  for (uint32_t i = 0; i < sourceCount; i++) {
    const Prime& p = prime(sources[i]);
    uint64_t hat = 1;
    for (uint32_t k = 0; k < sourceCount; k++)
      if (k != i) hat = mulMod(hat, modulus(sources[k]) % p.q, p.q);
    c->sources.push_back(p);
    c->scale.push_back(invMod(hat, p.q));
    c->scale64.push_back(shoup64(c->scale.back(), p.q));
    c->scale52.push_back(shoup52(c->scale.back(), p.q));
  }
  for (uint32_t j = 0; j < destinationCount; j++) {
    const Prime& p = prime(destinations[j]);
    uint64_t offset = 0;
    for (uint32_t i = 0; i < sourceCount; i++) {
      uint64_t hat = 1;
      for (uint32_t k = 0; k < sourceCount; k++)
        if (k != i) hat = mulMod(hat, modulus(sources[k]) % p.q, p.q);
      c->matrix.push_back(hat);
      offset = subMod(offset, mulMod((modulus(sources[i]) - 1) / 2 % p.q, hat, p.q), p.q);
    }
    c->destinations.push_back(p);
    c->offset.push_back(offset);
  }
  c->table = {sourceCount,     destinationCount,  c->sources.data(), c->destinations.data(),
              c->scale.data(), c->scale64.data(), c->scale52.data(), c->matrix.data(),
              c->offset.data()};
  entry = std::move(c);
  return entry->table;
}

}  // namespace aegis

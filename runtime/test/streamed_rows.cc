#include <functional>
#include <random>
#include <string>
#include <vector>

#include "ckks/ring.h"
#include "hal/thread_pool.h"
#include "test/oracles.h"

namespace aegis::test {
namespace {

constexpr uint32_t kLogN = 12, kBatch = 64, kLimbs = 5, kTerms = 2, kSources = 3;
constexpr size_t kWords = size_t(1) << kLogN;

// [batch][component][limb][N], from the first address of 64 bytes on.
class Array {
 public:
  Array(uint32_t batch, uint32_t components, uint32_t limbs)
      : words_(size_t(batch) * components * limbs * kWords + 8), components_(components), limbs_(limbs) {}

  void fill(std::mt19937_64& engine, const RingContext& ring) {
    for (size_t i = 0; i + 8 < words_.size(); i++)
      base()[i] = engine() % ring.modulus(uint32_t(i / kWords % limbs_));
  }

  // batchDim: the dimension that the batch is; along others the rows repeat.
  Rows rows(uint32_t batchDim) {
    Rows r;
    r.base = base();
    r.limbStride = kWords;
    r.componentStride = ptrdiff_t(limbs_ * kWords);
    r.strides[batchDim] = ptrdiff_t(components_ * limbs_ * kWords);
    return r;
  }

  const std::vector<uint64_t>& words() const { return words_; }

 private:
  uint64_t* base() {
    const uintptr_t at = reinterpret_cast<uintptr_t>(words_.data());
    return words_.data() + (64 - at % 64) % 64 / sizeof(uint64_t);
  }

  std::vector<uint64_t> words_;
  uint32_t components_, limbs_;
};

struct Case {
  const RingContext& ring;
  ThreadPool& pool;
  const uint16_t* limbs;

  // dims [batch], or [batch][terms] with the terms summed.
  Launch launch(uint32_t terms) const {
    Launch l;
    l.rank = terms == 1 ? 1 : 2;
    l.reduceRank = l.rank - 1;
    l.dims[0] = kBatch;
    l.dims[1] = terms;
    l.limbs = limbs;
    l.limbCount = kLimbs;
    return l;
  }
};

using Call = std::function<void(const KernelTable&, Rows out)>;

std::string compare(const KernelTable& table, const KernelTable& reference, uint32_t components,
                    const Call& call) {
  Array expected(kBatch, components, kLimbs), got(kBatch, components, kLimbs);
  call(reference, expected.rows(0));
  call(table, got.rows(0));
  const uint64_t *x = expected.rows(0).base, *y = got.rows(0).base;
  for (size_t i = 0; i < kBatch * components * kLimbs * kWords; i++)
    if (x[i] != y[i])
      return "word " + std::to_string(i) + ": " + std::to_string(y[i]) + ", not " + std::to_string(x[i]);
  return "";
}

}  // namespace

void testStreamed(const KernelTable& table, Report report) {
  const KernelTable& reference = *findCpuKernels("reference");
  const RingContext ring(kLogN, firstPrimes(kLogN, 50, kLimbs));
  ThreadPool pool(2);
  std::mt19937_64 engine(1);
  const uint16_t limbs[] = {0, 1, 2, 3, 4}, keyRows[] = {0, 1, 2, 3, 4};
  const uint32_t galois[] = {5, 2 * kWords - 1};
  const Case c{ring, pool, limbs};
  Array a(kBatch, 2, kLimbs), b(kTerms, 2, kLimbs);
  a.fill(engine, ring);
  b.fill(engine, ring);
  PlainRows plain;
  plain.base = b.rows(0).base;
  plain.rowWords = kWords;
  plain.limbStride = kWords;
  plain.strides[1] = ptrdiff_t(2 * kLimbs * kWords);
  const KeyView key{b.rows(0).base, 2, kLimbs};
  const auto check = [&](const char* name, uint32_t components, const Call& call) {
    report(table.name, std::string(name) + ", streamed", compare(table, reference, components, call));
  };
  for (uint32_t terms : {1u, kTerms}) {
    const std::string suffix = terms == 1 ? "" : ", summed";
    const Launch l = c.launch(terms);
    check(("automorphism" + suffix).c_str(), 1, [&](const KernelTable& t, Rows out) {
      t.automorphism(ring, pool, l, out, a.rows(0), galois, terms == 1 ? ~0u : 1);
    });
    check(("contract" + suffix).c_str(), 1, [&](const KernelTable& t, Rows out) {
      t.contract(ring, pool, l, out, a.rows(0), plain);
    });
    check(("tensor" + suffix).c_str(), 3, [&](const KernelTable& t, Rows out) {
      t.tensor(ring, pool, l, out, a.rows(0), b.rows(1));
    });
  }
  const Launch single = c.launch(1);
  check("keyProduct", 2, [&](const KernelTable& t, Rows out) {
    t.keyProduct(ring, pool, single, out, a.rows(0), 2, &key, ~0u, keyRows);
  });
  check("baseConvert", 1, [&](const KernelTable& t, Rows out) {
    t.baseConvert(ring, pool, single, out, a.rows(0), limbs, kSources);
  });
}

}  // namespace aegis::test

// Times of the CPU kernels. aegis-bench-kernels [--json] [--threads T] [--table NAME] [--logn L]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "ckks/ring.h"
#include "hal/kernels.h"
#include "hal/thread_pool.h"

namespace aegis {
namespace {

// Rows start on cache lines, as the runtime's buffers do: unaligned rows cost vector kernels up to a third.
template <class T>
struct LineAllocator {
  using value_type = T;
  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64))); }
  void deallocate(T* p, size_t) { ::operator delete(p, std::align_val_t(64)); }
  bool operator==(const LineAllocator&) const { return true; }
};
using Words = std::vector<uint64_t, LineAllocator<uint64_t>>;

struct Row {
  std::string name, backend;
  uint32_t logN, limbs, specialLimbs, dnum, threads;
  double medianUs, minUs;
  double unitNs;  // time per multiply-add of one residue; 0 where that means nothing
};

// At least 5 runs and about 0.15 s.
Row time(Row row, double multiplyAdds, const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  run();
  std::vector<double> us;
  const auto begin = Clock::now();
  while (us.size() < 5 || (us.size() < 1000 && Clock::now() - begin < std::chrono::milliseconds(150))) {
    const auto start = Clock::now();
    run();
    us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  std::sort(us.begin(), us.end());
  row.medianUs = us[us.size() / 2];
  row.minUs = us[0];
  row.unitNs = multiplyAdds == 0 ? 0 : row.medianUs * 1000 / multiplyAdds;
  return row;
}

std::vector<uint64_t> primes(uint32_t logN, uint32_t bits, uint32_t count) {
  std::vector<uint64_t> found;
  for (uint64_t q = (uint64_t(1) << bits) + 1 - (uint64_t(2) << logN); found.size() < count;
       q -= uint64_t(2) << logN)
    if (isPrime(q)) found.push_back(q);
  return found;
}

class Bench {
 public:
  Bench(const KernelTable& table, uint32_t logN, ThreadPool& pool)
      : table_(table), pool_(pool), n_(uint32_t(1) << logN), ring_(logN, ringPrimes(logN)) {
    base_.logN = logN;
    base_.backend = table.name;
    base_.threads = pool.threadCount();
    for (uint32_t i = 0; i < ring_.primeCount(); i++) limbs_.push_back(uint16_t(i));
  }

  std::vector<Row> run() {
    std::vector<Row> rows;
    transforms(rows);
    conversions(rows);
    products(rows);
    elementwise(rows);
    return rows;
  }

 private:
  static constexpr uint32_t kWide = 6, kNarrow = 12;  // primes of 50 bits, then of 40

  static std::vector<uint64_t> ringPrimes(uint32_t logN) {
    std::vector<uint64_t> all = primes(logN, 50, kWide), narrow = primes(logN, 40, kNarrow);
    all.insert(all.end(), narrow.begin(), narrow.end());
    return all;
  }

  Row named(const std::string& name, uint32_t limbs, uint32_t special = 0, uint32_t dnum = 0) const {
    Row row = base_;
    row.name = name;
    row.limbs = limbs;
    row.specialLimbs = special;
    row.dnum = dnum;
    return row;
  }

  // `count` rows of residues below 2^39: canonical for every prime here.
  Words words(size_t count) const {
    std::mt19937_64 random(1);
    Words w(count * n_);
    for (uint64_t& x : w) x = random() >> 25;
    return w;
  }

  Rows rows(Words& w, ptrdiff_t stride = 0, ptrdiff_t component = 0) const {
    Rows r;
    r.base = w.data();
    r.limbStride = ptrdiff_t(n_);
    r.strides[0] = stride;
    r.componentStride = component;
    return r;
  }

  Launch launch(uint32_t first, uint32_t count) const {
    Launch l;
    l.limbs = limbs_.data() + first;
    l.limbCount = count;
    return l;
  }

  void transforms(std::vector<Row>& out) {
    auto a = words(kNarrow), b = words(kNarrow);
    for (uint32_t first : {0u, kWide}) {
      const std::string bits = first == 0 ? "-50" : "-40";
      out.push_back(time(named("ntt" + bits, 1), 0,
                         [&] { table_.ntt(ring_, pool_, launch(first, 1), rows(b), rows(a)); }));
      out.push_back(time(named("intt" + bits, 1), 0,
                         [&] { table_.intt(ring_, pool_, launch(first, 1), rows(b), rows(a)); }));
    }
    out.push_back(time(named("ntt-40", kNarrow), 0,
                       [&] { table_.ntt(ring_, pool_, launch(kWide, kNarrow), rows(b), rows(a)); }));
  }

  // ModUp of a digit of 4 limbs to 12 others and 4 special ones.
  void conversions(std::vector<Row>& out) {
    const uint32_t sources = 4, destinations = 12;
    auto a = words(sources), b = words(destinations);
    out.push_back(
        time(named("base-convert", sources, destinations), double(sources) * destinations * n_, [&] {
          table_.baseConvert(ring_, pool_, launch(sources, destinations), rows(b), rows(a), limbs_.data(),
                             sources);
        }));
  }

  void products(std::vector<Row>& out) {
    const uint32_t limbs = 4, digits = 4, terms = 32;
    auto a = words(size_t(terms) * limbs), p = words(size_t(terms) * limbs), b = words(3 * limbs);
    auto key = words(size_t(digits) * 2 * limbs);
    const KeyView view = {key.data(), digits, limbs};
    const uint16_t keyRows[] = {0, 1, 2, 3};
    const ptrdiff_t block = ptrdiff_t(limbs) * n_;
    out.push_back(time(named("key-product", limbs, 0, digits), 2.0 * digits * limbs * n_, [&] {
      table_.keyProduct(ring_, pool_, launch(0, limbs), rows(b, 0, block), rows(a, 0, block), digits, &view,
                        ~0u, keyRows);
    }));
    for (uint32_t rowWords : {n_, 1u}) {
      Launch sum = launch(0, limbs);
      sum.rank = sum.reduceRank = 1;
      sum.dims[0] = terms;
      PlainRows plain;
      plain.base = p.data();
      plain.rowWords = rowWords;
      plain.limbStride = rowWords;
      plain.strides[0] = ptrdiff_t(limbs) * rowWords;
      out.push_back(time(named(rowWords == 1 ? "contract-32-constants" : "contract-32", limbs),
                         double(terms) * limbs * n_,
                         [&] { table_.contract(ring_, pool_, sum, rows(b), rows(a, block), plain); }));
    }
    out.push_back(time(named("tensor", limbs), 4.0 * limbs * n_, [&] {
      table_.tensor(ring_, pool_, launch(0, limbs), rows(b, 0, block), rows(a, 0, block), rows(p, 0, block));
    }));
  }

  void elementwise(std::vector<Row>& out) {
    const uint32_t limbs = 4, galois = 5;
    auto a = words(limbs), c = words(limbs), b = words(limbs);
    const uint64_t scalars[] = {12345, 23456, 34567, 45678};
    const Launch l = launch(0, limbs);
    out.push_back(
        time(named("add", limbs), 0, [&] { table_.add(ring_, pool_, l, rows(b), rows(a), rows(c)); }));
    out.push_back(time(named("sub-scale", limbs), 0,
                       [&] { table_.subScale(ring_, pool_, l, rows(b), rows(a), rows(c), scalars); }));
    out.push_back(time(named("automorphism", limbs), 0,
                       [&] { table_.automorphism(ring_, pool_, l, rows(b), rows(a), &galois, ~0u); }));
  }

  const KernelTable& table_;
  ThreadPool& pool_;
  uint32_t n_;
  RingContext ring_;
  Row base_{};
  std::vector<uint16_t> limbs_;
};

void print(const Row& r, bool json, bool first) {
  if (json) {
    std::printf(
        "%s\n  {\"name\": \"%s\", \"backend\": \"%s\", \"logN\": %u, \"limbs\": %u, \"specialLimbs\": %u, "
        "\"dnum\": %u, \"threads\": %u, \"medianUs\": %.2f, \"minUs\": %.2f}",
        first ? "[" : ",", r.name.c_str(), r.backend.c_str(), r.logN, r.limbs, r.specialLimbs, r.dnum,
        r.threads, r.medianUs, r.minUs);
    return;
  }
  std::printf("%-11s N=2^%u threads %u  %-22s limbs %2u  %10.1f us (min %.1f)", r.backend.c_str(), r.logN,
              r.threads, r.name.c_str(), r.limbs, r.medianUs, r.minUs);
  if (r.unitNs != 0) std::printf("  %.3f ns per multiply-add", r.unitNs);
  std::printf("\n");
}

int run(int argc, char** argv) {
  bool json = false;
  uint32_t threads = 1, logN = 0;
  std::vector<std::string> tables = {"portable", "avx2", "avx512ifma"};
  for (int i = 1; i < argc; i++) {
    if (std::strcmp(argv[i], "--json") == 0) json = true;
    else if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc) threads = uint32_t(std::atoi(argv[++i]));
    else if (std::strcmp(argv[i], "--logn") == 0 && i + 1 < argc) logN = uint32_t(std::atoi(argv[++i]));
    else if (std::strcmp(argv[i], "--table") == 0 && i + 1 < argc) tables = {argv[++i]};
    else {
      std::fprintf(stderr, "usage: aegis-bench-kernels [--json] [--threads T] [--table NAME] [--logn L]\n");
      return 2;
    }
  }
  ThreadPool pool(threads);
  bool first = true;
  for (const std::string& name : tables) {
    const KernelTable* table = findCpuKernels(name.c_str());
    if (table == nullptr) continue;
    for (uint32_t l : logN != 0 ? std::vector<uint32_t>{logN} : std::vector<uint32_t>{12, 16})
      for (const Row& row : Bench(*table, l, pool).run()) {
        print(row, json, first);
        first = false;
      }
  }
  if (json) std::printf("%s]\n", first ? "[" : "\n");
  return 0;
}

}  // namespace
}  // namespace aegis

int main(int argc, char** argv) { return aegis::run(argc, argv); }

// Times of CKKS operations, put together from the kernels as plans do it. The keys and ciphertexts are random
// words: times do not depend on values. aegis-bench [--json] [--threads n] [--logn l] [--limbs n] [--specials
// n] [--dnum n]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "ckks/ring.h"
#include "executor/memory.h"
#include "hal/kernels.h"
#include "hal/thread_pool.h"
#include "support/error.h"

namespace aegis {
namespace {

struct Shape {
  uint32_t logN = 16, limbs = 24, specials = 6, dnum = 4, threads = 1;
};

struct Result {
  std::string name;
  double medianUs, minUs;
};

std::vector<uint64_t> primesBelow(uint32_t logN, uint32_t count) {
  std::vector<uint64_t> primes;
  const uint64_t step = uint64_t(2) << logN;
  for (uint64_t q = (uint64_t(1) << 50) - step + 1; primes.size() < count; q -= step)
    if (isPrime(q)) primes.push_back(q);
  return primes;
}

class Bench {
 public:
  explicit Bench(const Shape& shape)
      : shape_(shape),
        n_(uint64_t(1) << shape.logN),
        extended_(shape.limbs + shape.specials),
        digitLimbs_((shape.limbs + shape.dnum - 1) / shape.dnum),
        ring_(shape.logN, primesBelow(shape.logN, extended_)),
        pool_(shape.threads),
        kernels_(cpuKernels()),
        a_(2 * shape.limbs),
        b_(2 * shape.limbs),
        product_(3 * shape.limbs),
        coefficients_(shape.limbs),
        digits_(uint64_t(shape.dnum) * extended_),
        switched_(2 * extended_),
        turned_(2 * extended_),
        scratch_(2 * shape.limbs),
        key_(uint64_t(shape.dnum) * 2 * extended_),

        scalars_(extended_, 1) {
    limbs_.resize(extended_);
    std::iota(limbs_.begin(), limbs_.end(), uint16_t(0));
    for (Poly* poly : {&a_, &b_, &product_, &digits_, &switched_, &turned_, &scratch_, &key_, &coefficients_})
      poly->allocate(n_, pool_);
    fill(a_, shape.limbs);
    fill(b_, shape.limbs);
    fill(key_, extended_);
  }

  std::vector<Result> run() {
    std::vector<Result> results;
    const auto add = [&](const char* name, const std::function<void()>& call) {
      results.push_back(time(name, call));
    };
    add("ntt",
        [&] { kernels_.ntt(ring_, pool_, launch(0, 1), rows(coefficients_, 0), rows(coefficients_, 0)); });
    add("mul_relin", [&] {
      kernels_.tensor(ring_, pool_, launch(0, shape_.limbs), rows(product_, 0, 0, shape_.limbs),
                      rows(a_, 0, 0, shape_.limbs), rows(b_, 0, 0, shape_.limbs));
      modUp(rows(product_, 2 * shape_.limbs));
      keyProduct();
      modDown(switched_);
      const Rows sum = rows(product_, 0, shape_.limbs);
      kernels_.add(ring_, pool_, launch(0, shape_.limbs, 2), sum, sum, rows(scratch_, 0, shape_.limbs));
    });
    add("rotate", [&] {
      modUp(rows(a_, shape_.limbs));
      hoistedRotation();
    });
    add("rotate_hoisted", [&] { hoistedRotation(); });
    add("rescale", [&] { rescale(); });
    return results;
  }

 private:
  struct Poly {
    explicit Poly(uint64_t count) : count(count) {}
    void allocate(uint64_t n, ThreadPool& pool) {
      block = WordBlock(count * n);
      block.touch(pool);
    }
    uint64_t count;
    WordBlock block;
  };

  // Residues of row r belong to prime r mod period.
  void fill(const Poly& poly, uint32_t period) {
    uint64_t state = 1;
    for (uint64_t row = 0; row < poly.count; row++)
      for (uint64_t k = 0; k < n_; k++) {
        state = state * 6364136223846793005 + 1442695040888963407;
        poly.block.data()[row * n_ + k] = (state >> 14) % ring_.modulus(uint32_t(row % period));
      }
  }

  Launch launch(uint32_t first, uint32_t count, uint32_t batch = 0) const {
    Launch result;
    result.rank = batch == 0 ? 0 : 1;
    result.dims[0] = batch;
    result.limbs = limbs_.data() + first;
    result.limbCount = count;
    return result;
  }

  Rows rows(const Poly& poly, uint64_t row, uint32_t stride = 0, uint32_t component = 0) const {
    Rows result;
    result.base = poly.block.data() + row * n_;
    result.limbStride = ptrdiff_t(n_);
    result.strides[0] = ptrdiff_t(stride * n_);
    result.componentStride = ptrdiff_t(component * n_);
    return result;
  }

  // Digit d keeps its own limbs and is converted to all others.
  void modUp(Rows c) {
    kernels_.intt(ring_, pool_, launch(0, shape_.limbs), rows(coefficients_, 0), c);
    for (uint32_t d = 0; d < shape_.dnum; d++) {
      const uint32_t first = d * digitLimbs_, end = std::min(first + digitLimbs_, shape_.limbs);
      Rows own = c;
      own.base += first * n_;
      kernels_.copy(ring_, pool_, launch(first, end - first), rows(digits_, d * extended_ + first), own);
      for (const auto& [begin, stop] : {std::pair{0u, first}, std::pair{end, extended_}}) {
        if (begin == stop) continue;
        const Rows out = rows(digits_, d * extended_ + begin);
        kernels_.baseConvert(ring_, pool_, launch(begin, stop - begin), out, rows(coefficients_, first),
                             limbs_.data() + first, end - first);
        kernels_.ntt(ring_, pool_, launch(begin, stop - begin), out, out);
      }
    }
  }

  void keyProduct() {
    const KeyView key{key_.block.data(), shape_.dnum, extended_};
    kernels_.keyProduct(ring_, pool_, launch(0, extended_), rows(switched_, 0, 0, extended_),
                        rows(digits_, 0, 0, extended_), shape_.dnum, &key, ~0u, limbs_.data());
  }

  // [2][QP] -> scratch [2][Q].
  void modDown(const Poly& in) {
    const Rows specials = rows(in, shape_.limbs, extended_), out = rows(scratch_, 0, shape_.limbs);
    kernels_.intt(ring_, pool_, launch(shape_.limbs, shape_.specials, 2), specials, specials);
    kernels_.baseConvert(ring_, pool_, launch(0, shape_.limbs, 2), out, specials,
                         limbs_.data() + shape_.limbs, shape_.specials);
    kernels_.ntt(ring_, pool_, launch(0, shape_.limbs, 2), out, out);
    kernels_.subScale(ring_, pool_, launch(0, shape_.limbs, 2), out, rows(in, 0, extended_), out,
                      scalars_.data());
  }

  // After ModUp: product with the key, P c0, automorphism, ModDown.
  void hoistedRotation() {
    keyProduct();
    PlainRows specials;
    specials.base = scalars_.data();
    specials.rowWords = 1;
    specials.limbStride = 1;
    Launch lift = launch(0, shape_.limbs);
    lift.accumulate = true;
    kernels_.contract(ring_, pool_, lift, rows(switched_, 0), rows(a_, 0), specials);
    const uint32_t galois = 5;
    kernels_.automorphism(ring_, pool_, launch(0, extended_, 2), rows(turned_, 0, extended_),
                          rows(switched_, 0, extended_), &galois, ~0u);
    modDown(turned_);
  }

  void rescale() {
    const uint32_t kept = shape_.limbs - 1;
    const Rows last = rows(turned_, 0, 1), out = rows(scratch_, 0, shape_.limbs);
    kernels_.intt(ring_, pool_, launch(kept, 1, 2), last, rows(a_, kept, shape_.limbs));
    kernels_.baseConvert(ring_, pool_, launch(0, kept, 2), out, last, limbs_.data() + kept, 1);
    kernels_.ntt(ring_, pool_, launch(0, kept, 2), out, out);
    kernels_.subScale(ring_, pool_, launch(0, kept, 2), out, rows(a_, 0, shape_.limbs), out, scalars_.data());
  }

  // At least 5 runs and about half a second, after one that warms tables and caches.
  static Result time(const char* name, const std::function<void()>& call) {
    using Clock = std::chrono::steady_clock;
    call();
    std::vector<double> us;
    const auto begin = Clock::now();
    while (us.size() < 5 || (us.size() < 2000 && Clock::now() - begin < std::chrono::milliseconds(500))) {
      const auto start = Clock::now();
      call();
      us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    }
    std::sort(us.begin(), us.end());
    return {name, us[us.size() / 2], us[0]};
  }

  const Shape shape_;
  const uint64_t n_;
  const uint32_t extended_, digitLimbs_;
  const RingContext ring_;
  ThreadPool pool_;
  const KernelTable& kernels_;
  Poly a_, b_, product_, coefficients_, digits_, switched_, turned_, scratch_, key_;
  std::vector<uint64_t> scalars_;
  std::vector<uint16_t> limbs_;
};

void print(const Shape& shape, const std::vector<Result>& results, bool json) {
  const char* backend = cpuKernels().name;
  if (!json)
    std::printf("%s, N = 2^%u, %u + %u limbs, dnum %u, %u threads\n", backend, shape.logN, shape.limbs,
                shape.specials, shape.dnum, shape.threads);
  for (size_t i = 0; i < results.size(); i++) {
    const Result& r = results[i];
    if (!json) {
      std::printf("  %-16s %12.1f us  (least %.1f)\n", r.name.c_str(), r.medianUs, r.minUs);
      continue;
    }
    const bool one = r.name == "ntt";
    std::printf(
        "%s{\"name\":\"%s\",\"backend\":\"%s\",\"logN\":%u,\"limbs\":%u,\"specialLimbs\":%u,\"dnum\":%u,"
        "\"threads\":%u,\"medianUs\":%.1f,\"minUs\":%.1f}%s\n",
        i == 0 ? "[" : " ", r.name.c_str(), backend, shape.logN, one ? 1 : shape.limbs,
        one ? 0 : shape.specials, one ? 1 : shape.dnum, shape.threads, r.medianUs, r.minUs,
        i + 1 == results.size() ? "]" : ",");
  }
}

int usage(const char* what) {
  std::fprintf(stderr,
               "aegis-bench: %s\nusage: aegis-bench [--json] [--threads n] [--logn 10..17] [--limbs 2..60] "
               "[--specials 1..30] [--dnum 1..limbs]\n",
               what);
  return 2;
}

int main(int argc, char** argv) {
  Shape shape;
  bool json = false;
  for (int i = 1; i < argc; i++) {
    if (std::strcmp(argv[i], "--json") == 0) {
      json = true;
      continue;
    }
    if (i + 1 == argc) return usage("a value is missing");
    const uint32_t value = uint32_t(std::strtoul(argv[i + 1], nullptr, 10));
    const std::string flag = argv[i++];
    if (flag == "--threads")
      shape.threads = value;
    else if (flag == "--logn")
      shape.logN = value;
    else if (flag == "--limbs")
      shape.limbs = value;
    else if (flag == "--specials")
      shape.specials = value;
    else if (flag == "--dnum")
      shape.dnum = value;
    else
      return usage(("unknown option " + flag).c_str());
  }
  if (shape.threads < 1 || shape.threads > 1024) return usage("threads must be 1..1024");
  if (shape.logN < 10 || shape.logN > 17) return usage("logn must be 10..17");
  if (shape.limbs < 2 || shape.limbs > 60 || shape.specials < 1 || shape.specials > 30)
    return usage("limbs must be 2..60, specials 1..30");
  const uint32_t digitLimbs = shape.dnum == 0 ? 0 : (shape.limbs + shape.dnum - 1) / shape.dnum;
  if (shape.dnum < 1 || shape.dnum > shape.limbs || (shape.dnum - 1) * digitLimbs >= shape.limbs)
    return usage("dnum digits of equal length must cover the limbs");
  try {
    print(shape, Bench(shape).run(), json);
  } catch (const Error& error) {
    std::fprintf(stderr, "error[%s]: %s\n", error.code().c_str(), error.what());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace aegis

int main(int argc, char** argv) { return aegis::main(argc, argv); }

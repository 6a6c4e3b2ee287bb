// Constants of the cost model on this machine (docs/cost-model.md), as JSON: for each kernel the seconds of a
// term and of an output word with operands in cache, and what a byte that no cache holds adds.
// aegis-bench-profile [--threads T,T,...]
#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include <time.h>

#include "ckks/ring.h"
#include "executor/memory.h"
#include "hal/kernels.h"
#include "hal/thread_pool.h"
#include "support/error.h"

namespace aegis {
namespace {

double now(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

// Fastest of at least 5 runs, after one not counted: others on the machine only add time. `alone`: the
// calling thread does all the work and its own time counts; else it takes longer for all cores to be free.
double fastest(bool alone, const std::function<void()>& run) {
  const clockid_t clock = alone ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
  run();
  double best = 1e9;
  const double end = now(CLOCK_MONOTONIC) + (alone ? 0.04 : 0.2);
  for (int i = 0; i < 5 || (i < 5000 && now(CLOCK_MONOTONIC) < end); i++) {
    const double start = now(clock);
    run();
    best = std::min(best, now(clock) - start);
  }
  return best;
}

std::vector<uint64_t> primesBelow(uint32_t logN, uint32_t count) {
  std::vector<uint64_t> primes;
  const uint64_t step = uint64_t(2) << logN;
  for (uint64_t q = (uint64_t(1) << 50) - step + 1; primes.size() < count; q -= step)
    if (isPrime(q)) primes.push_back(q);
  return primes;
}

// One launch of a kernel, in the units of src/target/kernel-cost.ts.
struct Sample {
  double terms, words, bytes, seconds;
};

// A ring and a block of rows that all operands are taken from.
class Shapes {
 public:
  Shapes(uint32_t logN, uint64_t rows, ThreadPool& pool)
      : n_(uint64_t(1) << logN),
        logN_(logN),
        rows_(rows),
        ring_(logN, primesBelow(logN, kLimbs)),
        pool_(pool),
        kernels_(cpuKernels()),
        words_(rows * n_) {
    words_.touch(pool);
    uint64_t state = 1;
    for (uint64_t k = 0; k < rows * n_; k++) {
      state = state * 6364136223846793005 + 1442695040888963407;
      words_.data()[k] = state >> 16;  // below every prime
    }
    limbs_.resize(kLimbs);
    std::iota(limbs_.begin(), limbs_.end(), uint16_t(0));
    scalars_.assign(kLimbs, 12345);
  }

  // batch elements of `limbs` limbs, `summed` terms each. Operands follow one another in the block.
  Sample run(const std::string& kind, uint32_t batch, uint32_t limbs, uint32_t summed, uint32_t inner) {
    const uint64_t out = uint64_t(batch) * limbs;
    Launch launch;
    launch.rank = summed > 1 ? 2 : 1;
    launch.reduceRank = summed > 1 ? 1 : 0;
    launch.dims[0] = batch;
    launch.dims[1] = summed;
    launch.limbs = limbs_.data();
    launch.limbCount = limbs;
    const auto rows = [&](uint64_t first, uint64_t element, uint64_t term, uint64_t component) {
      Rows r;
      r.base = words_.data() + first * n_;
      r.limbStride = ptrdiff_t(n_);
      r.strides[0] = ptrdiff_t(element * n_);
      r.strides[1] = ptrdiff_t(term * n_);
      r.componentStride = ptrdiff_t(component * n_);
      return r;
    };
    const auto plain = [&](uint64_t first) {
      PlainRows p;
      p.base = words_.data() + first * n_;
      p.rowWords = uint32_t(n_);
      p.limbStride = ptrdiff_t(n_);
      p.strides[0] = ptrdiff_t(uint64_t(summed) * limbs * n_);
      p.strides[1] = ptrdiff_t(uint64_t(limbs) * n_);
      return p;
    };
    // Rows of the parts: output, a, b.
    const Counts c = counts(kind, batch, limbs, summed, inner);
    AEGIS_INVARIANT(c.out + c.a + c.b <= rows_);
    const uint64_t first = c.out, second = c.out + c.a, term = limbs;
    const Rows to = rows(0, out == 0 ? 0 : c.out / batch, 0, limbs);
    const Rows a = rows(first, c.a / batch, c.a / batch / summed, term);
    const Rows b = rows(second, c.b / batch, c.b / batch / summed, term);
    const auto& k = kernels_;
    const double seconds = fastest(pool_.threadCount() == 1, [&] {
      if (kind == "zero") k.zero(ring_, pool_, launch, to);
      else if (kind == "copy") k.copy(ring_, pool_, launch, to, a);
      else if (kind == "add") k.add(ring_, pool_, launch, to, a, b);
      else if (kind == "sub") k.sub(ring_, pool_, launch, to, a, b);
      else if (kind == "add_plain") k.addPlain(ring_, pool_, launch, to, a, plain(second));
      else if (kind == "contract") k.contract(ring_, pool_, launch, to, a, plain(second));
      else if (kind == "tensor") k.tensor(ring_, pool_, launch, to, a, b);
      else if (kind == "ntt") k.ntt(ring_, pool_, launch, to, a);
      else if (kind == "intt") k.intt(ring_, pool_, launch, to, a);
      else if (kind == "sub_scale") k.subScale(ring_, pool_, launch, to, a, b, scalars_.data());
      else if (kind == "ntt_sub_scale") k.nttSubScale(ring_, pool_, launch, to, a, b, scalars_.data());
      else if (kind == "automorphism") k.automorphism(ring_, pool_, launch, to, a, &galois_, ~0u);
      else if (kind == "base_convert")
        k.baseConvert(ring_, pool_, launch, to, a, limbs_.data() + kLimbs - inner, inner);
      else keyProduct(launch, to, a, second, inner);
    });
    return {c.terms * double(n_), c.words * double(n_), double(c.out + c.a + c.b) * double(n_) * 8, seconds};
  }

  uint32_t logN() const { return logN_; }
  static constexpr uint32_t kLimbs = 24;

 private:
  struct Counts {
    uint64_t out, a, b;  // rows
    double terms, words;  // in rows
  };

  Counts counts(const std::string& kind, uint64_t batch, uint64_t limbs, uint64_t summed, uint64_t inner) {
    const uint64_t rows = batch * limbs;
    const double r = double(rows);
    if (kind == "zero") return {rows, 0, 0, 0, r};
    if (kind == "add" || kind == "sub" || kind == "sub_scale" || kind == "add_plain")
      return {rows, rows, rows, 0, r};
    if (kind == "copy" || kind == "automorphism") return {rows, rows * summed, 0, r * double(summed), r};
    if (kind == "contract") return {rows, rows * summed, rows * summed, r * double(summed), r};
    if (kind == "tensor")
      return {3 * rows, 2 * rows * summed, 2 * rows * summed, 4 * r * double(summed), 3 * r};
    if (kind == "ntt" || kind == "intt") return {rows, rows, 0, r * logN_ / 2, r};
    if (kind == "ntt_sub_scale") return {rows, rows, rows, r * logN_ / 2, r};
    if (kind == "base_convert")
      return {rows, batch * inner, 0, r * double(inner), double(batch * (inner + limbs))};
    return {2 * rows, rows * inner * summed, 2 * inner * limbs, 2 * r * double(inner * summed), 2 * r};
  }

  void keyProduct(const Launch& launch, const Rows& to, const Rows& a, uint64_t keyRow, uint32_t digits) {
    const KeyView key = {words_.data() + keyRow * n_, digits, launch.limbCount};
    kernels_.keyProduct(ring_, pool_, launch, to, a, digits, &key, ~0u, limbs_.data());
  }

  const uint64_t n_;
  const uint32_t logN_;
  const uint64_t rows_;
  const uint32_t galois_ = 5;
  RingContext ring_;
  ThreadPool& pool_;
  const KernelTable& kernels_;
  WordBlock words_;
  std::vector<uint16_t> limbs_;
  std::vector<uint64_t> scalars_;
};

struct Kernel {
  const char* name;
  bool sums;            // may sum a dimension
  uint32_t few, many;   // digits or sources; 1 where it has none
};

constexpr Kernel kKernels[] = {
    {"zero", false, 1, 1},         {"copy", true, 1, 1},         {"add", false, 1, 1},
    {"sub", false, 1, 1},          {"add_plain", false, 1, 1},   {"contract", true, 1, 1},
    {"tensor", true, 1, 1},        {"ntt", false, 1, 1},         {"intt", false, 1, 1},
    {"base_convert", false, 2, 8}, {"sub_scale", false, 1, 1},   {"key_product", false, 1, 4},
    {"automorphism", true, 1, 1},  {"ntt_sub_scale", false, 1, 1}};

struct Fit {
  double term, word, byte;
};

// Terms and words from a launch with few terms a word and one with many; bytes from one beyond the caches.
Fit fit(const Kernel& kernel, Shapes& cached, Shapes& streamed, double launchSeconds) {
  const auto net = [&](Sample s) {
    s.seconds = std::max(0.0, s.seconds - launchSeconds);
    return s;
  };
  const uint32_t limbs = 8, batch = 4;
  const Sample low = net(cached.run(kernel.name, batch, limbs, 1, kernel.few));
  Fit f = {0, 0, 0};
  if (low.terms == 0) f.word = low.seconds / low.words;
  else if (!kernel.sums && kernel.many == 1) f.term = low.seconds / low.terms;
  else {
    const Sample high = net(cached.run(kernel.name, batch, limbs, kernel.sums ? 4 : 1, kernel.many));
    const double det = low.terms * high.words - high.terms * low.words;
    f.term = std::max(0.0, (low.seconds * high.words - high.seconds * low.words) / det);
    f.word = std::max(0.0, (low.seconds - f.term * low.terms) / low.words);
  }
  const uint32_t summed = kernel.sums && std::strcmp(kernel.name, "tensor") != 0 ? 4 : 1;
  const Sample far = streamed.run(kernel.name, 6, Shapes::kLimbs - kernel.many, summed, kernel.many);
  const double inCache = launchSeconds + far.terms * f.term + far.words * f.word;
  f.byte = std::max(0.0, far.seconds - inCache) / far.bytes;
  return f;
}

// Copies by `ranks` threads at once: bytes per second of one of them.
double copyBandwidth(uint32_t ranks) {
  const size_t words = size_t(8) << 20;  // 64 MiB
  std::vector<std::vector<uint64_t>> from(ranks), to(ranks);
  std::vector<std::thread> threads;
  std::vector<double> seconds(ranks);
  for (uint32_t r = 0; r < ranks; r++) {
    from[r].assign(words, 1);
    to[r].assign(words, 2);
  }
  for (uint32_t r = 0; r < ranks; r++)
    threads.emplace_back([&, r] {
      seconds[r] = fastest(ranks == 1, [&] { std::memcpy(to[r].data(), from[r].data(), words * 8); });
    });
  for (std::thread& thread : threads) thread.join();
  return double(words * 8) / *std::max_element(seconds.begin(), seconds.end());
}

// From one thread to another that sleeps.
double handOver() {
  std::mutex mutex;
  std::condition_variable changed;
  int turn = 0;
  constexpr int kTurns = 2000;
  const auto play = [&](int own) {
    for (int i = 0; i < kTurns; i++) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return turn % 2 == own; });
      turn++;
      changed.notify_one();
    }
  };
  const double start = now(CLOCK_MONOTONIC);
  std::thread other([&] { play(1); });
  play(0);
  other.join();
  return (now(CLOCK_MONOTONIC) - start) / (2 * kTurns);
}

// What a launch takes besides its rows.
double launchOverhead(Shapes& shapes) {
  const double one = shapes.run("add", 1, 1, 1, 1).seconds, two = shapes.run("add", 1, 2, 1, 1).seconds;
  return std::max(0.0, 2 * one - two);
}

void table(uint32_t threads, bool first) {
  ThreadPool pool(threads);
  Shapes tiny(10, 16, pool), cached(12, 4 * 8 * 19, pool), streamed(16, 1300, pool);
  const double one = launchOverhead(tiny);
  std::printf("%s\n  {\"threads\": %u, \"launchSeconds\": %.3e, \"kernels\": {", first ? "" : ",", threads,
              one);
  bool begin = true;
  for (const Kernel& kernel : kKernels) {
    std::fprintf(stderr, "%u threads: %s\n", threads, kernel.name);
    const Fit f = fit(kernel, cached, streamed, one);
    std::printf("%s\n    \"%s\": {\"termSeconds\": %.4e, \"wordSeconds\": %.4e, \"byteSeconds\": %.4e}",
                begin ? "" : ",", kernel.name, f.term, f.word, f.byte);
    begin = false;
  }
  std::printf("}}");
}

int main(int argc, char** argv) {
  std::vector<uint32_t> threads = {1};
  if (argc == 3 && std::strcmp(argv[1], "--threads") == 0) {
    threads.clear();
    char* at = argv[2];
    do threads.push_back(uint32_t(std::strtoul(at, &at, 10)));
    while (*at++ == ',');
  } else if (argc != 1) {
    std::fprintf(stderr, "usage: aegis-bench-profile [--threads T,T,...]\n");
    return 2;
  }
  for (const uint32_t t : threads)
    if (t < 1 || t > 1024) {
      std::fprintf(stderr, "aegis-bench-profile: threads must be 1..1024\n");
      return 2;
    }
  std::printf("{\"backend\": \"%s\", \"copyBandwidth\": %.4e, \"handOverSeconds\": %.3e, ", cpuKernels().name,
              copyBandwidth(threads.back()), handOver());
  std::printf("\"tables\": [");
  for (size_t i = 0; i < threads.size(); i++) table(threads[i], i == 0);
  std::printf("]}\n");
  return 0;
}

}  // namespace
}  // namespace aegis

int main(int argc, char** argv) { return aegis::main(argc, argv); }

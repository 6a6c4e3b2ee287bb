// Compiled once for each form of multiplication (AEGIS_CUDA_MULTIPLY).
#include "backends/cuda/emulated.h"

#include <vector>

#include "backends/cuda/emulator.h"
#include "backends/cuda/launches.h"
#include "backends/cuda/reduce_rows.h"
#include "ckks/ring.h"

namespace aegis {
namespace cuda {
namespace {

// Words of scratch for expanded plaintexts if one limb needs no more: little, so that launches are cut.
constexpr size_t kSmallScratch = 1 << 12;

// What the device has in its memory: the ring's primes and, of the launch's limbs, their NTT tables.
class Emulation {
 public:
  Emulation(const RingContext& ring, ThreadPool& pool, const Launch& launch, bool transforms)
      : launcher_(pool), tables_(transforms ? ring.primeCount() : 0) {
    for (uint32_t i = 0; i < ring.primeCount(); i++) primes_.push_back(ring.prime(i));
    for (uint32_t j = 0; transforms && j < launch.limbCount; j++)
      tables_[launch.limbs[j]] = ring.nttTable(launch.limbs[j], kTwiddles);
    view_ = {ring.logN(), primes_.data(), tables_.data()};
    AEGIS_INVARIANT(fitsGrid(view_, launch));
  }
  Emulation(const Emulation&) = delete;
  Emulation& operator=(const Emulation&) = delete;

  Commands<EmulatedLauncher> commands() { return {launcher_, view_}; }

  Scratch scratch(const Launch& launch, const PlainRows& plain) {
    scratch_.resize(std::max(scratchWords(launch, plain), kSmallScratch));
    return {scratch_.data(), scratch_.size()};
  }

 private:
  EmulatedLauncher launcher_;
  std::vector<Prime> primes_;
  std::vector<NttTable> tables_;
  std::vector<uint64_t> scratch_;
  RingView view_;
};

void zero(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out) {
  Emulation(ring, pool, launch, false).commands().zero(launch, out);
}

void copy(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a) {
  Emulation(ring, pool, launch, false).commands().copy(launch, out, a);
}

void add(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a, Rows b) {
  Emulation(ring, pool, launch, false).commands().add(launch, out, a, b);
}

void sub(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a, Rows b) {
  Emulation(ring, pool, launch, false).commands().sub(launch, out, a, b);
}

void addPlain(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a,
              PlainRows p) {
  Emulation device(ring, pool, launch, p.coefficients);
  device.commands().addPlain(launch, out, a, p, device.scratch(launch, p));
}

void contract(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a,
              PlainRows p) {
  Emulation device(ring, pool, launch, p.coefficients);
  device.commands().contract(launch, out, a, p, device.scratch(launch, p));
}

void tensor(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a, Rows b) {
  Emulation(ring, pool, launch, false).commands().tensor(launch, out, a, b);
}

void ntt(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a) {
  Emulation(ring, pool, launch, true).commands().ntt(launch, out, a);
}

void intt(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a) {
  Emulation(ring, pool, launch, true).commands().intt(launch, out, a);
}

void baseConvert(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a,
                 const uint16_t* sourceLimbs, uint32_t sourceCount) {
  Emulation(ring, pool, launch, false)
      .commands()
      .baseConvert(launch, out, a,
                   ring.conversion(sourceLimbs, sourceCount, launch.limbs, launch.limbCount));
}

void subScale(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a, Rows b,
              const uint64_t* scalars) {
  Emulation(ring, pool, launch, false).commands().subScale(launch, out, a, b, scalars);
}

void nttSubScale(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a, Rows b,
                 const uint64_t* scalars) {
  Emulation(ring, pool, launch, true).commands().nttSubScale(launch, out, a, b, scalars);
}

void keyProduct(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows digits,
                uint32_t digitCount, const KeyView* keys, uint32_t keyDim, const uint16_t* keyRows) {
  Emulation(ring, pool, launch, false)
      .commands()
      .keyProduct(launch, out, digits, digitCount, keys, keyDim, keyRows);
}

void automorphism(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a,
                  const uint32_t* galois, uint32_t galoisDim) {
  Emulation(ring, pool, launch, false).commands().automorphism(launch, out, a, galois, galoisDim);
}

void sumRows(uint64_t* out, const uint64_t* const* rows, size_t count, size_t words, const Prime& prime) {
  AEGIS_INVARIANT(count <= kMaxBlocks && words % 16 == 0);
  const uint16_t limb = 0;
  const ReduceRowsJob job = sumJob(out, rows, count, words, &prime, &limb);
  ThreadPool here(1);
  EmulatedLauncher(here).start(ReduceRows{job}, uint32_t(reduceBlocks(job)), kBlockThreads, 0);
}

constexpr const char* kNames[kMultiplyForms] = {"cuda-emulated", "cuda-emulated-split32",
                                                "cuda-emulated-fp64"};

constexpr KernelTable emulatedKernels = {
    kNames[uint32_t(MultiplyForm::AEGIS_CUDA_MULTIPLY)],
    zero, copy, add,         sub,      addPlain,    contract,   tensor,
    ntt,  intt, baseConvert, subScale, nttSubScale, keyProduct, automorphism, sumRows};

}  // namespace
}  // namespace cuda

template <>
const KernelTable& emulatedCudaKernels<cuda::MultiplyForm::AEGIS_CUDA_MULTIPLY>() {
  return cuda::emulatedKernels;
}

}  // namespace aegis

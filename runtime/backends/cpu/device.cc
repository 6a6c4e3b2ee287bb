#include "backends/cpu/device.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "ckks/ring.h"
#include "executor/memory.h"
#include "hal/channel.h"
#include "hal/thread_pool.h"
#include "plan/program.h"
#include "support/error.h"

namespace aegis {
namespace {

// A launch is cut along a batch dimension into slices of about this many word operations (some 100 ms), so
// that progress and cancellation come through. Batch elements are independent: the bits do not change.
constexpr uint64_t kSliceWordOps = uint64_t(1) << 28;
// Words that a thread copies at a time.
constexpr size_t kCopyWords = size_t(1) << 18;

using Clock = std::chrono::steady_clock;

}  // namespace

CpuDevice::CpuDevice(const RingContext& ring, ThreadPool& pool, Statics statics)
    : ring_(ring), pool_(pool), kernels_(cpuKernels()), statics_(std::move(statics)), name_(kernels_.name) {}

DeviceWords CpuDevice::allocate(uint64_t words) {
  auto block = std::make_shared<WordBlock>(words);
  block->touch(pool_);
  return {{block->data(), [block](uint64_t*) {}}, words};
}

void CpuDevice::writeRows(uint64_t* to, size_t rows, const std::function<const uint64_t*(size_t)>& source) {
  const size_t n = ring_.degree();
  pool_.parallelFor(rows, 1 + kCopyWords / n, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; i++) std::memcpy(to + i * n, source(i), n * sizeof(uint64_t));
  });
}

void CpuDevice::readRows(const uint64_t* from, const std::vector<size_t>& rows,
                         const std::function<uint64_t*(size_t)>& target) {
  const size_t n = ring_.degree();
  pool_.parallelFor(rows.size(), 1 + kCopyWords / n, [&](size_t begin, size_t end) {
    for (size_t k = begin; k < end; k++)
      std::memcpy(target(k), from + rows[k] * n, n * sizeof(uint64_t));
  });
}

void CpuDevice::launch(const KernelCall& call) {
  const CommandSpec& c = *call.command;
  const auto start = Clock::now();
  uint32_t dim = 0;
  while (dim < c.rank - c.reduceRank && c.dims[dim] == 1) dim++;
  const uint64_t slices = call.work * ring_.degree() / kSliceWordOps;
  if (dim == c.rank - c.reduceRank || slices < 2) {
    watch_->step(0, c.node);
    run(call);
    watch_->step(call.work, c.node);
  } else {
    const uint32_t size = c.dims[dim], slice = uint32_t(std::max<uint64_t>(1, size / slices));
    for (uint32_t begin = 0; begin < size; begin += std::min(slice, size - begin)) {
      const uint32_t end = begin + std::min(slice, size - begin);
      watch_->step(0, c.node);
      run(call.part(dim, begin, end));
      watch_->step(call.work / size * (end - begin), c.node);
    }
  }
  watch_->spent(c, std::chrono::duration<double>(Clock::now() - start).count());
}

void CpuDevice::run(const KernelCall& call) const {
  const CommandSpec& c = *call.command;
  const Launch& launch = call.launch;
  const Rows &out = call.out, &a = call.a, &b = call.b;
  switch (c.op) {
    case plan::Opcode_Zero: return kernels_.zero(ring_, pool_, launch, out);
    case plan::Opcode_Copy: return kernels_.copy(ring_, pool_, launch, out, a);
    case plan::Opcode_Add: return kernels_.add(ring_, pool_, launch, out, a, b);
    case plan::Opcode_Sub: return kernels_.sub(ring_, pool_, launch, out, a, b);
    case plan::Opcode_AddPlain: return kernels_.addPlain(ring_, pool_, launch, out, a, call.plain);
    case plan::Opcode_Contract: return kernels_.contract(ring_, pool_, launch, out, a, call.plain);
    case plan::Opcode_Tensor: return kernels_.tensor(ring_, pool_, launch, out, a, b);
    case plan::Opcode_Ntt: return kernels_.ntt(ring_, pool_, launch, out, a);
    case plan::Opcode_Intt: return kernels_.intt(ring_, pool_, launch, out, a);
    case plan::Opcode_BaseConvert:
      return kernels_.baseConvert(ring_, pool_, launch, out, a, c.sourceLimbs.data(),
                                  uint32_t(c.sourceLimbs.size()));
    case plan::Opcode_SubScale: return kernels_.subScale(ring_, pool_, launch, out, a, b, c.scalars.data());
    case plan::Opcode_NttSubScale:
      return kernels_.nttSubScale(ring_, pool_, launch, out, a, b, c.scalars.data());
    case plan::Opcode_KeyProduct:
      return kernels_.keyProduct(ring_, pool_, launch, out, a, c.digitCount,
                                 statics_.keys.at(&c).data() + call.turn, c.turnDim, c.keyRows.data());
    case plan::Opcode_Automorphism:
      return kernels_.automorphism(ring_, pool_, launch, out, a, c.galois.data() + call.turn, c.turnDim);
    case plan::Opcode_Loop:
    case plan::Opcode_Call:
    case plan::Opcode_Collective:
    case plan::Opcode_Wait: break;
  }
  AEGIS_INVARIANT(!"a kernel");
}

void CpuDevice::copyRows(uint64_t* to, const Block& from, uint64_t rows) {
  const size_t n = ring_.degree();
  pool_.parallelFor(rows, 1 + (size_t(1) << 17) / n, [&](size_t begin, size_t end) {
    std::memcpy(to + begin * n, from.rows + begin * n, (end - begin) * n * sizeof(uint64_t));
  });
}

void CpuDevice::sumBlocks(const Collective& collective, uint32_t index, uint64_t first, uint64_t rows,
                          const std::vector<Block>& blocks, uint64_t* out) {
  std::vector<const uint64_t*> addends;
  for (const Block& block : blocks) addends.push_back(block.rows);
  aegis::sumBlocks(ring_, pool_, collective, index, first, rows, addends, out);
}

void CpuDevice::copyOut(uint64_t* host, const uint64_t* rows, uint64_t words) {
  std::memcpy(host, rows, words * sizeof(uint64_t));
}

}  // namespace aegis

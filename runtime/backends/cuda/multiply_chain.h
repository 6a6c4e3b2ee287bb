// multiplyChain: words times one factor, `steps` times over, in registers: what a modular multiplication
// costs in each form (multiply.h), for the bench. A module has all of them, whichever its kernels use.
//
// Operations: kChainWords steps a thread, which depend on each other in kChainWords chains. Bytes: 16 a word.
#pragma once

#include "backends/cuda/multiply.h"

namespace aegis::cuda {

constexpr uint32_t kChainWords = 4;
constexpr uint32_t kChainBlockWords = kChainWords * kBlockThreads;

struct MultiplyChainJob {
  uint64_t* words = nullptr;  // kChainBlockWords for each block, canonical; replaced by words * w^steps mod q
  uint32_t blocks = 0, steps = 0;
  uint64_t q = 0, w = 0, companion = 0;
};

template <MultiplyForm form>
struct MultiplyChain {
  MultiplyChainJob job;

  template <class Block>
  AEGIS_DEVICE void run(Block& block) const {
    block.phase([&](uint32_t thread) {
      uint64_t* words = job.words + uint64_t(block.index) * kChainBlockWords + thread;
      uint64_t x[kChainWords];
      AEGIS_UNROLL
      for (uint32_t i = 0; i < kChainWords; i++) x[i] = words[i * block.threads];
      for (uint32_t step = 0; step < job.steps; step++) {
        AEGIS_UNROLL
        for (uint32_t i = 0; i < kChainWords; i++)
          x[i] = Multiply<form>::lazy(x[i], job.w, job.companion, job.q);
      }
      AEGIS_UNROLL
      for (uint32_t i = 0; i < kChainWords; i++)
        words[i * block.threads] = x[i] >= job.q ? x[i] - job.q : x[i];
    });
  }
};

template <MultiplyForm form, class Launcher>
void startChain(Launcher& launcher, const MultiplyChainJob& job) {
  launcher.start(MultiplyChain<form>{job}, job.blocks, kBlockThreads, 0);
}

// false: there is no such form.
template <class Launcher>
bool startChain(Launcher& launcher, uint32_t form, const MultiplyChainJob& job) {
  switch (MultiplyForm(form)) {
    case MultiplyForm::shoup64: return startChain<MultiplyForm::shoup64>(launcher, job), true;
    case MultiplyForm::split32: return startChain<MultiplyForm::split32>(launcher, job), true;
    case MultiplyForm::fp64: return startChain<MultiplyForm::fp64>(launcher, job), true;
  }
  return false;
}

}  // namespace aegis::cuda

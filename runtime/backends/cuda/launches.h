// From a launch of hal/kernels.h to the blocks of one or more CUDA kernels. One text for both carriers: a
// Launcher starts a kernel struct with a number of blocks, threads a block and words of shared memory, on
// a stream (module.cu) or in the emulator (emulated.cc). Sizes that tell the carrier apart are not here;
// pointers are not followed.
#pragma once

#include <algorithm>

#include "backends/cuda/automorphism.h"
#include "backends/cuda/base_convert.h"
#include "backends/cuda/contract.h"
#include "backends/cuda/copy.h"
#include "backends/cuda/elementwise.h"
#include "backends/cuda/key_product.h"
#include "backends/cuda/ntt.h"
#include "backends/cuda/tensor.h"

namespace aegis::cuda {
inline namespace AEGIS_CUDA_MULTIPLY {

// Words of an elementwise block: 8 a thread.
constexpr uint32_t kElementwiseWords = 8 * kBlockThreads;

inline uint32_t dimsProduct(const Launch& launch, uint32_t begin, uint32_t end) {
  uint32_t product = 1;
  for (uint32_t d = begin; d < end; d++) product *= launch.dims[d];
  return product;
}

inline Cut cutInto(const RingView& ring, const Launch& launch, uint32_t words) {
  Cut cut;
  cut.outerRank = launch.rank - launch.reduceRank;
  cut.outerCount = dimsProduct(launch, 0, cut.outerRank);
  cut.reducedCount = dimsProduct(launch, cut.outerRank, launch.rank);
  cut.words = std::min(words, 1u << ring.logN);
  cut.pieces = (1u << ring.logN) / cut.words;
  return cut;
}

// Whether blocks and columns of a launch can be counted in 31 bits: 2^35 words of output and reduced terms.
inline bool fitsGrid(const RingView& ring, const Launch& launch) {
  uint64_t rows = launch.limbCount;
  for (uint32_t d = 0; d < launch.rank; d++) {
    rows *= launch.dims[d];
    if (rows >> 35) return false;
  }
  return (rows << ring.logN) >> 35 == 0;
}

inline uint32_t log2Of(uint32_t power) {
  uint32_t log = 0;
  while (power > 1u << log) log++;
  return log;
}

inline uint32_t plainShift(const RingView& ring, const PlainRows& plain) {
  return ring.logN - log2Of(plain.rowWords);
}

// The rows of a plaintext operand that differ, and where they are expanded to: dense, limb by limb.
struct Expansion {
  Launch distinct;  // a dimension of stride 0 reads the same rows again
  Rows rows;
  size_t limbWords;

  Expansion(const Launch& launch, const PlainRows& plain) : distinct(launch) {
    distinct.reduceRank = 0;
    distinct.accumulate = false;
    ptrdiff_t extent = plain.rowWords;
    for (uint32_t d = launch.rank; d-- > 0;) {
      if (plain.strides[d] == 0) distinct.dims[d] = 1;
      else rows.strides[d] = extent;
      extent *= distinct.dims[d];
    }
    rows.limbStride = extent;
    limbWords = size_t(extent);
  }
};

// What addPlain and contract need at least; more lets them expand several limbs together, up to this times
// limbCount.
inline size_t scratchWords(const Launch& launch, const PlainRows& plain) {
  return plain.coefficients ? Expansion(launch, plain).limbWords : 0;
}

template <class Launcher>
class Commands {
 public:
  Commands(Launcher& launcher, const RingView& ring) : launcher_(launcher), ring_(ring) {}

  void zero(const Launch& launch, const Rows& out) { elementwise(launch, out, Zero{}); }
  void add(const Launch& launch, const Rows& out, const Rows& a, const Rows& b) {
    elementwise(launch, out, Add{a, b});
  }
  void sub(const Launch& launch, const Rows& out, const Rows& a, const Rows& b) {
    elementwise(launch, out, Sub{a, b});
  }
  void subScale(const Launch& launch, const Rows& out, const Rows& a, const Rows& b,
                const uint64_t* scalars) {
    elementwise(launch, out, SubScale{a, b, scalars});
  }
  void addPlain(const Launch& launch, const Rows& out, const Rows& a, const PlainRows& plain,
                const Scratch& scratch) {
    withResidues(launch, out, a, plain, scratch,
                 [&](const Launch& part, const Rows& to, const Rows& from, const PlainRows& residues) {
                   elementwise(part, to, AddPlain{from, residues, plainShift(ring_, residues)});
                 });
  }

  void copy(const Launch& launch, const Rows& out, const Rows& a) { reduction(launch, out, CopyTerms{a}); }
  void contract(const Launch& launch, const Rows& out, const Rows& a, const PlainRows& plain,
                const Scratch& scratch) {
    withResidues(launch, out, a, plain, scratch,
                 [&](const Launch& part, const Rows& to, const Rows& from, const PlainRows& residues) {
                   contraction(part, to, from, residues);
                 });
  }
  void tensor(const Launch& launch, const Rows& out, const Rows& a, const Rows& b) {
    reduction(launch, out, TensorTerms{a, b});
  }
  void keyProduct(const Launch& launch, const Rows& out, const Rows& digits, uint32_t digitCount,
                  const KeyView* keys, uint32_t keyDim, const uint16_t* keyRows) {
    const KeyOperands operands{digits, digitCount, keys, keyDim, keyRows};
    const bool together = keyDim < launch.rank - launch.reduceRank && digits.strides[keyDim] == 0;
    const uint32_t tiled = together ? launch.dims[keyDim] : 1;
    if (tiled > 1) keyProducts<4, 1>(launch, out, operands, tiled);
    else keyProducts<1, 2>(launch, out, operands, 1);
  }
  void automorphism(const Launch& launch, const Rows& out, const Rows& a, const uint32_t* galois,
                    uint32_t galoisDim) {
    reduction(launch, out, AutomorphismTerms{a, galois, galoisDim});
  }

  void ntt(const Launch& launch, const Rows& out, const Rows& a) {
    const uint32_t first = firstPassLayers(ring_.logN);
    if (first != 0) pass<Transform::kForward>(launch, out, a, ring_.logN, 0, first);
    pass<Transform::kForward>(launch, out, first != 0 ? out : a, ring_.logN, first, ring_.logN - first);
  }
  void nttSubScale(const Launch& launch, const Rows& out, const Rows& a, const Rows& b,
                   const uint64_t* scalars) {
    const uint32_t first = firstPassLayers(ring_.logN);
    if (first != 0) pass<Transform::kForward>(launch, out, b, ring_.logN, 0, first);
    pass<Transform::kForwardSubScale>(launch, out, first != 0 ? out : b, ring_.logN, first,
                                      ring_.logN - first, {a, scalars});
  }
  void intt(const Launch& launch, const Rows& out, const Rows& a) {
    const uint32_t first = firstPassLayers(ring_.logN);
    pass<Transform::kInverse>(launch, out, a, ring_.logN, first, ring_.logN - first);
    if (first != 0) pass<Transform::kInverse>(launch, out, out, ring_.logN, 0, first);
  }

  void baseConvert(const Launch& launch, const Rows& out, const Rows& a, const ConversionTable& table) {
    if (table.destinationCount == 0) return;
    const uint32_t groups = (table.destinationCount + kDestinations - 1) / kDestinations;
    const Cut cut = cutInto(ring_, launch, kBlockThreads);
    launcher_.start(BaseConvert{launch, cut, out, a, table}, cut.outerCount * cut.pieces * groups, cut.words,
                    BaseConvert::kShared);
  }

 private:
  template <class Op>
  void elementwise(const Launch& launch, const Rows& out, const Op& op) {
    const Cut cut = cutInto(ring_, launch, kElementwiseWords);
    launcher_.start(Elementwise<Op>{ring_, launch, cut, out, op},
                    cut.outerCount * cut.pieces * launch.limbCount, std::min(cut.words, kBlockThreads), 0);
  }

  template <class Terms>
  void reduction(const Launch& launch, const Rows& out, const Terms& terms) {
    const Cut cut = cutInto(ring_, launch, kThreadWords * kBlockThreads);
    launcher_.start(Reduction<Terms>{ring_, launch, cut, out, terms},
                    cut.outerCount * cut.pieces * launch.limbCount, cut.words / kThreadWords,
                    Reduction<Terms>::kShared);
  }

  template <uint32_t kKeys, uint32_t kWords>
  void keyProducts(const Launch& launch, const Rows& out, const KeyOperands& operands, uint32_t tiled) {
    using Kernel = KeyProduct<kKeys, kWords>;
    Cut cut = cutInto(ring_, launch, kWords * kBlockThreads);
    const uint32_t inner = tiled == 1 ? 1 : dimsProduct(launch, operands.keyDim + 1, cut.outerRank);
    cut.outerCount = cut.outerCount / tiled * ((tiled + kKeys - 1) / kKeys);
    launcher_.start(Kernel{ring_, launch, cut, out, operands, tiled, inner},
                    cut.outerCount * cut.pieces * launch.limbCount, cut.words / kWords, Kernel::kShared);
  }

  // The longest outer dimension along which all rows read the same a is tiled.
  void contraction(const Launch& launch, const Rows& out, const Rows& a, const PlainRows& residues) {
    Cut cut = cutInto(ring_, launch, kContractWords * kBlockThreads);
    uint32_t tileDim = 0, tiled = 1;
    for (uint32_t d = 0; d < cut.outerRank; d++)
      if (a.strides[d] == 0 && launch.dims[d] > tiled) tileDim = d, tiled = launch.dims[d];
    const uint32_t inner = tiled == 1 ? 1 : dimsProduct(launch, tileDim + 1, cut.outerRank);
    cut.outerCount = cut.outerCount / tiled * ((tiled + kTileRows - 1) / kTileRows);
    const uint32_t shift = plainShift(ring_, residues);
    launcher_.start(Contract{ring_, launch, cut, out, a, residues, shift, tileDim, tiled, inner},
                    cut.outerCount * cut.pieces * launch.limbCount, cut.words / kContractWords,
                    Contract::kShared);
  }

  // Layers of the first of two passes of rows of 2^logRow words; 0: one pass does all.
  static uint32_t firstPassLayers(uint32_t logRow) { return logRow <= kTileLayers ? 0 : (logRow + 1) / 2; }

  template <Transform kind>
  void pass(const Launch& launch, const Rows& out, const Rows& in, uint32_t logRow, uint32_t firstLayer,
            uint32_t layers, const SubScaleOperands& operands = {}) {
    const Cut cut = cutInto(ring_, launch, 1);
    const uint32_t columns = (cut.outerCount * launch.limbCount) << (logRow - layers);
    const uint32_t tileColumns = kTileWords >> layers;
    launcher_.start(NttPass<kind>{ring_, launch, cut, out, in, logRow, firstLayer, layers, columns, operands},
                    (columns + tileColumns - 1) / tileColumns, kBlockThreads, NttPass<kind>::kShared);
  }

  // Coefficients become residues: a transform of rowWords points, whose twiddles are the first of the
  // ring's (ckks/subring_ntt.h).
  void expand(const Launch& launch, const Rows& out, const PlainRows& plain) {
    Rows in;
    in.base = const_cast<uint64_t*>(plain.base);  // only read
    std::copy(plain.strides, plain.strides + kMaxRank, in.strides);
    const uint32_t logRow = log2Of(plain.rowWords), first = firstPassLayers(logRow);
    if (first == 0) return pass<Transform::kForwardSigned>(launch, out, in, logRow, 0, logRow);
    pass<Transform::kForwardSigned>(launch, out, in, logRow, 0, first);
    pass<Transform::kForward>(launch, out, out, logRow, first, logRow - first);
  }

  // run(launch, out, a, residues): once, or for some limbs at a time whose coefficients are expanded first.
  template <class Run>
  void withResidues(const Launch& launch, const Rows& out, const Rows& a, const PlainRows& plain,
                    const Scratch& scratch, const Run& run) {
    if (!plain.coefficients) return run(launch, out, a, plain);
    Expansion expansion(launch, plain);
    expansion.rows.base = scratch.base;
    const uint32_t together =
        uint32_t(std::min<size_t>(scratch.words / expansion.limbWords, launch.limbCount));
    PlainRows residues;
    residues.base = scratch.base;
    std::copy(expansion.rows.strides, expansion.rows.strides + kMaxRank, residues.strides);
    residues.limbStride = expansion.rows.limbStride;
    residues.rowWords = plain.rowWords;
    for (uint32_t first = 0; first < launch.limbCount; first += together) {
      Launch part = launch, distinct = expansion.distinct;
      part.limbs = distinct.limbs = launch.limbs + first;
      part.limbCount = distinct.limbCount = std::min(together, launch.limbCount - first);
      expand(distinct, expansion.rows, plain);
      run(part, fromLimb(out, first), fromLimb(a, first), residues);
    }
  }

  static Rows fromLimb(Rows x, uint32_t limb) {
    x.base += ptrdiff_t(limb) * x.limbStride;
    return x;
  }

  Launcher& launcher_;
  const RingView& ring_;
};

}  // namespace AEGIS_CUDA_MULTIPLY
}  // namespace aegis::cuda

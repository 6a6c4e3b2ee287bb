// ntt, intt, nttSubScale: negacyclic transforms, and the transform of plaintext rows that are held as
// coefficients.
//
// A pass does up to kTileLayers layers of butterflies in shared memory. Before global layer `firstLayer` a
// row falls into 2^firstLayer blocks; a block falls into interleaved columns of 2^layers words, which lie
// `stride` words apart and do not meet in these layers. Rows of up to 2^12 words take one pass, longer
// ones two: first columns with a stride (2^16: 256 columns of 256), then contiguous blocks (256 of 256);
// the inverse the other way round. A tile of 2^12 words holds whole columns, neighbours in memory: of one
// row or, if rows are short, of several. Inside a pass a thread takes 2^R words through R layers in
// registers, R <= 4: two phases for 8 layers.
//
// Ranges (q < 2^50, no corrections inside a pass). Forward (Cooley-Tukey, Harvey 2014): layer l of a row
// leaves words below (2 l + 1) q, 35 q < 2^56 after 17 layers. Inverse (Gentleman-Sande): l layers of a
// pass leave words below 2^l q <= 2^62. In form fp64 (multiply.h) every layer corrects once: forward words
// stay below 4q, inverse ones below 2q. Words are made canonical when a row leaves its last pass, and
// between the passes of the inverse.
//
// Floors of one row of N words: 5 N log2 N IMAD (N/2 log2 N butterflies of one Shoup product) and 7 N for
// the last reduction; 16 N bytes a pass, 32 N in two. Twiddles (32 N bytes with companions, most of them
// in the contiguous pass) come from the second-level cache, since blocks go through the batch before the
// next limb. At N = 2^16 on an H100: operations 0.40 us, memory 0.63 us a row.
//
// nttSubScale: 21 N IMAD and 8 N bytes more, 40 N bytes in two passes (0.78 us); ntt and then subScale move
// 56 N (1.10 us).
// On that H100 a row in a batch of 120 takes 1.84 us, inverse 2.07 us (docs/measurements.md).
#pragma once

#include "backends/cuda/arithmetic.h"
#include "backends/cuda/batch.h"

namespace aegis::cuda {
inline namespace AEGIS_CUDA_MULTIPLY {

constexpr uint32_t kTileLayers = 12;
constexpr uint32_t kTileWords = 1u << kTileLayers;
constexpr uint32_t kMaxRadixBits = 4;

// Signed: two's complement words in. SubScale: the last pass stores (a - word) * scalar.
enum class Transform { kForward, kForwardSigned, kForwardSubScale, kInverse };

// What kForwardSubScale takes besides: the minuend, rows like those of the output, and one scalar a limb.
struct SubScaleOperands {
  Rows a;
  const uint64_t* scalars = nullptr;
};

template <Transform kind>
struct NttPass {
  // One word of padding in 16: words at any power-of-two distance lie in different banks.
  static constexpr uint32_t kShared = kTileWords + kTileWords / 16;
  static constexpr uint32_t kResidentBlocks = 3;  // 80 registers; the few spills cost less than a block
  static constexpr bool kInverse = kind == Transform::kInverse;
  static_assert(kShared <= kSharedWords);

  RingView ring;
  Launch launch;
  Cut cut;  // outerRank and outerCount
  Rows out, in;
  uint32_t logRow;  // words of a row: N, or those of a plaintext row
  uint32_t firstLayer, layers;
  uint32_t columns;  // of all rows of the launch: rows << (logRow - layers)
  SubScaleOperands operands;  // kForwardSubScale only

  template <class Block>
  AEGIS_DEVICE void run(Block& block) const {
    const Tile tile{block.index << logTileColumns(), block.shared};
    // Columns with a stride are neighbours in memory, so a phase may read or write words where they are.
    // In contiguous blocks only the phase of the widest butterflies may: the forward's first, the
    // inverse's last.
    const bool strided = logStride() != 0;
    const bool loadDirect = layers != 0 && (strided || !kInverse);
    const bool storeDirect = layers != 0 && (strided || kInverse);
    if (!loadDirect) block.phase([&](uint32_t thread) { loadTile(tile, thread, block.threads); });
    for (uint32_t done = 0; done < layers;) {
      const uint32_t radix = layers - done < kMaxRadixBits ? layers - done : kMaxRadixBits;
      const uint32_t layer = kInverse ? layers - done - radix : done;
      const bool load = loadDirect && done == 0, store = storeDirect && done + radix == layers;
      block.phase([&](uint32_t thread) {
        if (radix == 4) butterflies<4>(tile, layer, load, store, thread, block.threads);
        else if (radix == 3) butterflies<3>(tile, layer, load, store, thread, block.threads);
        else if (radix == 2) butterflies<2>(tile, layer, load, store, thread, block.threads);
        else butterflies<1>(tile, layer, load, store, thread, block.threads);
      });
      done += radix;
    }
    if (!storeDirect) block.phase([&](uint32_t thread) { storeTile(tile, thread, block.threads); });
  }

 private:
  struct Tile {
    uint32_t firstColumn;
    uint64_t* shared;
  };
  // Where a column is: its row, and its block and its first word inside the row.
  struct Column {
    Place place;
    uint32_t block, begin;
  };

  AEGIS_DEVICE uint32_t logStride() const { return logRow - firstLayer - layers; }
  AEGIS_DEVICE uint32_t logTileColumns() const { return kTileLayers - layers; }

  AEGIS_DEVICE Column columnOf(uint32_t column) const {
    const uint32_t log = logRow - layers, row = column >> log, inRow = column & ((1u << log) - 1);
    const uint32_t block = inRow >> logStride(), lane = inRow & ((1u << logStride()) - 1);
    return {{row % cut.outerCount, row / cut.outerCount, 0}, block,
            (block << (logRow - firstLayer)) + lane};
  }

  // Element of a column -> place in the tile. Threads of a warp take neighbouring columns where these have
  // a stride, neighbouring elements where not, and find neighbouring words either way.
  AEGIS_DEVICE uint32_t sharedIndex(uint32_t column, uint32_t element) const {
    const uint32_t index =
        logStride() != 0 ? (element << logTileColumns()) + column : (column << layers) + element;
    return index + (index >> 4);
  }
  AEGIS_DEVICE void split(uint32_t index, uint32_t logGroups, uint32_t& column, uint32_t& group) const {
    if (logStride() != 0) {
      column = index & ((1u << logTileColumns()) - 1);
      group = index >> logTileColumns();
    } else {
      column = index >> logGroups;
      group = index & ((1u << logGroups) - 1);
    }
  }

  AEGIS_DEVICE uint64_t read(const uint64_t* from, const Prime& prime) const {
    return kind == Transform::kForwardSigned && firstLayer == 0 ? reduceSigned(*from, prime) : *from;
  }
  // A column's words of an operand that lies as the output does.
  struct Target {
    uint64_t* to;
    const uint64_t* a;
    uint64_t scalar;
  };
  AEGIS_DEVICE Target target(const Column& column, uint32_t first, const Prime& prime) const {
    const uint32_t begin = column.begin + (first << logStride());
    Target result{rowOf(launch, cut, out, column.place) + begin, nullptr, 0};
    if constexpr (kind == Transform::kForwardSubScale) {
      result.a = rowOf(launch, cut, operands.a, column.place) + begin;
      result.scalar = reduce(operands.scalars[column.place.limb], prime);
    }
    return result;
  }
  // The inverse's last layer is canonical by itself (nInverse).
  AEGIS_DEVICE void write(const Target& target, uint32_t at, uint64_t word, const Prime& prime) const {
    const bool last = kInverse ? firstLayer != 0 : firstLayer + layers == logRow;
    uint64_t result = last ? reduce(word, prime) : word;
    if constexpr (kind == Transform::kForwardSubScale) {
      Wide product;
      product.addProduct(target.a[at] + prime.q - result, target.scalar);
      result = reduce(product, prime);
    }
    target.to[at] = result;
  }

  AEGIS_DEVICE void loadTile(const Tile& tile, uint32_t thread, uint32_t threads) const {
    for (uint32_t i = thread; i < kTileWords; i += threads) {
      uint32_t index, element;
      split(i, layers, index, element);
      if (tile.firstColumn + index >= columns) continue;
      const Column column = columnOf(tile.firstColumn + index);
      tile.shared[sharedIndex(index, element)] =
          read(rowOf(launch, cut, in, column.place) + column.begin + (element << logStride()),
               ring.primes[launch.limbs[column.place.limb]]);
    }
  }

  AEGIS_DEVICE void storeTile(const Tile& tile, uint32_t thread, uint32_t threads) const {
    for (uint32_t i = thread; i < kTileWords; i += threads) {
      uint32_t index, element;
      split(i, layers, index, element);
      if (tile.firstColumn + index >= columns) continue;
      const Column column = columnOf(tile.firstColumn + index);
      const Prime& prime = ring.primes[launch.limbs[column.place.limb]];
      write(target(column, element, prime), 0, tile.shared[sharedIndex(index, element)], prime);
    }
  }

  // Layers [layer, layer + R) of the pass on all groups of 2^R words that meet in them.
  template <uint32_t R>
  AEGIS_DEVICE void butterflies(const Tile& tile, uint32_t layer, bool load, bool store, uint32_t thread,
                                uint32_t threads) const {
    const uint32_t logDistance = layers - layer - R;
    for (uint32_t i = thread; i < kTileWords >> R; i += threads) {
      uint32_t index, group;
      split(i, layers - R, index, group);
      if (tile.firstColumn + index >= columns) continue;
      const Column column = columnOf(tile.firstColumn + index);
      const uint16_t limb = launch.limbs[column.place.limb];
      const Prime& prime = ring.primes[limb];
      const uint32_t block = group >> logDistance;  // among the 2^layer blocks of the column
      const uint32_t first = (block << (logDistance + R)) + (group & ((1u << logDistance) - 1));
      uint64_t x[1u << R];
      if (load) {
        const uint64_t* from = rowOf(launch, cut, in, column.place) + column.begin + (first << logStride());
        AEGIS_UNROLL
        for (uint32_t j = 0; j < 1u << R; j++) x[j] = read(from + (j << (logDistance + logStride())), prime);
      } else {
        AEGIS_UNROLL
        for (uint32_t j = 0; j < 1u << R; j++)
          x[j] = tile.shared[sharedIndex(index, first + (j << logDistance))];
      }
      const NttTable& table = ring.ntt[limb];
      const uint32_t rowBlock = (column.block << layer) + block;
      if (kInverse) inverseGroup<R>(x, table, prime.q, layer, rowBlock);
      else forwardGroup<R>(x, table, prime.q, layer, rowBlock);
      if (store) {
        const Target to = target(column, first, prime);
        AEGIS_UNROLL
        for (uint32_t j = 0; j < 1u << R; j++) write(to, j << (logDistance + logStride()), x[j], prime);
      } else {
        AEGIS_UNROLL
        for (uint32_t j = 0; j < 1u << R; j++)
          tile.shared[sharedIndex(index, first + (j << logDistance))] = x[j];
      }
    }
  }

  // Layer `layer` + s of the pass and those after it. rowBlock: the group's block among the
  // 2^(firstLayer + layer) blocks of the row. Layer l of a row uses twiddle 2^l + block. s is a template
  // argument so that x stays in registers.
  template <uint32_t R, uint32_t s = 0>
  AEGIS_DEVICE void forwardGroup(uint64_t* x, const NttTable& table, uint64_t q, uint32_t layer,
                                 uint32_t rowBlock) const {
    constexpr uint32_t half = 1u << (R - 1 - s);
    const uint32_t entry = (1u << (firstLayer + layer + s)) + (rowBlock << s);
    AEGIS_UNROLL
    for (uint32_t b = 0; b < 1u << s; b++) {
      const uint64_t w = table.words.forward[entry + b], companion = table.words.forwardCompanion[entry + b];
      AEGIS_UNROLL
      for (uint32_t k = 0; k < half; k++) {
        uint64_t &u = x[2 * b * half + k], &v = x[2 * b * half + k + half];
        const uint64_t x0 = narrowed(u, q), y = mulShoupLazy(v, w, companion, q);
        v = x0 + 2 * q - y;
        u = x0 + y;
      }
    }
    if constexpr (s + 1 < R) forwardGroup<R, s + 1>(x, table, q, layer, rowBlock);
  }

  // Layer `layer` + s of the pass and those before it.
  template <uint32_t R, uint32_t s = R - 1>
  AEGIS_DEVICE void inverseGroup(uint64_t* x, const NttTable& table, uint64_t q, uint32_t layer,
                                 uint32_t rowBlock) const {
    constexpr uint32_t half = 1u << (R - 1 - s);
    const uint32_t entry = (1u << (firstLayer + layer + s)) + (rowBlock << s);
    // Words are below it.
    const uint64_t bound = Multiplication::kNarrow ? 2 * q : q << (layers - 1 - layer - s);
    if (s == 0 && firstLayer + layer == 0) return lastLayer<R>(x, table, q, bound);
    AEGIS_UNROLL
    for (uint32_t b = 0; b < 1u << s; b++) {
      const uint64_t w = table.words.inverse[entry + b], companion = table.words.inverseCompanion[entry + b];
      AEGIS_UNROLL
      for (uint32_t k = 0; k < half; k++) {
        uint64_t &u = x[2 * b * half + k], &v = x[2 * b * half + k + half];
        const uint64_t difference = u + bound - v;
        u = narrowed(u + v, q);
        v = mulShoupLazy(difference, w, companion, q);
      }
    }
    if constexpr (s > 0) inverseGroup<R, s - 1>(x, table, q, layer, rowBlock);
  }

  // The inverse's layer 0 carries the division by N. Canonical.
  template <uint32_t R>
  AEGIS_DEVICE void lastLayer(uint64_t* x, const NttTable& table, uint64_t q, uint64_t bound) const {
    const Twiddles<uint64_t>& w = table.words;
    constexpr uint32_t half = 1u << (R - 1);
    AEGIS_UNROLL
    for (uint32_t k = 0; k < half; k++) {
      const uint64_t u = x[k], v = x[k + half];
      x[k] = mulShoup(u + v, w.nInverse, w.nInverseCompanion, q);
      x[k + half] = mulShoup(u + bound - v, w.nInverseTwiddle, w.nInverseTwiddleCompanion, q);
    }
  }
};

}  // namespace AEGIS_CUDA_MULTIPLY
}  // namespace aegis::cuda

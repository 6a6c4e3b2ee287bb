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
// What words are inside a transform, and their bounds: butterfly.h. They become canonical when a row leaves
// its last pass.
//
// Floors of one row of N words, N/2 log2 N butterflies: in shoup64 5 N log2 N IMAD and 7 N for the last
// reduction, in fp64 5 N log2 N operations in double precision (settling and ratios of twiddles included),
// both 64 a clock on an H100; 16 N bytes a pass, 32 N in two. Twiddles of a direction (16 N bytes with
// companions, 8 N in fp64, most of them in the contiguous pass) come from the second-level cache, since
// blocks go through the batch before the next limb. At N = 2^16 on an H100: operations 0.40 us, memory 0.63
// us a row.
//
// nttSubScale: 21 N IMAD (fp64: 9 N operations) and 8 N bytes more, 40 N bytes in two passes (0.78 us); ntt
// and then subScale move 56 N (1.10 us).
// On that H100 a row in a batch of 120 takes 1.38 us, inverse 1.54 us, in form fp64; 1.80 and 2.07 us in
// shoup64 (docs/measurements.md).
#pragma once

#include "backends/cuda/batch.h"
#include "backends/cuda/butterfly.h"

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

  using Row = Butterfly<MultiplyForm::AEGIS_CUDA_MULTIPLY>;
  using Word = typename Row::Word;

  AEGIS_DEVICE Row rowOfLimb(uint16_t limb) const { return {ring.ntt[limb], ring.primes[limb]}; }
  AEGIS_DEVICE bool first() const { return kInverse ? firstLayer + layers == logRow : firstLayer == 0; }
  AEGIS_DEVICE bool last() const { return kInverse ? firstLayer == 0 : firstLayer + layers == logRow; }

  AEGIS_DEVICE Word read(const uint64_t* from, const Prime& prime) const {
    if (!first()) return Row::unpacked(*from);
    return Row::ofResidue(kind == Transform::kForwardSigned ? reduceSigned(*from, prime) : *from);
  }
  // A column's words of an operand that lies as the output does.
  struct Target {
    uint64_t* to;
    const uint64_t* a;
    typename Row::SubScale subScale;
  };
  AEGIS_DEVICE Target target(const Column& column, uint32_t element, const Row& row) const {
    const uint32_t begin = column.begin + (element << logStride());
    Target result{rowOf(launch, cut, out, column.place) + begin, nullptr, {}};
    if constexpr (kind == Transform::kForwardSubScale) {
      result.a = rowOf(launch, cut, operands.a, column.place) + begin;
      result.subScale = typename Row::SubScale(operands.scalars[column.place.limb], row);
    }
    return result;
  }
  AEGIS_DEVICE void write(const Target& target, uint32_t at, Word word, const Row& row) const {
    if constexpr (kind == Transform::kInverse)
      target.to[at] = last() ? row.ofLast(word) : Row::packed(row.betweenInverses(word));
    else if constexpr (kind == Transform::kForwardSubScale)
      target.to[at] = target.subScale(target.a[at], word, row);
    else target.to[at] = last() ? row.canonical(word) : Row::packed(word);
  }

  AEGIS_DEVICE void loadTile(const Tile& tile, uint32_t thread, uint32_t threads) const {
    for (uint32_t i = thread; i < kTileWords; i += threads) {
      uint32_t index, element;
      split(i, layers, index, element);
      if (tile.firstColumn + index >= columns) continue;
      const Column column = columnOf(tile.firstColumn + index);
      tile.shared[sharedIndex(index, element)] =
          Row::packed(read(rowOf(launch, cut, in, column.place) + column.begin + (element << logStride()),
                           ring.primes[launch.limbs[column.place.limb]]));
    }
  }

  AEGIS_DEVICE void storeTile(const Tile& tile, uint32_t thread, uint32_t threads) const {
    for (uint32_t i = thread; i < kTileWords; i += threads) {
      uint32_t index, element;
      split(i, layers, index, element);
      if (tile.firstColumn + index >= columns) continue;
      const Column column = columnOf(tile.firstColumn + index);
      const Row row = rowOfLimb(launch.limbs[column.place.limb]);
      write(target(column, element, row), 0, Row::unpacked(tile.shared[sharedIndex(index, element)]), row);
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
      const Row row = rowOfLimb(limb);
      const uint32_t block = group >> logDistance;  // among the 2^layer blocks of the column
      const uint32_t element = (block << (logDistance + R)) + (group & ((1u << logDistance) - 1));
      Word x[1u << R];
      if (load) {
        const uint64_t* from = rowOf(launch, cut, in, column.place) + column.begin + (element << logStride());
        AEGIS_UNROLL
        for (uint32_t j = 0; j < 1u << R; j++)
          x[j] = read(from + (j << (logDistance + logStride())), ring.primes[limb]);
      } else {
        AEGIS_UNROLL
        for (uint32_t j = 0; j < 1u << R; j++)
          x[j] = Row::unpacked(tile.shared[sharedIndex(index, element + (j << logDistance))]);
      }
      const uint32_t rowBlock = (column.block << layer) + block;
      if (kInverse) inverseGroup<R>(x, row, layer, rowBlock);
      else forwardGroup<R>(x, row, layer, rowBlock);
      if (store) {
        const Target to = target(column, element, row);
        AEGIS_UNROLL
        for (uint32_t j = 0; j < 1u << R; j++) write(to, j << (logDistance + logStride()), x[j], row);
      } else {
        AEGIS_UNROLL
        for (uint32_t j = 0; j < 1u << R; j++)
          tile.shared[sharedIndex(index, element + (j << logDistance))] = Row::packed(x[j]);
      }
    }
  }

  // Layer `layer` + s of the pass and those after it. rowBlock: the group's block among the
  // 2^(firstLayer + layer) blocks of the row. Layer l of a row uses twiddle 2^l + block. s is a template
  // argument so that x stays in registers.
  template <uint32_t R, uint32_t s = 0>
  AEGIS_DEVICE void forwardGroup(Word* x, const Row& row, uint32_t layer, uint32_t rowBlock) const {
    constexpr uint32_t half = 1u << (R - 1 - s);
    const uint32_t entry = (1u << (firstLayer + layer + s)) + (rowBlock << s);
    AEGIS_UNROLL
    for (uint32_t b = 0; b < 1u << s; b++) {
      const auto twiddle = row.forwardTwiddle(entry + b);
      AEGIS_UNROLL
      for (uint32_t k = 0; k < half; k++) {
        Word &u = x[2 * b * half + k], &v = x[2 * b * half + k + half];
        row.forward(u, v, twiddle);
        if constexpr (s + 1 == R) row.settleForward(u), row.settleForward(v);
      }
    }
    if constexpr (s + 1 < R) forwardGroup<R, s + 1>(x, row, layer, rowBlock);
  }

  // Layer `layer` + s of the pass and those before it.
  template <uint32_t R, uint32_t s = R - 1>
  AEGIS_DEVICE void inverseGroup(Word* x, const Row& row, uint32_t layer, uint32_t rowBlock) const {
    constexpr uint32_t half = 1u << (R - 1 - s);
    const uint32_t entry = (1u << (firstLayer + layer + s)) + (rowBlock << s), done = layers - 1 - layer - s;
    if (s == 0 && firstLayer + layer == 0) {
      AEGIS_UNROLL
      for (uint32_t k = 0; k < half; k++) row.last(x[k], x[k + half], done);
      return;
    }
    AEGIS_UNROLL
    for (uint32_t b = 0; b < 1u << s; b++) {
      const auto twiddle = row.inverseTwiddle(entry + b);
      AEGIS_UNROLL
      for (uint32_t k = 0; k < half; k++) {
        Word& u = x[2 * b * half + k];
        row.inverse(u, x[2 * b * half + k + half], twiddle, done);
        if constexpr (s == 0 || R - s == 2) row.settleSum(u);
      }
    }
    if constexpr (s > 0) inverseGroup<R, s - 1>(x, row, layer, rowBlock);
  }
};

}  // namespace AEGIS_CUDA_MULTIPLY
}  // namespace aegis::cuda

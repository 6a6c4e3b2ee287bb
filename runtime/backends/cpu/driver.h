// A KernelTable from the row operations of one instruction set: cuts launches into pieces of rows for the
// thread pool. Included by dispatch.cc only, which is compiled for the baseline machine.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "backends/cpu/batch.h"
#include "backends/cpu/expand_plain.h"
#include "backends/cpu/row_ops.h"
#include "ckks/ring.h"
#include "hal/thread_pool.h"
#include "support/error.h"

namespace aegis::cpu {

constexpr size_t kElementwiseWords = 4096;
// Output from this size on (8 MiB) has left the caches, mostly, when the next command reads it. Written past
// them, it displaces nothing there, and its old lines are not read first.
constexpr size_t kStreamedWords = size_t(1) << 20;

// An output piece: words [begin, begin + words) of limb `limb` at flat outer index `outer`.
struct Piece {
  size_t outer;
  uint32_t limb;
  size_t begin, words;
};

// Limb by limb, then piece by piece, batch fastest: what a limb or a piece shares over the batch (twiddles, a
// broadcast operand, a plaintext) stays in cache. workPerWord scales the grain.
template <class Visit>
void forEachPiece(const RingContext& ring, ThreadPool& pool, const Launch& launch, size_t pieceWords,
                  size_t workPerWord, const Visit& visit) {
  const size_t n = ring.degree(), words = std::min(n, pieceWords), pieces = n / words,
               outer = outerCount(launch);
  const size_t count = outer * pieces * launch.limbCount;
  const size_t grain = std::max<size_t>(1, kGrainWords / (words * std::max<size_t>(workPerWord, 1)));
  pool.parallelFor(count, grain, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; i++)
      visit(Piece{i % outer, uint32_t(i / outer / pieces), i / outer % pieces * words, words});
    // Streamed rows leave the write-combining buffers at a locked instruction or mfence, which this is.
    std::atomic_thread_fence(std::memory_order_seq_cst);
  });
}

// Threads take rows in turn: the row that this thread is likely to take after p's; p itself at the end.
inline Piece rowAhead(const Launch& launch, const ThreadPool& pool, const Piece& p) {
  const size_t outer = outerCount(launch), next = p.limb * outer + p.outer + pool.threadCount();
  return next < outer * launch.limbCount ? Piece{next % outer, uint32_t(next / outer), p.begin, p.words} : p;
}

template <class Operand>
struct Located {
  Operand operand;
  std::vector<ptrdiff_t> outer, reduced;
  Located(const Launch& launch, const Operand& x)
      : operand(x), outer(outerOffsets(launch, x.strides)), reduced(reduceOffsets(launch, x.strides)) {}
  auto* row(const Piece& p) const {
    return operand.base + outer[p.outer] + ptrdiff_t(p.limb) * operand.limbStride;
  }
  auto* at(const Piece& p) const { return row(p) + p.begin; }
};

// Output strides along reduced dimensions are 0 by contract; only the outer ones are read.
struct Output {
  Rows operand;
  std::vector<ptrdiff_t> outer;
  Output(const Launch& launch, const Rows& x) : operand(x), outer(outerOffsets(launch, x.strides)) {}
  uint64_t* row(const Piece& p) const {
    return operand.base + outer[p.outer] + ptrdiff_t(p.limb) * operand.limbStride;
  }
  uint64_t* at(const Piece& p) const { return row(p) + p.begin; }
};

// How a launch writes `rows` rows for each limb and outer index.
inline Write writeOf(const RingContext& ring, const Launch& launch, const Rows& out, size_t rows) {
  if (launch.accumulate) return Write::kAccumulate;
  const size_t words = outerCount(launch) * launch.limbCount * rows * ring.degree();
  if (words < kStreamedWords) return Write::kNew;
  // Offsets are multiples of rows, and rows of 64 bytes.
  ptrdiff_t strides = out.limbStride | out.componentStride;
  for (uint32_t d = 0; d < outerRank(launch); d++) strides |= out.strides[d];
  const bool aligned =
      (reinterpret_cast<uintptr_t>(out.base) | uintptr_t(strides) * sizeof(uint64_t)) % 64 == 0;
  return aligned ? Write::kStream : Write::kNew;
}

inline uint32_t plainShift(const RingContext& ring, const PlainRows& p) {
  AEGIS_INVARIANT(p.rowWords != 0 && ring.degree() % p.rowWords == 0);
  return uint32_t(__builtin_ctz(ring.degree() / p.rowWords));
}

// The entry of a per-index argument (key, Galois element) for each outer and each reduced index; one of them
// is all 0.
struct IndexAlong {
  std::vector<uint32_t> outer, reduced;
  IndexAlong(const Launch& launch, uint32_t dim)
      : outer(outerCount(launch), 0), reduced(reduceCount(launch), 0) {
    if (dim == ~0u) return;
    AEGIS_INVARIANT(dim < launch.rank);
    const bool isOuter = dim < outerRank(launch);
    std::vector<uint32_t>& table = isOuter ? outer : reduced;
    for (size_t i = 0; i < table.size(); i++)
      table[i] = indexOf(launch, dim, isOuter ? outerRank(launch) : launch.rank, i);
  }
  uint32_t operator()(size_t o, size_t r) const { return outer[o] + reduced[r]; }
};

inline Rows fromLimb(Rows x, uint32_t limb) {
  x.base += ptrdiff_t(limb) * x.limbStride;
  return x;
}

template <const RowOps& ops>
struct Driver {
  // A kernel on plaintexts held as coefficients: expanded, a few limbs at a time.
  template <void (*kernel)(const RingContext&, ThreadPool&, const Launch&, Rows, Rows, PlainRows)>
  static void expanded(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a,
                       const PlainRows& plain) {
    PlainExpander(ops, ring, launch, plain)
        .forEachPart(pool, [&](const Launch& part, uint32_t first, const PlainRows& rows) {
          kernel(ring, pool, part, fromLimb(out, first), fromLimb(a, first), rows);
        });
  }

  // Sums of more than kMaxTerms products are cut; each cut is reduced and accumulated to.
  static void dot(uint64_t* out, const std::vector<Term>& terms, size_t words, uint32_t shift, Write write,
                  const Prime& prime) {
    size_t done = 0;
    do {
      const size_t count = std::min(terms.size() - done, kMaxTerms);
      ops.dot(out, terms.data() + done, count, words, shift, done == 0 ? write : Write::kAccumulate, prime);
      done += count;
    } while (done < terms.size());
  }

  static void zero(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out) {
    const Output to(launch, out);
    forEachPiece(ring, pool, launch, kElementwiseWords, 1,
                 [&](const Piece& p) { std::memset(to.at(p), 0, p.words * sizeof(uint64_t)); });
  }

  static void copy(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a) {
    const Output to(launch, out);
    const Located<Rows> from(launch, a);
    const size_t terms = from.reduced.size();
    forEachPiece(ring, pool, launch, kElementwiseWords, terms, [&](const Piece& p) {
      if (terms == 1 && !launch.accumulate) {
        std::memmove(to.at(p), from.at(p) + from.reduced[0], p.words * sizeof(uint64_t));
        return;
      }
      std::vector<const uint64_t*> rows(terms);
      for (size_t r = 0; r < terms; r++) rows[r] = from.at(p) + from.reduced[r];
      size_t done = 0;
      do {
        const size_t count = std::min(terms - done, kMaxAddends);
        ops.sum(to.at(p), rows.data() + done, count, p.words, launch.accumulate || done != 0,
                ring.prime(launch.limbs[p.limb]));
        done += count;
      } while (done < terms);
    });
  }

  template <auto RowOps::* op>
  static void binary(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a,
                     Rows b) {
    const Output to(launch, out);
    const Located<Rows> x(launch, a), y(launch, b);
    forEachPiece(ring, pool, launch, kElementwiseWords, 1, [&](const Piece& p) {
      (ops.*op)(to.at(p), x.at(p), y.at(p), p.words, ring.prime(launch.limbs[p.limb]));
    });
  }

  static void addPlain(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a,
                       PlainRows plain) {
    if (plain.coefficients) return expanded<addPlain>(ring, pool, launch, out, a, plain);
    const Output to(launch, out);
    const Located<Rows> x(launch, a);
    const Located<PlainRows> y(launch, plain);
    const uint32_t shift = plainShift(ring, plain);
    forEachPiece(ring, pool, launch, kElementwiseWords, 1, [&](const Piece& p) {
      ops.addPlain(to.at(p), x.at(p), y.row(p) + (p.begin >> shift), p.words, shift,
                   ring.prime(launch.limbs[p.limb]));
    });
  }

  static void contract(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a,
                       PlainRows plain) {
    if (plain.coefficients) return expanded<contract>(ring, pool, launch, out, a, plain);
    const Output to(launch, out);
    const Located<Rows> x(launch, a);
    const Located<PlainRows> y(launch, plain);
    const uint32_t shift = plainShift(ring, plain);
    const size_t count = x.reduced.size();
    const Write write = writeOf(ring, launch, out, 1);
    forEachPiece(ring, pool, launch, kPieceWords, count, [&](const Piece& p) {
      thread_local std::vector<Term> terms;
      terms.resize(count);
      const uint64_t* b = y.row(p) + (p.begin >> shift);
      for (size_t r = 0; r < count; r++) terms[r] = {x.at(p) + x.reduced[r], b + y.reduced[r]};
      dot(to.at(p), terms, p.words, shift, write, ring.prime(launch.limbs[p.limb]));
    });
  }

  static void tensor(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a,
                     Rows b) {
    const Output to(launch, out);
    const Located<Rows> x(launch, a), y(launch, b);
    const size_t count = x.reduced.size();
    const Write write = writeOf(ring, launch, out, 3);
    forEachPiece(ring, pool, launch, kPieceWords, 4 * count, [&](const Piece& p) {
      thread_local std::vector<Term> terms[3];
      for (auto& list : terms) list.clear();
      for (size_t r = 0; r < count; r++) {
        const uint64_t* a0 = x.at(p) + x.reduced[r];
        const uint64_t* b0 = y.at(p) + y.reduced[r];
        const uint64_t* a1 = a0 + a.componentStride;
        const uint64_t* b1 = b0 + b.componentStride;
        terms[0].push_back({a0, b0});
        terms[1].push_back({a0, b1});
        terms[1].push_back({a1, b0});
        terms[2].push_back({a1, b1});
      }
      for (ptrdiff_t c = 0; c < 3; c++)
        dot(to.at(p) + c * out.componentStride, terms[c], p.words, 0, write,
            ring.prime(launch.limbs[p.limb]));
    });
  }

  template <auto RowOps::* op>
  static void transform(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a) {
    const Output to(launch, out);
    const Located<Rows> from(launch, a);
    forEachPiece(ring, pool, launch, ring.degree(), ring.logN() / 2, [&](const Piece& p) {
      (ops.*op)(to.at(p), from.at(p), from.at(rowAhead(launch, pool, p)),
                ring.nttTable(launch.limbs[p.limb], ops.twiddles));
    });
  }

  static void baseConvert(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a,
                          const uint16_t* sourceLimbs, uint32_t sourceCount) {
    const ConversionTable& table = ring.conversion(sourceLimbs, sourceCount, launch.limbs, launch.limbCount);
    AEGIS_INVARIANT(sourceCount <= kMaxTerms);
    const Output to(launch, out);
    const Located<Rows> from(launch, a);
    const Write write = writeOf(ring, launch, out, 1);
    Launch all = launch;  // one piece covers all limbs
    all.limbCount = launch.limbCount == 0 ? 0 : 1;
    forEachPiece(ring, pool, all, kPieceWords, size_t(sourceCount) * launch.limbCount / 2 + 1,
                 [&](const Piece& p) {
                   thread_local std::vector<uint64_t> scratch;
                   thread_local std::vector<const uint64_t*> in;
                   thread_local std::vector<uint64_t*> destination;
                   scratch.resize(size_t(sourceCount) * kPieceWords * 3 + 8);
                   in.resize(sourceCount);
                   destination.resize(launch.limbCount);
                   for (uint32_t i = 0; i < sourceCount; i++)
                     in[i] = from.at(p) + ptrdiff_t(i) * a.limbStride;
                   for (uint32_t j = 0; j < launch.limbCount; j++)
                     destination[j] = to.at(p) + ptrdiff_t(j) * out.limbStride;
                   ops.convert(destination.data(), in.data(), p.words, write, table, scratch.data());
                 });
  }

  static void subScale(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a,
                       Rows b, const uint64_t* scalars) {
    const Output to(launch, out);
    const Located<Rows> x(launch, a), y(launch, b);
    forEachPiece(ring, pool, launch, kElementwiseWords, 1, [&](const Piece& p) {
      const Prime& prime = ring.prime(launch.limbs[p.limb]);
      ops.subScale(to.at(p), x.at(p), y.at(p), p.words, scalars[p.limb] % prime.q, prime);
    });
  }

  // Rows pass from memory to the core once for each operand: the last layers of the transform take a along.
  static void nttSubScale(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a,
                          Rows b, const uint64_t* scalars) {
    const Output to(launch, out);
    const Located<Rows> x(launch, a), y(launch, b);
    forEachPiece(ring, pool, launch, ring.degree(), ring.logN() / 2, [&](const Piece& p) {
      const NttTable& table = ring.nttTable(launch.limbs[p.limb], ops.twiddles);
      ops.nttSubScale(to.at(p), x.at(p), y.at(p), y.at(rowAhead(launch, pool, p)),
                      scalars[p.limb] % table.prime.q, table);
    });
  }

  static void keyProduct(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out,
                         Rows digits, uint32_t digitCount, const KeyView* keys, uint32_t keyDim,
                         const uint16_t* keyRows) {
    const Output to(launch, out);
    const Located<Rows> x(launch, digits);
    const IndexAlong keyIndex(launch, keyDim);
    const size_t count = x.reduced.size(), n = ring.degree();
    const Write write = writeOf(ring, launch, out, 2);
    forEachPiece(ring, pool, launch, kPieceWords, 2 * count * digitCount, [&](const Piece& p) {
      thread_local std::vector<Term> terms;
      terms.resize(count * digitCount);
      for (size_t c = 0; c < 2; c++) {
        for (size_t r = 0; r < count; r++) {
          const KeyView& key = keys[keyIndex(p.outer, r)];
          for (size_t d = 0; d < digitCount; d++) {
            const size_t keyRow = (d * 2 + c) * key.rowCount + key.place(keyRows[p.limb]);
            terms[r * digitCount + d] = {x.at(p) + x.reduced[r] + ptrdiff_t(d) * digits.componentStride,
                                         key.base + keyRow * n + p.begin};
          }
        }
        dot(to.at(p) + ptrdiff_t(c) * out.componentStride, terms, p.words, 0, write,
            ring.prime(launch.limbs[p.limb]));
      }
    });
  }

  static void automorphism(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a,
                           const uint32_t* galois, uint32_t galoisDim) {
    const Output to(launch, out);
    const Located<Rows> from(launch, a);
    const IndexAlong index(launch, galoisDim);
    std::vector<const uint32_t*> tables(galoisDim == ~0u ? 1 : launch.dims[galoisDim]);
    for (size_t i = 0; i < tables.size(); i++) tables[i] = ring.permutation(galois[i]);
    const size_t count = from.reduced.size(), n = ring.degree();
    const Write write = writeOf(ring, launch, out, 1);
    forEachPiece(ring, pool, launch, n, count, [&](const Piece& p) {
      thread_local std::vector<Gather> terms;
      terms.resize(count);
      const Piece next = rowAhead(launch, pool, p);
      for (size_t r = 0; r < count; r++) {
        const uint32_t* table = tables[index(p.outer, r)];
        terms[r] = {from.row(p) + from.reduced[r], table, table + n, from.row(next) + from.reduced[r]};
      }
      size_t done = 0;
      do {
        const size_t part = std::min(count - done, kMaxAddends);
        ops.gather(to.at(p), terms.data() + done, part, p.words, done == 0 ? write : Write::kAccumulate,
                   ring.prime(launch.limbs[p.limb]));
        done += part;
      } while (done < count);
    });
  }

  static void sumRows(uint64_t* out, const uint64_t* const* rows, size_t count, size_t words,
                      const Prime& prime) {
    ops.sum(out, rows, count, words, false, prime);
  }

  static constexpr KernelTable table = {nullptr,
                                        zero,
                                        copy,
                                        binary<&RowOps::add>,
                                        binary<&RowOps::sub>,
                                        addPlain,
                                        contract,
                                        tensor,
                                        transform<&RowOps::ntt>,
                                        transform<&RowOps::intt>,
                                        baseConvert,
                                        subScale,
                                        nttSubScale,
                                        keyProduct,
                                        automorphism,
                                        sumRows};
};

}  // namespace aegis::cpu

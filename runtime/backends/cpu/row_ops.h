// What differs between instruction sets: operations on pieces of rows. driver.h builds a KernelTable on top
// of them. Plain types only (see ckks/tables.h). Inputs are canonical, outputs are canonical. `words` is a
// multiple of 16 unless stated; pieces start at a multiple of 16 words within their row.
#pragma once

#include "ckks/tables.h"

namespace aegis::cpu {

// One product of an inner product: a[k] * b[k >> shift].
struct Term {
  const uint64_t* a;
  const uint64_t* b;
};

// One addend of an automorphism sum: a[index[k]] of a whole row.
struct Gather {
  const uint64_t* a;
  const uint32_t* index;
  const uint32_t* heads;  // every eighth entry of index
  const uint64_t* ahead;  // the row that is read next, or a
};

// How a row operation writes. kStream: past the caches, for output that is larger than they are; out is
// aligned to 64 bytes, and a fence must follow before others read it. Only a hint.
enum class Write { kNew, kAccumulate, kStream };

// Most terms of one `dot`. Bounds: portable 2^28 products below 2^100 in 128 bits; IFMA 4095 low halves below
// 2^52 in 64 bits; AVX2 2^13 pairs of middle products below 2^50 in 64 bits.
constexpr size_t kMaxTerms = 4096 - 16;
// Most addends of one `sum` or `gather`: below 2^14 values below 2^50.
constexpr size_t kMaxAddends = 1 << 13;
// Words of the pieces given to `dot` and `convert`: their accumulators stay in the first-level cache.
constexpr size_t kPieceWords = 512;

struct RowOps {
  const char* name;
  TwiddleForm twiddles;
  void (*add)(uint64_t* out, const uint64_t* a, const uint64_t* b, size_t words, const Prime&);
  void (*sub)(uint64_t* out, const uint64_t* a, const uint64_t* b, size_t words, const Prime&);
  // out[k] = a[k] + b[k >> shift]
  void (*addPlain)(uint64_t* out, const uint64_t* a, const uint64_t* b, size_t words, uint32_t shift,
                   const Prime&);
  // Signed words a as residues; false, and out means nothing, unless all are in [-q, q). Any number of words.
  bool (*signedWords)(uint64_t* out, const uint64_t* a, size_t words, const Prime&);
  // out = (a - b) * scalar, scalar < q
  void (*subScale)(uint64_t* out, const uint64_t* a, const uint64_t* b, size_t words, uint64_t scalar,
                   const Prime&);
  // out (+)= sum rows[i], count <= kMaxAddends
  void (*sum)(uint64_t* out, const uint64_t* const* rows, size_t count, size_t words, bool accumulate,
              const Prime&);
  // Whole rows: out[k] (+)= sum a_i[index_i[k]], count <= kMaxAddends. Index tables are automorphisms:
  // aligned groups of 8 entries go to aligned groups of 8 (of 4 to groups of 4), see avx512ifma/rows.cc.
  void (*gather)(uint64_t* out, const Gather* terms, size_t count, size_t words, Write, const Prime&);
  // out[k] (+)= sum_i a_i[k] b_i[k >> shift], count <= kMaxTerms, words <= kPieceWords
  void (*dot)(uint64_t* out, const Term* terms, size_t count, size_t words, uint32_t shift, Write,
              const Prime&);
  // Pieces of source and destination rows; words <= kPieceWords. scratch: sourceCount * kPieceWords * 3
  // words. kNew or kStream.
  void (*convert)(uint64_t* const* out, const uint64_t* const* in, size_t words, Write,
                  const ConversionTable&, uint64_t* scratch);
  // Whole rows. out may be a. ahead: the row that is likely to be transformed next, or a; only a hint.
  void (*ntt)(uint64_t* out, const uint64_t* a, const uint64_t* ahead, const NttTable&);
  void (*intt)(uint64_t* out, const uint64_t* a, const uint64_t* ahead, const NttTable&);
  // Whole rows: out = (a - NTT(b)) * scalar, scalar < q. out may be b. ahead: as above, for b.
  void (*nttSubScale)(uint64_t* out, const uint64_t* a, const uint64_t* b, const uint64_t* ahead,
                      uint64_t scalar, const NttTable&);
};

}  // namespace aegis::cpu

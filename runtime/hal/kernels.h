// The one table of kernels that every backend fills in: each entry is one plan command (plan.fbs, Opcode).
//
// A kernel works on strided batches of RNS rows. A *row* is one limb of one polynomial: N words of 64 bits,
// canonical residues in [0, q). Batch dimensions come first, limbs are the innermost dimension of a launch:
//
//   row(operand; i0..i_{r-1}, limb j) = operand.base + sum_d i_d * operand.strides[d] + j *
//   operand.limbStride
//
// (strides in words; 0 broadcasts). The last `reduceRank` batch dimensions are summed: the output has stride
// 0
// there and receives the exact modular sum, reduced once at the end. With `accumulate` the output's old value
// is
// part of the sum. Outputs never alias inputs unless the kernel's comment allows it.
//
// Every output is canonical, so all backends agree bit for bit (DESIGN: exactness).
#pragma once

#include <cstddef>
#include <cstdint>

namespace aegis {

struct Prime;       // ckks/tables.h
class RingContext;  // ckks/ring.h: logN, moduli and NTT tables of every prime of the plan
class ThreadPool;   // hal/thread_pool.h

constexpr uint32_t kMaxRank = 6;

// A strided batch of rows.
struct Rows {
  uint64_t* base = nullptr;
  ptrdiff_t strides[kMaxRank] = {};
  ptrdiff_t limbStride = 0;
  ptrdiff_t componentStride = 0;  // between the polynomials c0, c1, c2 of a ciphertext; digits use it too
};

// A strided batch of encoded plaintext rows. A row has rowWords words, rowWords a power of two dividing N:
// 1 for a real constant, 2c for slots of period c, N for any. Canonical residues: the value at NTT index k is
// word k / (N / rowWords). Coefficients: word k is the signed integer coefficient of X^(k N / rowWords), one
// row for all limbs (limbStride 0); reduced modulo a limb's prime, an NTT of rowWords points gives the words
// of the limb's residues.
struct PlainRows {
  const uint64_t* base = nullptr;
  ptrdiff_t strides[kMaxRank] = {};
  ptrdiff_t limbStride = 0;
  uint32_t rowWords = 0;
  bool coefficients = false;
};

struct Launch {
  uint32_t rank = 0;             // number of batch dimensions, reduced ones included
  uint32_t reduceRank = 0;       // how many trailing ones are summed
  uint32_t dims[kMaxRank] = {};
  const uint16_t* limbs = nullptr;  // prime index (into RingContext) of each limb of the operands
  uint32_t limbCount = 0;
  bool accumulate = false;
};

// One key-switching key resident in memory: [digit][component 0..1][row][N], NTT form, canonical. Rows: the
// special
// primes, then q_0..q_level, so that a limb's row does not depend on the key's level. Where only some rows
// are held, they lie in this order without gaps, and rowOf says where each one is.
struct KeyView {
  const uint64_t* base = nullptr;
  uint32_t digitCount = 0;
  uint32_t rowCount = 0;  // rows held: special primes and limbs the key was made at, or some of them
  const uint16_t* rowOf =
      nullptr;  // place of each row of the whole key, kAbsentKeyRow if not held; null: all are

  uint32_t place(uint16_t row) const { return rowOf == nullptr ? row : rowOf[row]; }
};
constexpr uint16_t kAbsentKeyRow = 0xffff;

struct KernelTable {
  const char* name;              // "reference", "avx2", "avx512ifma", "cuda"

  // out = 0. No reduction.
  void (*zero)(const RingContext&, ThreadPool&, const Launch&, Rows out);
  // out (+)= sum a.
  void (*copy)(const RingContext&, ThreadPool&, const Launch&, Rows out, Rows a);
  // out = a + b, out = a - b. out may be a or b. No reduction.
  void (*add)(const RingContext&, ThreadPool&, const Launch&, Rows out, Rows a, Rows b);
  void (*sub)(const RingContext&, ThreadPool&, const Launch&, Rows out, Rows a, Rows b);
  // out = a + p. out may be a. No reduction.
  void (*addPlain)(const RingContext&, ThreadPool&, const Launch&, Rows out, Rows a, PlainRows p);
  // out (+)= sum a * p, pointwise in NTT form: plaintext products, contractions, multiplication by constants.
  void (*contract)(const RingContext&, ThreadPool&, const Launch&, Rows out, Rows a, PlainRows p);
  // (out0, out1, out2) (+)= sum (a0 b0, a0 b1 + a1 b0, a1 b1), components at componentStride. a and b may be
  // the same.
  void (*tensor)(const RingContext&, ThreadPool&, const Launch&, Rows out, Rows a, Rows b);
  // Negacyclic NTT: natural coefficient order in, bit-reversed out, and back. out may be a. No reduction.
  // out[k] = sum_i a[i] psi^{(2 brv(k) + 1) i} with psi the ring's primitive 2N-th root of unity for the
  // limb.
  void (*ntt)(const RingContext&, ThreadPool&, const Launch&, Rows out, Rows a);
  void (*intt)(const RingContext&, ThreadPool&, const Launch&, Rows out, Rows a);
  // Centred RNS base conversion in coefficient form (DESIGN section 3). launch.limbs are the destination
  // limbs;
  // source primes have product D:  y_i = centre([a_i * (D/q_i)^-1] mod q_i) in (-q_i/2, q_i/2),
  // out_j = sum_i y_i * (D/q_i) mod p_j. Integers only: deterministic; the value is a + e*D with |e| <=
  // sources/2.
  // out limb j is stored at j * out.limbStride, source limb i is read at i * a.limbStride. No reduction.
  void (*baseConvert)(const RingContext&, ThreadPool&, const Launch&, Rows out, Rows a,
                      const uint16_t* sourceLimbs, uint32_t sourceCount);
  // out = (a - b) * scalars[j] on limb j (ModDown and rescale: the scalar is the inverse of what was divided
  // out).
  // out may be a or b. No reduction.
  void (*subScale)(const RingContext&, ThreadPool&, const Launch&, Rows out, Rows a, Rows b,
                   const uint64_t* scalars);
  // out = (a - NTT(b)) * scalars[j] on limb j: ntt, then subScale, without a pass of its own. b in natural
  // order, a and out in NTT form. out may be b. No reduction.
  void (*nttSubScale)(const RingContext&, ThreadPool&, const Launch&, Rows out, Rows a, Rows b,
                      const uint64_t* scalars);
  // Key inner product: out component c (+)= sum over digits d, and over reduced dims, of digits[d] *
  // key[d][c].
  // Digit d of the input is at d * digits.componentStride. keys[i] is the key for index i of batch dimension
  // keyDim (one key for all if keyDim is ~0u). keyRows[j] is the whole key's row for limb j of the launch.
  // Only the first digitCount digits are used (lower levels have fewer).
  void (*keyProduct)(const RingContext&, ThreadPool&, const Launch&, Rows out, Rows digits,
                     uint32_t digitCount, const KeyView* keys, uint32_t keyDim, const uint16_t* keyRows);
  // X -> X^g in NTT form, g odd: out[k] (+)= sum a[perm_g(k)]. galois[i] is g for index i of batch dimension
  // galoisDim
  // (galois[0] for all if galoisDim is ~0u). perm_g(k) = brv((g (2 brv(k) + 1) mod 2N - 1) / 2).
  void (*automorphism)(const RingContext&, ThreadPool&, const Launch&, Rows out, Rows a,
                       const uint32_t* galois, uint32_t galoisDim);
  // out = sum of `count` < 2^13 rows, for the reductions of channels (channel.h). out may be one of them.
  void (*sumRows)(uint64_t* out, const uint64_t* const* rows, size_t count, size_t words, const Prime&);
};

// Chosen once per process: the fastest table the machine can run, or the one AEGIS_KERNELS names
// ("reference", "avx2", "avx512ifma"); throws Error (support/error.h) if that one cannot run here.
const KernelTable& cpuKernels();
const KernelTable* findCpuKernels(const char* name);  // nullptr if unknown or not supported by this machine

}  // namespace aegis

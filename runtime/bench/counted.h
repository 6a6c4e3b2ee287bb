// Kernels that count what they are asked for: the floors of a composite.
#pragma once

#include "bench/machines.h"
#include "ckks/ring.h"

namespace aegis {

// In the units of docs/cost-model.md: modular multiply-adds, and bytes between memory and the machine's units
// with every operand of a command once and nothing kept from one command to the next.
struct Floors {
  double operations = 0, bytes = 0;
};

class Counted {
 public:
  Counted(Machine& machine, const RingContext& ring)
      : machine_(machine), ring_(ring), table_(machine.kernels()), pool_(machine.pool()) {}

  Floors floors;

  void add(const Launch& l, Rows out, Rows a, Rows b) {
    count(l, 0, 0.25, 1, rows(l, a, 1) + rows(l, b, 1));
    table_.add(ring_, pool_, l, out, a, b);
  }
  void copy(const Launch& l, Rows out, Rows a) {
    count(l, 0.1, 0, 1, rows(l, a, 1));
    table_.copy(ring_, pool_, l, out, a);
  }
  // Residues.
  void contract(const Launch& l, Rows out, Rows a, PlainRows p) {
    count(l, 0.5, 0.5, 1, rows(l, a, 1) + rows(l, p, 1) * p.rowWords / double(ring_.degree()));
    table_.contract(ring_, pool_, l, out, a, p);
  }
  void tensor(const Launch& l, Rows out, Rows a, Rows b) {
    count(l, 4 * 0.5 / 3, 0.5, 3, rows(l, a, 2) + rows(l, b, 2));
    table_.tensor(ring_, pool_, l, out, a, b);
  }
  void ntt(const Launch& l, Rows out, Rows a) {
    transform(l, rows(l, a, 1), 0.25, 0);
    table_.ntt(ring_, pool_, l, out, a);
  }
  void intt(const Launch& l, Rows out, Rows a) {
    transform(l, rows(l, a, 1), 0.25, 0);
    table_.intt(ring_, pool_, l, out, a);
  }
  void nttSubScale(const Launch& l, Rows out, Rows a, Rows b, const uint64_t* scalars) {
    transform(l, rows(l, b, 1), 1.25, rows(l, a, 1));
    table_.nttSubScale(ring_, pool_, l, out, a, b, scalars);
  }
  void subScale(const Launch& l, Rows out, Rows a, Rows b, const uint64_t* scalars) {
    count(l, 0, 1, 1, rows(l, a, 1) + rows(l, b, 1));
    table_.subScale(ring_, pool_, l, out, a, b, scalars);
  }
  void baseConvert(const Launch& l, Rows out, Rows a, const uint16_t* sources, uint32_t sourceCount) {
    const double batch = elements(l, out.strides, 0, l.rank), n = ring_.degree();
    floors.operations += n * batch * (0.5 * sourceCount * l.limbCount + 0.75 * (sourceCount + l.limbCount));
    floors.bytes += 8 * n * batch * (sourceCount + l.limbCount);
    table_.baseConvert(ring_, pool_, l, out, a, sources, sourceCount);
  }
  void keyProduct(const Launch& l, Rows out, Rows digits, uint32_t digitCount, const KeyView* keys,
                  uint32_t keyDim, const uint16_t* keyRows) {
    const double keyCount = keyDim == ~0u ? 1 : l.dims[keyDim];
    count(l, 0.5 * digitCount, 0.5, 2, rows(l, digits, digitCount) + 2 * digitCount * keyCount * l.limbCount);
    table_.keyProduct(ring_, pool_, l, out, digits, digitCount, keys, keyDim, keyRows);
  }
  void automorphism(const Launch& l, Rows out, Rows a, const uint32_t* galois, uint32_t galoisDim) {
    count(l, 0.1, 0, 1, rows(l, a, 1));
    table_.automorphism(ring_, pool_, l, out, a, galois, galoisDim);
  }

 private:
  // Indices of dimensions [begin, end) that name rows of their own.
  static double elements(const Launch& l, const ptrdiff_t* strides, uint32_t begin, uint32_t end) {
    double count = 1;
    for (uint32_t d = begin; d < end; d++) count *= strides[d] == 0 ? 1 : l.dims[d];
    return count;
  }
  template <class Operand>
  static double rows(const Launch& l, const Operand& x, double components) {
    return elements(l, x.strides, 0, l.rank) * (x.limbStride == 0 ? 1 : l.limbCount) * components;
  }
  static double product(const Launch& l, uint32_t begin, uint32_t end) {
    double count = 1;
    for (uint32_t d = begin; d < end; d++) count *= l.dims[d];
    return count;
  }
  double outputs(const Launch& l) const { return product(l, 0, l.rank - l.reduceRank) * l.limbCount; }

  // Weights of a term and of a word of the output, for outputs of `components` rows.
  void count(const Launch& l, double term, double word, double components, double readRows) {
    const double out = outputs(l) * components, terms = out * product(l, l.rank - l.reduceRank, l.rank);
    const double moved = readRows + out * (l.accumulate ? 2 : 1);
    floors.operations += ring_.degree() * (terms * term + out * word);
    floors.bytes += 8.0 * ring_.degree() * moved;
  }
  void transform(const Launch& l, double readRows, double word, double otherRows) {
    const double n = ring_.degree(), out = outputs(l);
    const double passes = machine_.twoPasses() && ring_.logN() > 12 ? 2 : 1;
    floors.operations += n * out * (ring_.logN() / 2.0 + word);
    floors.bytes += 8 * n * (passes * (readRows + out) + otherRows);
  }

  Machine& machine_;
  const RingContext& ring_;
  const KernelTable& table_;
  ThreadPool& pool_;
};

}  // namespace aegis

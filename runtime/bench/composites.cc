#include "bench/composites.h"

#include <algorithm>
#include <numeric>

namespace aegis {
namespace {

std::vector<uint64_t> primesBelow(uint32_t logN, uint32_t count) {
  std::vector<uint64_t> primes;
  const uint64_t step = uint64_t(2) << logN;
  for (uint64_t q = (uint64_t(1) << 50) - step + 1; primes.size() < count; q -= step)
    if (isPrime(q)) primes.push_back(q);
  return primes;
}

}  // namespace

Composites::Composites(Machine& machine, const BenchShape& shape)
    : machine_(machine),
      shape_(shape),
      n_(uint64_t(1) << shape.logN),
      extended_(shape.limbs + shape.specials),
      digitLimbs_((shape.limbs + shape.dnum - 1) / shape.dnum),
      ring_(shape.logN, primesBelow(shape.logN, extended_)),
      kernels_(machine, ring_),
      a_(allocate(2 * shape.limbs)),
      b_(allocate(2 * shape.limbs)),
      product_(allocate(3 * shape.limbs)),
      coefficients_(allocate(shape.limbs)),
      digits_(allocate(uint64_t(shape.dnum) * extended_)),
      switched_(allocate(2 * extended_ * shape.rotations)),
      quotients_(allocate(2 * shape.limbs * shape.rotations)),
      turned_(allocate(2 * shape.limbs * shape.rotations)),
      key_(allocate(uint64_t(shape.rotations) * shape.dnum * 2 * extended_)),
      constants_(allocate(uint64_t(kTerms) * kOutputs)),
      scalars_(extended_, 1) {
  limbs_.resize(extended_);
  std::iota(limbs_.begin(), limbs_.end(), uint16_t(0));
  fill(a_, shape.limbs);
  fill(b_, shape.limbs);
  fill(key_, extended_);
  fill(digits_, extended_);
  fill(constants_, 1);
  const uint64_t keyWords = uint64_t(shape.dnum) * 2 * extended_ * n_;
  for (uint32_t r = 0; r < shape.rotations; r++) {
    keys_.push_back({key_.words + r * keyWords, shape.dnum, extended_});
    galois_.push_back(uint32_t(powMod(5, r + 1, 2 * n_)));
  }
}

std::vector<BenchRow> Composites::run() {
  commands();
  contraction();
  composites();
  return results_;
}

Composites::Poly Composites::allocate(uint64_t rows) { return {machine_.allocate(rows * n_), rows}; }

// Residues of row r belong to prime r mod period.
void Composites::fill(const Poly& poly, uint32_t period) {
  uint64_t state = 1;
  std::vector<uint64_t> words(n_);
  for (uint64_t row = 0; row < poly.rows; row++) {
    for (uint64_t& word : words) {
      state = state * 6364136223846793005 + 1442695040888963407;
      word = (state >> 14) % ring_.modulus(uint32_t(row % period));
    }
    machine_.write(poly.words + row * n_, words);
  }
}

Launch Composites::launch(uint32_t first, uint32_t count, uint32_t batch) const {
  Launch result;
  result.rank = batch == 0 ? 0 : 1;
  result.dims[0] = batch;
  result.limbs = limbs_.data() + first;
  result.limbCount = count;
  return result;
}

Rows Composites::rows(const Poly& poly, uint64_t row, uint32_t stride, uint32_t component) const {
  Rows result;
  result.base = poly.words + row * n_;
  result.limbStride = ptrdiff_t(n_);
  result.strides[0] = ptrdiff_t(stride * n_);
  result.componentStride = ptrdiff_t(component * n_);
  return result;
}

void Composites::measure(const char* name, const std::function<void()>& call) {
  kernels_.floors = {};
  call();
  const Floors floors = kernels_.floors;
  results_.push_back({name, shape_.limbs, shape_.specials, shape_.dnum, machine_.time(call), floors, false});
}

// A command alone, on `limbs` limbs in all.
void Composites::measureOne(const char* name, uint32_t limbs, const std::function<void()>& call) {
  measure(name, call);
  results_.back().limbs = limbs;
  results_.back().specials = 0;
  results_.back().dnum = 1;
}

void Composites::commands() {
  const uint32_t limbs = shape_.limbs;
  const Launch pair = launch(0, limbs, 2), all = launch(0, extended_, shape_.dnum);
  const Rows a = rows(a_, 0, limbs), b = rows(b_, 0, limbs), out = rows(product_, 0, limbs);
  const Rows digits = rows(digits_, 0, extended_);
  measureOne("ntt", 1, [&] { kernels_.ntt(launch(0, 1), rows(coefficients_, 0), rows(coefficients_, 0)); });
  measureOne("ntt_batch", extended_ * shape_.dnum, [&] { kernels_.ntt(all, digits, digits); });
  measureOne("intt_batch", extended_ * shape_.dnum, [&] { kernels_.intt(all, digits, digits); });
  measureOne("ntt_sub_scale", 2 * limbs, [&] { kernels_.nttSubScale(pair, out, a, out, scalars_.data()); });
  measureOne("sub_scale", 2 * limbs, [&] { kernels_.subScale(pair, out, a, b, scalars_.data()); });
  measureOne("add", 2 * limbs, [&] { kernels_.add(pair, out, a, b); });
  measureOne("copy", 2 * limbs, [&] { kernels_.copy(pair, out, a); });
  measureOne("automorphism", 2 * limbs, [&] { kernels_.automorphism(pair, out, a, galois_.data(), ~0u); });
  measure("tensor", [&] {
    kernels_.tensor(launch(0, limbs), rows(product_, 0, 0, limbs), rows(a_, 0, 0, limbs),
                    rows(b_, 0, 0, limbs));
  });
  measure("base_convert", [&] {
    kernels_.baseConvert(launch(0, limbs, 2), out, rows(switched_, limbs, extended_), limbs_.data() + limbs,
                         shape_.specials);
  });
  measure("key_product", [&] { keyProduct(1); });
  measure("key_product_batch", [&] { keyProduct(shape_.rotations); });
}

// kOutputs sums of kTerms ciphertext polynomials times constants, on one limb: rows of the digits.
void Composites::contraction() {
  const uint64_t terms = std::min<uint64_t>(kTerms, digits_.rows);
  Launch l = launch(0, 1);
  l.rank = 2;
  l.reduceRank = 1;
  l.dims[0] = std::min<uint32_t>(kOutputs, 3 * shape_.limbs);
  l.dims[1] = uint32_t(terms);
  Rows out = rows(product_, 0, 1), a = rows(digits_, 0);
  a.strides[1] = ptrdiff_t(n_);
  PlainRows p;
  p.base = constants_.words;
  p.rowWords = uint32_t(n_);
  p.strides[0] = ptrdiff_t(terms * n_);
  p.strides[1] = ptrdiff_t(n_);
  measureOne("contract", 1, [&] { kernels_.contract(l, out, a, p); });
  p.rowWords = 32;
  p.strides[0] = ptrdiff_t(terms * 32);
  p.strides[1] = 32;
  measureOne("contract_periodic", 1, [&] { kernels_.contract(l, out, a, p); });
}

void Composites::composites() {
  measure("mul_relin", [&] {
    kernels_.tensor(launch(0, shape_.limbs), rows(product_, 0, 0, shape_.limbs),
                    rows(a_, 0, 0, shape_.limbs), rows(b_, 0, 0, shape_.limbs));
    modUp(rows(product_, 2 * shape_.limbs));
    keyProduct(1);
    modDown(1);
    const Rows sum = rows(product_, 0, shape_.limbs);
    kernels_.add(launch(0, shape_.limbs, 2), sum, sum, rows(quotients_, 0, shape_.limbs));
  });
  measure("rotate", [&] {
    modUp(rows(a_, shape_.limbs));
    hoistedRotations(1);
  });
  measure("rotate_hoisted", [&] { hoistedRotations(1); });
  measure("rotate_hoisted_batch", [&] { hoistedRotations(shape_.rotations); });
  measure("rescale", [&] { rescale(); });
}

// Digit d keeps its own limbs and is converted to all others.
void Composites::modUp(Rows c) {
  kernels_.intt(launch(0, shape_.limbs), rows(coefficients_, 0), c);
  for (uint32_t d = 0; d < shape_.dnum; d++) {
    const uint32_t first = d * digitLimbs_, end = std::min(first + digitLimbs_, shape_.limbs);
    Rows own = c;
    own.base += first * n_;
    kernels_.copy(launch(first, end - first), rows(digits_, d * extended_ + first), own);
    for (const auto& [begin, stop] : {std::pair{0u, first}, std::pair{end, extended_}}) {
      if (begin == stop) continue;
      const Rows out = rows(digits_, d * extended_ + begin);
      kernels_.baseConvert(launch(begin, stop - begin), out, rows(coefficients_, first),
                           limbs_.data() + first, end - first);
      kernels_.ntt(launch(begin, stop - begin), out, out);
    }
  }
}

// One decomposition under the keys of several rotations.
void Composites::keyProduct(uint32_t rotations) {
  kernels_.keyProduct(launch(0, extended_, rotations), rows(switched_, 0, 2 * extended_, extended_),
                      rows(digits_, 0, 0, extended_), shape_.dnum, keys_.data(), 0, limbs_.data());
}

// [rotations][2][QP] -> [rotations][2][Q].
void Composites::modDown(uint32_t rotations) {
  const Launch q = launch(0, shape_.limbs, 2 * rotations);
  const Rows specials = rows(switched_, shape_.limbs, extended_), out = rows(quotients_, 0, shape_.limbs);
  kernels_.intt(launch(shape_.limbs, shape_.specials, 2 * rotations), specials, specials);
  kernels_.baseConvert(q, out, specials, limbs_.data() + shape_.limbs, shape_.specials);
  kernels_.nttSubScale(q, out, rows(switched_, 0, extended_), out, scalars_.data());
}

// After ModUp: product with the keys, P c0, ModDown, automorphism.
void Composites::hoistedRotations(uint32_t rotations) {
  keyProduct(rotations);
  PlainRows lifting;
  lifting.base = constants_.words;
  lifting.rowWords = 1;
  lifting.limbStride = 1;
  Launch lift = launch(0, shape_.limbs, rotations);
  lift.accumulate = true;
  kernels_.contract(lift, rows(switched_, 0, 2 * extended_), rows(a_, 0), lifting);
  modDown(rotations);
  Launch turn = launch(0, shape_.limbs, rotations);
  turn.rank = 2;
  turn.dims[1] = 2;
  Rows out = rows(turned_, 0, 2 * shape_.limbs), a = rows(quotients_, 0, 2 * shape_.limbs);
  out.strides[1] = a.strides[1] = ptrdiff_t(shape_.limbs * n_);
  kernels_.automorphism(turn, out, a, galois_.data(), 0);
}

void Composites::rescale() {
  const uint32_t kept = shape_.limbs - 1;
  const Rows last = rows(coefficients_, 0, 1), out = rows(quotients_, 0, shape_.limbs);
  kernels_.intt(launch(kept, 1, 2), last, rows(a_, kept, shape_.limbs));
  kernels_.baseConvert(launch(0, kept, 2), out, last, limbs_.data() + kept, 1);
  kernels_.nttSubScale(launch(0, kept, 2), out, rows(a_, 0, shape_.limbs), out, scalars_.data());
}

}  // namespace aegis

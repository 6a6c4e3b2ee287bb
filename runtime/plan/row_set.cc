#include "plan/row_set.h"

#include <algorithm>

namespace aegis {
namespace {

constexpr int128 kMaxMarkedRows = int128(1) << 28;

int128 floorMod(int128 x, int128 m) { return (x % m + m) % m; }

}  // namespace

void RowSet::add(uint64_t count, int64_t stride) {
  if (count == 1) return;
  if (stride == 0) {
    repeats_ = true;
    return;
  }
  // Counted from its lowest row, a falling dimension is a rising one.
  if (stride < 0) offset_ += int128(count - 1) * stride;
  dimensions_.push_back({count, stride < 0 ? -stride : stride});
}

int128 RowSet::span() const {
  int128 sum = 0;
  for (const Dimension& d : dimensions_) sum += int128(d.count - 1) * d.stride;
  return sum;
}

int128 RowSet::size() const {
  int128 product = 1;
  for (const Dimension& d : dimensions_) product = std::min(product * d.count, int128(1) << 62);
  return product;
}

void RowSet::mark(std::vector<bool>& rows, int128 base, bool& repeated) const {
  std::vector<uint64_t> index(dimensions_.size(), 0);
  int128 row = offset_ - base;
  for (;;) {
    if (row >= 0 && row < int128(rows.size())) {
      repeated |= rows[size_t(row)];
      rows[size_t(row)] = true;
    }
    size_t d = dimensions_.size();
    for (; d > 0; d--) {
      row += dimensions_[d - 1].stride;
      if (++index[d - 1] < dimensions_[d - 1].count) break;
      row -= int128(dimensions_[d - 1].count) * dimensions_[d - 1].stride;
      index[d - 1] = 0;
    }
    if (d == 0) return;
  }
}

bool RowSet::isInjective(CheckBudget& budget) const {
  if (repeats_) return false;
  std::vector<Dimension> sorted = dimensions_;
  std::sort(sorted.begin(), sorted.end(),
            [](const Dimension& x, const Dimension& y) { return x.stride < y.stride; });
  int128 reach = 0;
  bool nested = true;
  for (const Dimension& d : sorted) {
    nested &= d.stride > reach;
    reach += int128(d.count - 1) * d.stride;
  }
  if (nested) return true;
  if (size() > span() + 1) return false;
  budget.charge(uint64_t(std::min(span() + 1, int128(1) << 62)));
  if (span() >= kMaxMarkedRows) fail("R243", "the plan is too complex to be validated");
  std::vector<bool> rows(size_t(span() + 1));
  bool repeated = false;
  mark(rows, offset_, repeated);
  return !repeated;
}

// Strides that the modulus divides do not matter modulo it; the others span an interval each.
bool RowSet::disjointModulo(const RowSet& a, const RowSet& b, int64_t modulus) {
  int128 width[2] = {0, 0};
  for (int side = 0; side < 2; side++)
    for (const Dimension& d : (side == 0 ? a : b).dimensions_)
      if (d.stride % modulus != 0) width[side] += int128(d.count - 1) * d.stride;
  const int128 distance = floorMod(b.offset_ - a.offset_, modulus);
  return distance > width[0] && distance + width[1] < modulus;
}

bool RowSet::meet(const RowSet& a, const RowSet& b, CheckBudget& budget) {
  if (a.last() < b.first() || b.last() < a.first()) return false;
  for (const RowSet* set : {&a, &b})
    for (const Dimension& d : set->dimensions_)
      if (disjointModulo(a, b, d.stride)) return false;
  const int128 base = std::max(a.first(), b.first()), end = std::min(a.last(), b.last()) + 1;
  const int128 work = std::min(a.size() + b.size() + (end - base), int128(1) << 62);
  budget.charge(uint64_t(work));
  if (end - base > kMaxMarkedRows) fail("R243", "the plan is too complex to be validated");
  std::vector<bool> rows(size_t(end - base));
  bool ignored = false, met = false;
  a.mark(rows, base, ignored);

  std::vector<bool> other(rows.size());
  b.mark(other, base, ignored);
  for (size_t i = 0; i < rows.size() && !met; i++) met = rows[i] && other[i];
  return met;
}

}  // namespace aegis

// Sets of rows that a launch touches: offset + sum i_d stride_d, 0 <= i_d < count_d. Do two of them meet, and
// does a launch write one row twice? (Internal to runtime/plan.)
#pragma once

#include <cstdint>
#include <vector>

#include "plan/checks.h"

namespace aegis {

class RowSet {
 public:
  explicit RowSet(int128 offset) : offset_(offset) {}
  void add(uint64_t count, int64_t stride);  // count >= 1

  int128 first() const { return offset_; }
  int128 last() const { return offset_ + span(); }
  int128 size() const;

  // False if two index tuples give the same row.
  bool isInjective(CheckBudget& budget) const;
  // Exact; charges the budget where no short argument decides.
  static bool meet(const RowSet& a, const RowSet& b, CheckBudget& budget);

 private:
  struct Dimension {
    uint64_t count;
    int64_t stride;  // > 0; kept only for counts above 1
  };
  int128 span() const;
  void mark(std::vector<bool>& rows, int128 base, bool& repeated) const;
  static bool disjointModulo(const RowSet& a, const RowSet& b, int64_t modulus);

  int128 offset_;
  std::vector<Dimension> dimensions_;
  bool repeats_ = false;  // a dimension of stride 0
};

}  // namespace aegis

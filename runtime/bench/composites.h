// Commands one by one, and CKKS operations put together from them as plans do it. Keys and ciphertexts are
// random words: times do not depend on values.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/counted.h"
#include "bench/machines.h"
#include "ckks/ring.h"

namespace aegis {

struct BenchShape {
  uint32_t logN = 16, limbs = 24, specials = 6, dnum = 4, rotations = 4;
};

struct BenchRow {
  std::string name;
  uint32_t limbs, specials, dnum;
  Timing timing;
  Floors floors;
  bool rate = false;  // said as operations a second too
};

class Composites {
 public:
  Composites(Machine& machine, const BenchShape& shape);
  std::vector<BenchRow> run();

 private:
  struct Poly {
    uint64_t* words = nullptr;
    uint64_t rows = 0;
  };
  static constexpr uint32_t kOutputs = 8, kTerms = 16;  // of the contraction

  Poly allocate(uint64_t rows);
  void fill(const Poly& poly, uint32_t period);
  Launch launch(uint32_t first, uint32_t count, uint32_t batch = 0) const;
  Rows rows(const Poly& poly, uint64_t row, uint32_t stride = 0, uint32_t component = 0) const;
  void measure(const char* name, const std::function<void()>& call);
  void measureOne(const char* name, uint32_t limbs, const std::function<void()>& call);

  void commands();
  void contraction();
  void composites();
  void modUp(Rows c);
  void keyProduct(uint32_t rotations);
  void modDown(uint32_t rotations);
  void hoistedRotations(uint32_t rotations);
  void rescale();

  Machine& machine_;
  const BenchShape shape_;
  const uint64_t n_;
  const uint32_t extended_, digitLimbs_;
  const RingContext ring_;
  Counted kernels_;
  Poly a_, b_, product_, coefficients_, digits_, switched_, quotients_, turned_, key_, constants_;
  std::vector<KeyView> keys_;
  std::vector<uint32_t> galois_;
  std::vector<uint64_t> scalars_;
  std::vector<uint16_t> limbs_;
  std::vector<BenchRow> results_;
};

}  // namespace aegis

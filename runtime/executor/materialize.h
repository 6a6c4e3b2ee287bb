// Plaintext recipes as slot vectors and as encoded rows, exactly as src/ir/ops/plain.ts states them.
#pragma once

#include <complex>
#include <cstdint>
#include <vector>

#include "ckks/encoder.h"
#include "executor/weights.h"
#include "plan/plan_file.h"

namespace aegis {

// One plaintext of a plan with its weight bound. Element numbers are row-major over the recipe's axes.
class Materializer {
 public:
  // R223: the weight is missing, has another rank, or is smaller than the index tables want.
  Materializer(const PlanFile& file, const Encoder& encoder, uint32_t plaintext, const WeightTensor* weight);

  // Name of the weight tensor that a plaintext reads; empty if none.
  static std::string weightName(const plan::Plaintext& plaintext);

  // One period of slots; not for residues and monomials, which are no slot vectors.
  std::vector<std::complex<double>> slots(uint32_t element) const;
  // [limbs][row_words], or [row_words] coefficients. R402 if a value is not finite or too large.
  void encode(uint32_t element, uint64_t* out) const;

 private:
  void checkVector(const plan::VectorRecipe& recipe) const;
  void checkDiagonals(const plan::DiagonalsRecipe& recipe) const;
  void vector(const plan::VectorRecipe& recipe, uint32_t element,
              std::vector<std::complex<double>>& out) const;
  void diagonal(const plan::DiagonalsRecipe& recipe, uint32_t element,
                std::vector<std::complex<double>>& out) const;
  void dft(const plan::DftRecipe& recipe, uint32_t element, std::vector<std::complex<double>>& out) const;
  const flatbuffers::Vector<int32_t>& table(uint32_t index) const;
  [[noreturn]] void refuseWeight(const std::string& what) const;

  const PlanFile& file_;
  const Encoder& encoder_;
  const plan::Plaintext& plaintext_;
  const WeightTensor* weight_;
  std::vector<uint16_t> limbs_;
};

// Entry (row, column) of the butterfly stages first .. first+count-1 as one matrix; see DftRecipe.
std::complex<double> dftEntry(const SpecialFft& fft, bool inverse, uint32_t first, uint32_t count,
                              uint32_t row, uint32_t column);

}  // namespace aegis

#include "executor/materialize.h"

#include <algorithm>

#include "support/error.h"

namespace aegis {
namespace {

int64_t wrap(int64_t index, int64_t modulus) { return (index % modulus + modulus) % modulus; }

int64_t largest(const flatbuffers::Vector<int32_t>& values) {
  int32_t result = -1;
  for (const int32_t value : values) result = std::max(result, value);
  return result;
}

}  // namespace

std::string Materializer::weightName(const plan::Plaintext& plaintext) {
  if (const auto* recipe = plaintext.recipe_as_VectorRecipe()) return recipe->weight()->str();
  if (const auto* recipe = plaintext.recipe_as_DiagonalsRecipe()) return recipe->weight()->str();
  return "";
}

Materializer::Materializer(const PlanFile& file, const Encoder& encoder, uint32_t plaintext,
                           const WeightTensor* weight)
    : file_(file),
      encoder_(encoder),
      plaintext_(*file.plan().plaintexts()->Get(plaintext)),
      weight_(weight),
      limbs_(plaintext_.limbs()->begin(), plaintext_.limbs()->end()) {
  if (const auto* recipe = plaintext_.recipe_as_VectorRecipe()) checkVector(*recipe);
  if (const auto* recipe = plaintext_.recipe_as_DiagonalsRecipe()) checkDiagonals(*recipe);
}

void Materializer::refuseWeight(const std::string& what) const {
  fail("R223", "weight " + weightName(plaintext_) + " " + what,
       "plan and weights file belong together: copy both");
}

const flatbuffers::Vector<int32_t>& Materializer::table(uint32_t index) const {
  return *file_.plan().tables()->Get(index)->values();
}

void Materializer::checkVector(const plan::VectorRecipe& recipe) const {
  if (weight_ == nullptr) refuseWeight("is missing");
  const int64_t feature = largest(table(recipe.features()));
  const int64_t token = recipe.tokens() < 0 ? 0 : largest(table(uint32_t(recipe.tokens())));
  if (feature >= 0 && token >= 0 && uint64_t(feature + token) >= weight_->data.size())
    refuseWeight("has " + std::to_string(weight_->data.size()) + " values but the plan reads value " +
                 std::to_string(feature + token));
}

void Materializer::checkDiagonals(const plan::DiagonalsRecipe& recipe) const {
  if (weight_ == nullptr) refuseWeight("is missing");
  if (weight_->shape.size() != 2) refuseWeight("is no matrix");
  const int64_t row = largest(table(recipe.rows())), column = largest(table(recipe.columns()));
  if (row >= int64_t(weight_->shape[0]) || column >= int64_t(weight_->shape[1]) ||
      weight_->shape[0] * weight_->shape[1] != weight_->data.size())
    refuseWeight("has shape [" + std::to_string(weight_->shape[0]) + ", " +
                 std::to_string(weight_->shape[1]) + "] but the plan reads [" + std::to_string(row) + ", " +
                 std::to_string(column) + "]");
}

std::vector<std::complex<double>> Materializer::slots(uint32_t element) const {
  std::vector<std::complex<double>> out(plaintext_.period());
  switch (plaintext_.recipe_type()) {
    case plan::Recipe_ConstantRecipe:
      out[0] = plaintext_.recipe_as_ConstantRecipe()->values()->Get(element);
      return out;
    case plan::Recipe_VectorRecipe: vector(*plaintext_.recipe_as_VectorRecipe(), element, out); return out;
    case plan::Recipe_DiagonalsRecipe:
      diagonal(*plaintext_.recipe_as_DiagonalsRecipe(), element, out);
      return out;
    case plan::Recipe_DftRecipe: dft(*plaintext_.recipe_as_DftRecipe(), element, out); return out;
    case plan::Recipe_NONE:
    case plan::Recipe_ResidueRecipe:
    case plan::Recipe_MonomialRecipe: break;
  }
  AEGIS_INVARIANT(!"a recipe with slots");
  return out;
}

// Slot u + period * t: factor * weight[features[e * period + u] + tokens[t]], 0 if either is negative. The
// token table has a part for each token block; the elements of a block follow each other.
void Materializer::vector(const plan::VectorRecipe& recipe, uint32_t element,
                          std::vector<std::complex<double>>& out) const {
  const auto& features = table(recipe.features());
  const auto* tokens = recipe.tokens() < 0 ? nullptr : &table(uint32_t(recipe.tokens()));
  const size_t period = features.size() / plaintext_.elements(), groups = out.size() / period;
  const size_t blocks = tokens == nullptr ? 1 : tokens->size() / groups;
  const size_t first = element / (plaintext_.elements() / blocks) * groups;
  for (size_t t = 0; t < groups; t++) {
    const int64_t token = tokens == nullptr ? 0 : tokens->Get(uint32_t(first + t));
    if (token < 0) continue;
    for (size_t u = 0; u < period; u++) {
      const int64_t feature = features.Get(uint32_t(element * period + u));
      if (feature >= 0) out[u + period * t] = recipe.factor() * weight_->data[size_t(feature + token)];
    }
  }
}

// Axes (out..., giant, in..., baby). At position p, with u = (p - G) mod period: factor * weight[rows[o *
// period + u], columns[i * period + u + G + b]] where 0 <= u + G + b < period and both indices are >= 0.
void Materializer::diagonal(const plan::DiagonalsRecipe& recipe, uint32_t element,
                            std::vector<std::complex<double>>& out) const {
  const auto& rows = table(recipe.rows());
  const auto& columns = table(recipe.columns());
  const int64_t period = int64_t(out.size());
  const uint32_t babies = recipe.baby()->size(), giants = recipe.giant()->size();
  const uint32_t inputs = uint32_t(columns.size() / out.size());
  const int64_t baby = recipe.baby()->Get(element % babies);
  const uint32_t input = element / babies % inputs;
  const int64_t giant = recipe.giant()->Get(element / babies / inputs % giants);
  const uint32_t output = element / babies / inputs / giants;
  for (int64_t u = 0; u < period; u++) {
    const int64_t from = u + giant + baby;
    if (from < 0 || from >= period) continue;
    const int64_t row = rows.Get(uint32_t(output * period + u)),
                  column = columns.Get(uint32_t(input * period + from));
    if (row < 0 || column < 0) continue;
    const double value = weight_->data[size_t(row) * weight_->shape[1] + size_t(column)];
    out[size_t(wrap(u + giant, period))] = recipe.factor() * value;
  }
}

// A butterfly network joins a row and a column by exactly one path, if they agree outside of the stages'
// bits: the entry is the product along it. Forward stage s takes column bit b to row bit a of position s-1,
// with factor (b ? zeta_s^(5^j) : 1) * (a and b ? -1 : 1), where j is the position below that bit, which
// lower stages have already made the row's. The inverse is the conjugate transpose with 1/2 a stage.
std::complex<double> dftEntry(const SpecialFft& fft, bool inverse, uint32_t first, uint32_t count,
                              uint32_t row, uint32_t column) {
  const uint32_t mask = ((uint32_t(1) << count) - 1) << (first - 1);
  if ((row ^ column) & ~mask) return 0;
  if (inverse) {
    const std::complex<double> z = dftEntry(fft, false, first, count, column, row);
    const double scale = 1.0 / double(uint64_t(1) << count);
    return {z.real() * scale, -z.imag() * scale};
  }
  std::complex<double> product = 1;
  for (uint32_t stage = first; stage < first + count; stage++) {
    const uint32_t half = uint32_t(1) << (stage - 1);
    if (!(column & half)) continue;
    product = multiply(product, fft.twiddle(stage, row & (half - 1)));
    if (row & half) product = {-product.real(), -product.imag()};
  }
  return product;
}

// d_r[s] = entry (s, s + r mod S); element (giant G, baby b) holds d_{G+b} at (p - G) mod S, times
// the factor.
void Materializer::dft(const plan::DftRecipe& recipe, uint32_t element,
                       std::vector<std::complex<double>>& out) const {
  const int64_t period = int64_t(out.size()), slots = encoder_.fft().slots();
  const int64_t giant = recipe.giant()->Get(element / recipe.baby()->size());
  const int64_t step = giant + recipe.baby()->Get(element % recipe.baby()->size());
  for (int64_t p = 0; p < period; p++) {
    const int64_t row = wrap(p - giant, period), column = wrap(row + step, slots);
    const std::complex<double> entry = dftEntry(encoder_.fft(), recipe.inverse(), recipe.first(),
                                                recipe.count(), uint32_t(row), uint32_t(column));
    out[size_t(p)] = {entry.real() * recipe.factor(), entry.imag() * recipe.factor()};
  }
}

void Materializer::encode(uint32_t element, uint64_t* out) const {
  const uint32_t words = plaintext_.row_words();
  if (const auto* recipe = plaintext_.recipe_as_MonomialRecipe())
    return encoder_.encodeMonomial(recipe->power(), limbs_, words, out);
  if (plaintext_.coefficients()) return encoder_.encodeCoefficients(slots(element), plaintext_.scale(), out);
  std::vector<uint64_t> constant(limbs_.size());
  if (const auto* recipe = plaintext_.recipe_as_ResidueRecipe()) {
    std::copy(recipe->residues()->begin(), recipe->residues()->end(), constant.begin());
  } else {
    const std::vector<std::complex<double>> values = slots(element);
    if (plaintext_.recipe_type() != plan::Recipe_ConstantRecipe && words > 1)
      return encoder_.encode(std::span<const std::complex<double>>(values), plaintext_.scale(), limbs_, words,
                             out);
    encoder_.encodeConstant(values[0].real(), plaintext_.scale(), limbs_, constant.data());
  }
  for (size_t j = 0; j < limbs_.size(); j++) std::fill_n(out + j * words, words, constant[j]);
}

}  // namespace aegis

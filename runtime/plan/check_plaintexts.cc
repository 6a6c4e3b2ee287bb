// Plaintexts: shapes, recipes and the index tables they read. Weights are checked when a session binds them.
#include <algorithm>
#include <cmath>

#include "plan/checks.h"

namespace aegis {
namespace {

class PlaintextChecker {
 public:
  PlaintextChecker(const CheckContext& context, uint32_t index)
      : context_(context),
        p_(*context.plan.plaintexts()->Get(index)),
        name_("plaintext " + std::to_string(index)) {}

  void run() {
    shape();
    switch (p_.recipe_type()) {
      case plan::Recipe_ConstantRecipe: return constant(*p_.recipe_as_ConstantRecipe());
      case plan::Recipe_VectorRecipe: return vector(*p_.recipe_as_VectorRecipe());
      case plan::Recipe_DiagonalsRecipe: return diagonals(*p_.recipe_as_DiagonalsRecipe());
      case plan::Recipe_DftRecipe: return dft(*p_.recipe_as_DftRecipe());
      case plan::Recipe_ResidueRecipe: return residue(*p_.recipe_as_ResidueRecipe());
      case plan::Recipe_MonomialRecipe: return monomial(*p_.recipe_as_MonomialRecipe());
      case plan::Recipe_NONE: break;
    }
    refuse("R221", "has an unknown recipe");
  }

 private:
  [[noreturn]] void refuse(const char* code, const std::string& what) const {
    fail(code, name_ + " " + what);
  }
  void require(bool condition, const char* code, const std::string& what) const {
    if (!condition) refuse(code, what);
  }

  void shape() {
    require(p_.elements() >= 1, "R220", "has no elements");
    require(isPowerOfTwo(p_.period()) && p_.period() <= context_.slots(), "R220",
            "has period " + std::to_string(p_.period()));
    if (p_.coefficients()) coefficientForm();
    else
      require(p_.limbs()->size() >= 1 && p_.limbs()->size() <= context_.ring.primeCount(), "R220",
              "has " + std::to_string(p_.limbs()->size()) + " limbs");
    context_.budget.charge(1 + p_.limbs()->size());
    for (const uint16_t limb : *p_.limbs())
      require(limb < context_.ring.primeCount(), "R220", "names prime " + std::to_string(limb));
    const uint32_t words = p_.row_words();
    require(words == 1 || words == 2 * p_.period() || words == context_.ring.degree(), "R220",
            "has rows of " + std::to_string(words) + " words at period " + std::to_string(p_.period()));
    require(std::isfinite(p_.scale()) && p_.scale() > 0, "R220", "has scale " + std::to_string(p_.scale()));
    // The whole plan's memory is summed later; this keeps the sums small.
    require(int128(p_.elements()) * rowsPerElement(p_) * words < int128(kMaxRows), "R220", "is too large");
  }

  void coefficientForm() {
    const auto recipe = p_.recipe_type();
    require(recipe == plan::Recipe_VectorRecipe || recipe == plan::Recipe_DiagonalsRecipe, "R220",
            "has coefficients but is no vector of slots");
    require(p_.limbs()->size() == 0, "R220", "has coefficients, which belong to all limbs, and limbs");
    const uint32_t words = p_.row_words();
    require(words == 2 * p_.period() && smallEnoughToExpand(words, context_.ring.degree()), "R220",
            "has coefficients in rows of " + std::to_string(words) + " words");
  }

  const flatbuffers::Vector<int32_t>& table(uint32_t index) const {
    require(index < context_.plan.tables()->size(), "R221", "reads index table " + std::to_string(index));
    return *context_.plan.tables()->Get(index)->values();
  }

  void factor(double value) const {
    require(std::isfinite(value), "R221", "has a factor that is not finite");
  }

  void period1() const {
    require(p_.row_words() != 1 || p_.period() == 1, "R220", "has rows of one word but a period above 1");
  }

  void constant(const plan::ConstantRecipe& recipe) {
    require(recipe.values()->size() == p_.elements(), "R221",
            "has " + std::to_string(recipe.values()->size()) + " constants for " +
                std::to_string(p_.elements()) + " elements");
    require(p_.period() == 1, "R221", "is a constant of period " + std::to_string(p_.period()));
    context_.budget.charge(p_.elements());
    for (const double value : *recipe.values())
      require(std::isfinite(value), "R221", "has a constant that is not finite");
  }

  void vector(const plan::VectorRecipe& recipe) {
    factor(recipe.factor());
    period1();
    uint64_t group = p_.period();
    const uint32_t features = table(recipe.features()).size();
    if (recipe.tokens() >= 0) {
      require(p_.period() == context_.slots(), "R221", "has tokens but does not fill the slots");
      group = features / p_.elements();
      require(isPowerOfTwo(group) && group <= context_.slots(), "R221",
              "has groups of " + std::to_string(group) + " slots");
      const uint32_t tokens = table(uint32_t(recipe.tokens())).size();
      const uint64_t groups = context_.slots() / group;
      require(tokens > 0 && tokens % groups == 0 && p_.elements() % (tokens / groups) == 0, "R221",
              "has " + std::to_string(tokens) + " tokens");
    }
    require(features == group * p_.elements(), "R221",
            "reads a feature table of " + std::to_string(features) + " entries instead of " +
                std::to_string(group * p_.elements()));
  }

  void diagonals(const plan::DiagonalsRecipe& recipe) {
    factor(recipe.factor());
    period1();
    const uint64_t rows = table(recipe.rows()).size(), columns = table(recipe.columns()).size(),
                   period = p_.period();
    require(rows % period == 0 && columns % period == 0, "R221",
            "reads index tables that are no whole periods");
    const int128 elements =
        int128(rows / period) * recipe.giant()->size() * (columns / period) * recipe.baby()->size();
    require(elements == p_.elements(), "R221",
            "has " + std::to_string(p_.elements()) + " elements, not out * giant * in * baby");
  }

  void dft(const plan::DftRecipe& recipe) {
    factor(recipe.factor());
    const uint32_t logSlots = context_.ring.logN() - 1;
    require(recipe.first() >= 1 && recipe.count() >= 1 &&
                uint32_t(recipe.first()) + recipe.count() - 1 <= logSlots,
            "R221",
            "has stages " + std::to_string(recipe.first()) + " + " + std::to_string(recipe.count()) + " of " +
                std::to_string(logSlots));
    // A stage s joins slots of a block of 2^s: so do the products of stages.
    require(p_.period() >> (recipe.first() + recipe.count() - 1) >= 1 && p_.row_words() > 1, "R221",
            "is a transform of period " + std::to_string(p_.period()));
    require(int128(recipe.giant()->size()) * recipe.baby()->size() == p_.elements(), "R221",
            "has " + std::to_string(p_.elements()) + " elements, not giant * baby");
  }

  void residue(const plan::ResidueRecipe& recipe) {
    require(recipe.residues()->size() == p_.limbs()->size(), "R221", "has not one residue for each limb");
    for (uint32_t i = 0; i < p_.limbs()->size(); i++)
      require(recipe.residues()->Get(i) < context_.ring.modulus(p_.limbs()->Get(i)), "R221",
              "has a residue that is not below its prime");
  }

  void monomial(const plan::MonomialRecipe& recipe) {
    require(recipe.power() < 2 * context_.ring.degree(), "R221", "is X^" + std::to_string(recipe.power()));
    require(uint64_t(recipe.power()) * p_.row_words() % context_.ring.degree() == 0, "R221",
            "is X^" + std::to_string(recipe.power()) + ", which rows of " + std::to_string(p_.row_words()) +
                " words do not hold");
  }

  const CheckContext& context_;
  const plan::Plaintext& p_;
  const std::string name_;
};

}  // namespace

void checkPlaintexts(const CheckContext& context) {
  context.budget.charge(context.plan.plaintexts()->size());
  for (uint32_t i = 0; i < context.plan.plaintexts()->size(); i++) PlaintextChecker(context, i).run();
}

}  // namespace aegis

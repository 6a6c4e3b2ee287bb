#include "executor/backend.h"

#include "backends/cpu/device.h"
#include "executor/plaintext_store.h"
#include "support/error.h"

namespace aegis {
namespace {

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const Setting& s)
      : plan_(s.plan), keys_(s.keys), keyBytes_(s.keyBytes),
        plaintexts_(s.plan, s.ranks, s.weights, s.pool, s.loading) {}

  std::unique_ptr<Device> open(uint32_t rank, ThreadPool& pool) override {
    CpuDevice::Statics statics{plaintexts_.plaintexts(), keyViews(plan_, plan_.programs()[rank], keys_)};
    return std::make_unique<CpuDevice>(plan_.ring(), pool, std::move(statics));
  }
  uint64_t staticBytes() const override { return plaintexts_.bytes() + keyBytes_; }
  bool readsKeysInPlace() const override { return true; }

 private:
  const PlanFile& plan_;
  const KeyLookup& keys_;
  const uint64_t keyBytes_;
  const PlaintextStore plaintexts_;
};

void addKeyViews(const PlanFile& plan, const std::vector<CommandSpec>& commands, const KeyLookup& keys,
                 KeyViews& result) {
  for (const CommandSpec& command : commands) {
    addKeyViews(plan, command.body, keys, result);
    if (command.op != plan::Opcode_KeyProduct) continue;
    std::vector<KeyView>& views = result[&command];
    for (const uint32_t key : command.keys) {
      KeyView view = keys(key);
      bool fits = view.base != nullptr && view.digitCount == plan.keyDigitCount(key);
      if (view.rowOf == nullptr) fits &= view.rowCount == plan.keyRowCount(key);
      for (const uint16_t row : command.keyRows) fits = fits && view.place(row) < view.rowCount;
      if (!fits)
        fail("R303", "key " + std::to_string(key) + " does not have the shape that the plan asks for",
             "make new keys with `aegis keygen` for this plan");
      view.base += size_t(command.firstDigit) * 2 * view.rowCount * plan.ring().degree();
      view.digitCount -= command.firstDigit;
      views.push_back(view);
    }
  }
}

}  // namespace

KeyViews keyViews(const PlanFile& plan, const ProgramSpec& program, const KeyLookup& keys) {
  KeyViews result;
  for (const FunctionSpec& function : program.functions) addKeyViews(plan, function.commands, keys, result);
  return result;
}

std::unique_ptr<Backend> makeBackend(const std::string& name, const Backend::Setting& setting) {
  if (name == "cuda") return makeCudaBackend(setting);
  if (name != "cpu") fail("R404", "backend \"" + name + "\" is not built in; this build has: cpu, cuda");
  return std::make_unique<CpuBackend>(setting);
}

}  // namespace aegis

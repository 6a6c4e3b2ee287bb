// Inputs and outputs of the model: slot maps, and the argument buffers of the entry functions.
#include <algorithm>
#include <cmath>

#include "plan/checks.h"

namespace aegis {
namespace {

[[noreturn]] void refuse(const plan::Port& port, const std::string& what) {
  fail("R240", "port " + port.name()->str() + " " + what);
}

const flatbuffers::Vector<int32_t>& table(const CheckContext& context, const plan::Port& port,
                                          uint32_t index) {
  if (index >= context.plan.tables()->size()) refuse(port, "reads index table " + std::to_string(index));
  return *context.plan.tables()->Get(index)->values();
}

// Every pair of a feature and a token occurs, so the largest flat index is the sum of the two largest.
void checkSlotMap(const CheckContext& context, const plan::Port& port) {
  if (!isPowerOfTwo(port.period()) || port.period() > context.slots())
    refuse(port, "has period " + std::to_string(port.period()));
  if (port.elements() == 0) refuse(port, "has no elements");
  const auto& features = table(context, port, port.features());
  const auto& tokens = table(context, port, port.tokens());
  if (features.size() != uint64_t(port.elements()) * port.period())
    refuse(port, "reads a feature table of " + std::to_string(features.size()) + " entries");
  const uint64_t groups = context.slots() / port.period();
  if (tokens.size() == 0 || tokens.size() % groups != 0 || port.elements() % (tokens.size() / groups) != 0)
    refuse(port, "reads a token table of " + std::to_string(tokens.size()) + " entries");
  uint64_t count = 1;
  for (const uint32_t size : *port.shape()) {
    if (size == 0 || count > kMaxRows / size) refuse(port, "has an impossible shape");
    count *= size;
  }
  context.budget.charge(features.size() + tokens.size() + port.shape()->size());
  int64_t feature = -1, token = -1;
  for (const int32_t value : features) feature = std::max<int64_t>(feature, value);
  for (const int32_t value : tokens) token = std::max<int64_t>(token, value);
  if (feature >= 0 && token >= 0 && uint64_t(feature + token) >= count)
    refuse(port, "maps slots to value " + std::to_string(feature + token) + " of " + std::to_string(count));
}

void checkPort(const CheckContext& context, const plan::Port& port) {
  checkSlotMap(context, port);
  if (port.level() > context.plan.parameters()->max_level())
    refuse(port, "has level " + std::to_string(port.level()) + " above the chain");
  if (!std::isfinite(port.scale()) || port.scale() <= 0)
    refuse(port, "has scale " + std::to_string(port.scale()));
  if (!std::isfinite(port.factor()) || port.factor() == 0)
    refuse(port, "has factor " + std::to_string(port.factor()));
  if (!(port.bound() >= 0) || !(port.predicted_error() >= 0)) refuse(port, "has a negative bound");
}

// Indices below `count`, rising; all of them where the plan lists none.
template <class T>
std::vector<T> indices(const CheckContext& context, const flatbuffers::Vector<T>* source, uint64_t count,
                       const std::string& what) {
  std::vector<T> result;
  if (source == nullptr || source->size() == 0) {
    context.budget.charge(count);
    for (uint64_t i = 0; i < count; i++) result.push_back(T(i));
    return result;
  }
  context.budget.charge(source->size());
  for (const T index : *source) {
    if (index >= count || (!result.empty() && index <= result.back()))
      fail("R241", what + " has index " + std::to_string(index) + ", out of order or not below " +
                       std::to_string(count));
    result.push_back(index);
  }
  return result;
}

using PartVector = flatbuffers::Vector<flatbuffers::Offset<plan::PortPart>>;

std::vector<PortPartSpec> decodeParts(const CheckContext& context, const PartVector& parts,
                                      const flatbuffers::Vector<flatbuffers::Offset<plan::Port>>& ports,
                                      const FunctionSpec& entry, const std::string& name,
                                      std::vector<bool>& bound) {
  if (parts.size() != ports.size())
    fail("R241", name + " has parts of " + std::to_string(parts.size()) + " ports instead of " +
                     std::to_string(ports.size()));
  std::vector<PortPartSpec> result;
  for (uint32_t i = 0; i < parts.size(); i++) {
    const plan::PortPart& part = *parts.Get(i);
    const plan::Port& port = *ports.Get(i);
    const std::string what = name + ", port " + port.name()->str();
    if (part.buffer() >= entry.argumentCount)
      fail("R240", what + " names buffer " + std::to_string(part.buffer()) +
                       ", which is no argument of the entry function");
    if (bound[part.buffer()]) fail("R240", what + " shares its buffer with another port");
    bound[part.buffer()] = true;
    PortPartSpec spec{part.buffer(), indices(context, part.elements(), port.elements(), what),
                      indices(context, part.limbs(), port.level() + 1u, what)};
    const uint64_t rows = uint64_t(spec.elements.size()) * 2 * spec.limbs.size();
    if (entry.buffers[spec.buffer].rows != rows)
      fail("R240", what + " has " + std::to_string(rows) + " rows but its buffer has " +
                       std::to_string(entry.buffers[spec.buffer].rows));
    result.push_back(std::move(spec));
  }
  return result;
}

void checkCovered(const CheckContext& context, uint32_t output, const std::vector<ProgramSpec>& programs) {
  const plan::Port& port = *context.plan.outputs()->Get(output);
  const uint64_t limbs = port.level() + 1u;
  context.budget.charge(port.elements() * limbs);
  std::vector<bool> covered(port.elements() * limbs, false);
  for (const ProgramSpec& program : programs) {
    const PortPartSpec& part = program.outputs[output];
    context.budget.charge(part.elements.size() * part.limbs.size());
    for (const uint32_t element : part.elements)
      for (const uint16_t limb : part.limbs) covered[element * limbs + limb] = true;
  }
  if (std::find(covered.begin(), covered.end(), false) != covered.end())
    fail("R241", "output " + port.name()->str() + " is not held completely by all ranks together");
}

}  // namespace

void checkPorts(const CheckContext& context, std::vector<ProgramSpec>& programs) {
  for (const auto* ports : {context.plan.inputs(), context.plan.outputs()})
    for (const plan::Port* port : *ports) checkPort(context, *port);
  for (uint32_t rank = 0; rank < programs.size(); rank++) {
    const plan::Program& source = *context.plan.programs()->Get(rank);
    const std::string name = "program " + std::to_string(rank);
    const FunctionSpec& entry = programs[rank].entry();
    std::vector<bool> bound(entry.argumentCount, false);
    programs[rank].inputs =
        decodeParts(context, *source.inputs(), *context.plan.inputs(), entry, name, bound);
    programs[rank].outputs =
        decodeParts(context, *source.outputs(), *context.plan.outputs(), entry, name, bound);
    if (std::find(bound.begin(), bound.end(), false) != bound.end())
      fail("R240", "an argument of the entry function of " + name + " is no port of the model");
  }
  for (uint32_t i = 0; i < context.plan.outputs()->size(); i++) checkCovered(context, i, programs);
}

}  // namespace aegis

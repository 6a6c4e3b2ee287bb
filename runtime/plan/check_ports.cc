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
  if (tokens.size() != context.slots() / port.period())
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

void checkPort(const CheckContext& context, const plan::Port& port, const std::vector<ProgramSpec>& programs,
               std::vector<bool>& bound) {
  checkSlotMap(context, port);
  if (port.level() > context.plan.parameters()->max_level())
    refuse(port, "has level " + std::to_string(port.level()) + " above the chain");
  if (!std::isfinite(port.scale()) || port.scale() <= 0)
    refuse(port, "has scale " + std::to_string(port.scale()));
  if (!std::isfinite(port.factor()) || port.factor() == 0)
    refuse(port, "has factor " + std::to_string(port.factor()));
  if (!(port.bound() >= 0) || !(port.predicted_error() >= 0)) refuse(port, "has a negative bound");
  const uint64_t rows = uint64_t(port.elements()) * 2 * (port.level() + 1);
  for (const ProgramSpec& program : programs) {
    const FunctionSpec& entry = program.entry();
    if (port.buffer() >= entry.argumentCount)
      refuse(port, "names buffer " + std::to_string(port.buffer()) +
                       ", which is no argument of the entry function");
    if (entry.buffers[port.buffer()].rows != rows)
      refuse(port, "has " + std::to_string(rows) + " rows but its buffer has " +
                       std::to_string(entry.buffers[port.buffer()].rows));
  }
  if (bound[port.buffer()]) refuse(port, "shares its buffer with another port");
  bound[port.buffer()] = true;
}

}  // namespace

void checkPorts(const CheckContext& context, const std::vector<ProgramSpec>& programs) {
  const uint32_t arguments = programs.front().entry().argumentCount;
  std::vector<bool> bound(arguments, false);
  for (const auto* ports : {context.plan.inputs(), context.plan.outputs()})
    for (const plan::Port* port : *ports) checkPort(context, *port, programs, bound);
  for (const ProgramSpec& program : programs)
    if (program.entry().argumentCount != arguments ||
        std::find(bound.begin(), bound.end(), false) != bound.end())
      fail("R240", "an argument of the entry function is no port of the model");
}

}  // namespace aegis

// Programs: functions in order, each decoded and checked (decode_function.cc, decode_launch.cc).
//
// Codes: R230 functions, buffers, frames; R231 dimensions and limbs of a launch; R232 a view leaves its
// buffer; R233 an output overlaps an input or itself; R234 calls; R235 loops; R236 key products; R237
// automorphisms; R238 base conversions and scalars; R239 plaintext operands; R244 unknown command or
// location.
#include "plan/decode_function.h"

namespace aegis {

ProgramSpec decodeProgram(const CheckContext& context, const plan::Program& program, uint32_t rank) {
  if (program.functions()->size() == 0) fail("R230", "program " + std::to_string(rank) + " has no functions");
  std::vector<CheckedFunction> functions;
  context.budget.charge(program.functions()->size());
  for (uint32_t i = 0; i < program.functions()->size(); i++)
    functions.push_back(decodeFunction(context, functions, *program.functions()->Get(i), i, rank));
  if (functions.back().spec.plainArgumentCount != 0)
    fail("R230", "the entry function of program " + std::to_string(rank) + " takes plaintext arguments");
  ProgramSpec result;
  for (CheckedFunction& function : functions) result.functions.push_back(std::move(function.spec));
  return result;
}

}  // namespace aegis

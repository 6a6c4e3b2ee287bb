// Seeded mutation of plans: bytes, and single fields of the structure.
#pragma once

#include <cstdint>

#include "test/client_check.h"

namespace aegis::test {

// `mutations` of either kind. Each must end in a coded error; what is accepted is also run for a moment.
void checkMutations(Checker& checker, uint32_t mutations);

}  // namespace aegis::test

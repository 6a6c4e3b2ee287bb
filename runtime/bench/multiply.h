// Modular multiplications alone, in the forms that a CUDA module may be built with.
#pragma once

#include <vector>

#include "bench/composites.h"

namespace aegis {

// A row multiply_FORM for each form, `operations` multiplications in registers; none on machines without
// CUDA kernels. R408: a form's words differ from those of the first.
std::vector<BenchRow> multiplyRows(Machine& machine);

}  // namespace aegis

// The kernel tables of the CPU backend; dispatch.cc chooses one.
#pragma once

#include "backends/cpu/row_ops.h"
#include "hal/kernels.h"

namespace aegis::cpu {

extern const KernelTable referenceKernels;

extern const RowOps portableOps;
#if defined(__x86_64__)
extern const RowOps avx2Ops;
extern const RowOps avx512ifmaOps;
#endif

}  // namespace aegis::cpu

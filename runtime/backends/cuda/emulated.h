// The CUDA kernels on a machine without a GPU, for the conformance program.
#pragma once

#include "hal/kernels.h"

namespace aegis {

const KernelTable& emulatedCudaKernels();

}  // namespace aegis

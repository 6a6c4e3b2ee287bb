// The CUDA kernels on a machine without a GPU, for the conformance program and the bench.
#pragma once

#include "backends/cuda/multiply.h"
#include "hal/kernels.h"

namespace aegis {

// "cuda-emulated", "cuda-emulated-split32", "cuda-emulated-fp64".
template <cuda::MultiplyForm form>
const KernelTable& emulatedCudaKernels();
template <>
const KernelTable& emulatedCudaKernels<cuda::MultiplyForm::shoup64>();
template <>
const KernelTable& emulatedCudaKernels<cuda::MultiplyForm::split32>();
template <>
const KernelTable& emulatedCudaKernels<cuda::MultiplyForm::fp64>();

constexpr const KernelTable& (*kEmulatedCudaTables[])() = {emulatedCudaKernels<cuda::MultiplyForm::shoup64>,
                                                           emulatedCudaKernels<cuda::MultiplyForm::split32>,
                                                           emulatedCudaKernels<cuda::MultiplyForm::fp64>};

}  // namespace aegis

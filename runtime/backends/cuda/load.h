// Finds the CUDA module and what it can use.
#pragma once

#include <string>
#include <vector>

#include "backends/cuda/module.h"

namespace aegis {

// The GPUs of this machine ("NVIDIA H100 80GB HBM3, 79.65 GiB, sm_90"), or why there are none and what
// helps: no module, a module of another build, no driver, an old driver, no device.
struct CudaMachine {
  std::vector<std::string> devices;
  std::string problem, help;
};

// api, if it is asked for: the module's, where there are devices; else null.
CudaMachine cudaMachine(const AegisCuda** api = nullptr);

}  // namespace aegis

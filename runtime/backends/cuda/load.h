// Finds the CUDA module and what it can use.
#pragma once

#include <string>
#include <vector>

namespace aegis {

// The GPUs of this machine ("NVIDIA H100 80GB HBM3, 79.65 GiB, sm_90"), or why there are none and what
// helps: no module, a module of another build, no driver, an old driver, no device.
struct CudaMachine {
  std::vector<std::string> devices;
  std::string problem, help;
};

CudaMachine cudaMachine();

}  // namespace aegis

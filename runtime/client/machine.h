// What this machine is and can do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace aegis {

struct MachineInfo {
  std::string cpu;
  uint32_t cores = 0;
  uint64_t memoryBytes = 0, availableBytes = 0;
  std::vector<std::string> features;  // of those the kernels care about
  std::vector<std::string> kernels;   // tables that run here
  std::string chosenKernels;          // empty if AEGIS_KERNELS names one that does not
  std::string sodium;
  std::string mpi, mpiProblem;    // the library of the mpi channel; empty if there is none, and why
  std::string nccl, ncclProblem;  // the same of the nccl channel
  std::vector<std::string> cuda;  // GPUs; none: cudaProblem says why
  std::string cudaProblem;
};

MachineInfo describeMachine();

// What the system can give without swapping; also bounded by the limits of control group and process.
uint64_t availableMemoryBytes();
std::string printGibibytes(uint64_t bytes);

}  // namespace aegis

#include "client/machine.h"

#include <sodium.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "backends/cuda/load.h"
#include "channels/mpi/mpi.h"
#include "channels/nccl/nccl.h"
#include "hal/kernels.h"
#include "support/error.h"

namespace aegis {
namespace {

// "NAME: value" lines of a file under /proc; "" if there is none.
std::string procField(const char* path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    std::string key = line.substr(0, colon);
    key.erase(key.find_last_not_of(" \t") + 1);
    if (key == name) return line.substr(std::min(colon + 2, line.size()));
  }
  return "";
}

// A number alone in a file; `fallback` if there is none ("max").
uint64_t numberIn(const char* path, uint64_t fallback) {
  std::ifstream file(path);
  uint64_t value = 0;
  return file >> value ? value : fallback;
}

}  // namespace

uint64_t availableMemoryBytes() {
  const uint64_t physical = uint64_t(sysconf(_SC_PHYS_PAGES)) * uint64_t(sysconf(_SC_PAGESIZE));
  const std::string field = procField("/proc/meminfo", "MemAvailable");  // "  123 kB"
  uint64_t bytes = field.empty() ? physical : std::strtoull(field.c_str(), nullptr, 10) * 1024;
  const uint64_t limit = numberIn("/sys/fs/cgroup/memory.max", ~uint64_t(0));
  if (limit != ~uint64_t(0)) {
    const uint64_t used = numberIn("/sys/fs/cgroup/memory.current", 0);
    bytes = std::min(bytes, limit - std::min(limit, used));
  }
  struct rlimit space {};
  if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY) {
    const uint64_t used = numberIn("/proc/self/statm", 0) * uint64_t(sysconf(_SC_PAGESIZE));
    bytes = std::min(bytes, uint64_t(space.rlim_cur) - std::min(uint64_t(space.rlim_cur), used));
  }
  return bytes;
}

std::string printGibibytes(uint64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f GiB", double(bytes) / double(uint64_t(1) << 30));
  return text;
}

MachineInfo describeMachine() {
  MachineInfo info;
  info.cpu = procField("/proc/cpuinfo", "model name");
  info.cores = std::max(1u, std::thread::hardware_concurrency());
  info.memoryBytes = uint64_t(sysconf(_SC_PHYS_PAGES)) * uint64_t(sysconf(_SC_PAGESIZE));
  info.availableBytes = availableMemoryBytes();
  std::istringstream flags(procField("/proc/cpuinfo", "flags"));
  const std::vector<std::string> known = {"avx2", "fma", "avx512f", "avx512dq", "avx512vl", "avx512ifma"};
  for (std::string flag; flags >> flag;)
    if (std::find(known.begin(), known.end(), flag) != known.end()) info.features.push_back(flag);
  for (const char* name : {"reference", "portable", "avx2", "avx512ifma"})
    if (findCpuKernels(name) != nullptr) info.kernels.push_back(name);
  try {
    info.chosenKernels = cpuKernels().name;
  } catch (const Error&) {
    info.chosenKernels = "";  // the doctor reports instead of failing
  }
  info.sodium = sodium_version_string();
  info.mpi = mpiLibrary(&info.mpiProblem);
  info.nccl = ncclLibrary(&info.ncclProblem);
  CudaMachine cuda = cudaMachine();
  info.cuda = std::move(cuda.devices);
  info.cudaProblem = cuda.problem;
  return info;
}

}  // namespace aegis

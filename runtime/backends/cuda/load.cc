#include "backends/cuda/load.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>

#include "support/module_path.h"

namespace aegis {
namespace {

CudaMachine lacking(const std::string& problem, const std::string& help) { return {{}, problem, help}; }

// nullptr: `machine` says why.
const AegisCuda* loadCuda(CudaMachine& machine) {
  const std::string rebuild =
      "build it with cmake -S runtime -B build/runtime -DAEGIS_CUDA=ON && cmake --build build/runtime "
      "(docs/runtime.md)";
  const std::string path = modulePath("AEGIS_CUDA_MODULE", "aegis_cuda.so");
  if (access(path.c_str(), R_OK) != 0) {
    machine = lacking("this build has no CUDA module: there is no " + path, rebuild);
    return nullptr;
  }
  void* module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) {
    machine = lacking(std::string("the CUDA module cannot be loaded: ") + dlerror(), rebuild);
    return nullptr;
  }
  const auto entry = reinterpret_cast<AegisCudaEntry>(dlsym(module, "aegisCuda"));
  const AegisCuda* api = entry == nullptr ? nullptr : entry();
  if (api == nullptr || api->version != kAegisCudaVersion) {
    machine = lacking(path + " belongs to another build", rebuild);
    return nullptr;
  }
  return api;
}

std::string release(uint32_t version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string printed(const AegisCudaDevice& device) {
  char text[64];
  std::snprintf(text, sizeof text, ", %.2f GiB, sm_%u%u", double(device.memoryBytes) / double(1ull << 30),
                device.major, device.minor);
  return device.name + std::string(text);
}

}  // namespace

CudaMachine cudaMachine(const AegisCuda** usable) {
  if (usable != nullptr) *usable = nullptr;
  CudaMachine machine;
  const AegisCuda* api = loadCuda(machine);
  if (api == nullptr) return machine;
  const std::string wanted = "install an NVIDIA driver for CUDA " + release(api->toolkit) + " or newer";
  const uint32_t driver = api->driver();
  if (driver == 0) return lacking("the CUDA module is built, but there is no NVIDIA driver", wanted);
  // Within a major version older drivers do.
  if (driver / 1000 < api->toolkit / 1000)
    return lacking("the NVIDIA driver is for CUDA " + release(driver) + ", the CUDA module for " +
                       release(api->toolkit),
                   wanted);
  const std::string look = "see what nvidia-smi says, and CUDA_VISIBLE_DEVICES";
  uint32_t count = 0;
  if (const char* problem = api->deviceCount(&count)) return lacking(problem, look);
  if (count == 0) return lacking("the NVIDIA driver finds no GPU", look);
  for (uint32_t i = 0; i < count; i++) {
    AegisCudaDevice device{};
    if (const char* problem = api->describe(i, &device)) return lacking(problem, look);
    machine.devices.push_back(printed(device));
  }
  if (usable != nullptr) *usable = api;
  return machine;
}

}  // namespace aegis

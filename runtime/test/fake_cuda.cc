// A CUDA module for tests of what machines say: AEGIS_FAKE_CUDA="DRIVER DEVICES" is the driver's CUDA
// version (0: no driver) and the number of GPUs (-1: counting them fails). No launches.
#include <cstdio>
#include <cstdlib>

#include "backends/cuda/module.h"

namespace {

struct Machine {
  uint32_t driver = 0;
  int devices = 0;
};

Machine machine() {
  Machine m;
  const char* text = std::getenv("AEGIS_FAKE_CUDA");
  if (text == nullptr || std::sscanf(text, "%u %d", &m.driver, &m.devices) != 2) return {};
  return m;
}

uint32_t driver() { return machine().driver; }

const char* deviceCount(uint32_t* count) {
  const int devices = machine().devices;
  *count = devices < 0 ? 0 : uint32_t(devices);
  return devices < 0 ? "counting devices: out of memory" : nullptr;
}

const char* describe(uint32_t device, AegisCudaDevice* out) {
  std::snprintf(out->name, sizeof out->name, "Test %u", device);
  out->memoryBytes = uint64_t(80) << 30;
  out->major = 9;
  out->minor = 0;
  return nullptr;
}

AegisCuda module() {
  AegisCuda api{};
  api.version = kAegisCudaVersion;
  api.toolkit = 13000;
  api.driver = driver;
  api.deviceCount = deviceCount;
  api.describe = describe;
  return api;
}

}  // namespace

const AegisCuda* aegisCuda() {
  static const AegisCuda api = module();
  return &api;
}

// Which CPU kernels run: the fastest that CPUID allows, or the table that AEGIS_KERNELS names.
#include <cstdlib>
#include <cstring>
#include <string>

#include "backends/cpu/driver.h"
#include "backends/cpu/tables.h"

namespace aegis {
namespace cpu {
namespace {

template <const RowOps& ops>
constexpr KernelTable named(const char* name) {
  KernelTable table = Driver<ops>::table;
  table.name = name;
  return table;
}

const KernelTable portableKernels = named<portableOps>("portable");
#if defined(__x86_64__)
const KernelTable avx2Kernels = named<avx2Ops>("avx2");
const KernelTable avx512ifmaKernels = named<avx512ifmaOps>("avx512ifma");

// __builtin_cpu_supports also checks that the operating system saves the wide registers.
bool hasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool hasAvx512ifma() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512ifma");
}
#endif

const KernelTable& choose() {
  const char* wanted = std::getenv("AEGIS_KERNELS");
  if (wanted != nullptr && *wanted != '\0') {
    const KernelTable* table = findCpuKernels(wanted);
    if (table == nullptr)
      fail("R501", "AEGIS_KERNELS=" + std::string(wanted) + " is unknown or cannot run on this machine",
           "use reference, portable, avx2 or avx512ifma, or unset it");
    return *table;
  }
  for (const char* name : {"avx512ifma", "avx2"})
    if (const KernelTable* table = findCpuKernels(name)) return *table;
  return portableKernels;
}

}  // namespace
}  // namespace cpu

const KernelTable* findCpuKernels(const char* name) {
  if (std::strcmp(name, "reference") == 0) return &cpu::referenceKernels;
  if (std::strcmp(name, "portable") == 0) return &cpu::portableKernels;
#if defined(__x86_64__)
  if (std::strcmp(name, "avx2") == 0 && cpu::hasAvx2()) return &cpu::avx2Kernels;
  if (std::strcmp(name, "avx512ifma") == 0 && cpu::hasAvx512ifma()) return &cpu::avx512ifmaKernels;
#endif
  return nullptr;
}

const KernelTable& cpuKernels() {
  static const KernelTable& table = cpu::choose();
  return table;
}

}  // namespace aegis

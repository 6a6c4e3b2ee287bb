// CUDA graphs of calls (internal to backends/cuda). A call whose signature comes for the second time is
// captured, and launched as one graph from then on.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "backends/cuda/gpu.h"
#include "hal/device.h"

namespace aegis {

class GraphCache {
 public:
  // Larger calls are launched one by one, and the calls inside of them looked at.
  static constexpr uint64_t kMaxLaunches = 20'000;
  // Of all graphs together, some KiB each. What does not fit is launched one by one: giving room to the
  // newest would build graphs again and again where a loop calls more than fits.
  static constexpr uint64_t kMaxKeptLaunches = 100'000;
  static constexpr size_t kMaxSignatures = 1 << 16;

  struct Entry {
    bool seen = false;
    CudaHandle graph;  // or null
  };

  // Null: the call is not to be captured, nor to be remembered.
  Entry* find(const CallSite& site);
  bool hasRoom(uint64_t launches) const { return keptLaunches_ + launches <= kMaxKeptLaunches; }
  void keep(Entry& entry, CudaHandle graph, uint64_t launches);

 private:
  // Function, frame, buffers and plaintexts: what the launches of a call depend on.
  using Signature = std::vector<uintptr_t>;
  struct Hash {
    size_t operator()(const Signature& signature) const;
  };
  std::unordered_map<Signature, Entry, Hash> entries_;
  uint64_t keptLaunches_ = 0;
};

}  // namespace aegis

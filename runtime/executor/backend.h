// Where a session's launches run: the devices of its ranks, and what the launches only read (internal to
// runtime/executor; the implementations are in backend.cc and backends/cuda).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "executor/run_types.h"
#include "executor/weights.h"
#include "hal/device.h"
#include "plan/plan_file.h"

namespace aegis {

using KeyLookup = std::function<KeyView(uint32_t planKeyIndex)>;

class Backend {
 public:
  // References are kept, that to the weights apart.
  struct Setting {
    const PlanFile& plan;
    const std::vector<uint32_t>& ranks;  // of this process
    const Weights& weights;
    const KeyLookup& keys;
    uint64_t keyBytes;
    ThreadPool& pool;
    const RunOptions& loading;
  };
  virtual ~Backend() = default;
  // Once for each rank; does not outlive the backend.
  virtual std::unique_ptr<Device> open(uint32_t rank, ThreadPool& pool) = 0;
  // Keys and plaintexts that this process holds, counted once.
  virtual uint64_t staticBytes() const = 0;
  // Whether launches read the keys where the lookup said they are.
  virtual bool readsKeysInPlace() const = 0;
  virtual std::vector<std::string> warnings() const { return {}; }
};

// name: cpu or cuda. R404: there is no such backend here. R303: a key has other digits or rows than the
// plan's key class. Errors of encodePlaintexts. R501: the host or a device has too little memory.
std::unique_ptr<Backend> makeBackend(const std::string& name, const Backend::Setting& setting);
std::unique_ptr<Backend> makeCudaBackend(const Backend::Setting& setting);

// R303.
KeyViews keyViews(const PlanFile& plan, const ProgramSpec& program, const KeyLookup& keys);

}  // namespace aegis

// Where the rows of a rank lie, and who runs its launches: the threads of a pool (backends/cpu/device.h) or a
// GPU (backends/cuda/device.h). One Device for each rank; ranks may share a GPU.
//
// The interpreter walks the program and hands over one launch after another. A device may run behind: what
// was launched is done, and its errors are known, after settle() or finish(). Within a device all launches,
// row copies and sums see each other's rows in the order of the calls, except that copyRows and sumBlocks run
// beside launches: settle() before them, settleCopies() after them.
//
// Pointers to rows are the device's own. All calls come from one thread at a time; errors of a GPU are R408
// and name rank, device and the last node that is known to be done.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "hal/kernels.h"

namespace aegis {

struct Collective;    // hal/channel.h
struct CommandSpec;   // plan/program.h
struct FunctionSpec;  // plan/program.h

struct EncodedPlaintext {
  const uint64_t* base = nullptr;  // [elements][limbs][rowWords]; coefficients: [elements][rowWords]
  uint32_t rowWords = 0;
  bool coefficients = false;
};

// Of every key product of a program, the views that its `keys` name, from its first digit on.
using KeyViews = std::unordered_map<const CommandSpec*, std::vector<KeyView>>;

// One execution of a command. launch.limbs is the command's list, in the memory of the host.
struct KernelCall {
  const CommandSpec* command = nullptr;
  Launch launch;
  Rows out, a, b;
  PlainRows plain;
  size_t turn = 0;    // first entry of the command's keys or Galois elements
  uint64_t work = 0;  // row passes

  // Indices begin..end-1 of batch dimension `dim`, which is not reduced: elements are independent.
  KernelCall part(uint32_t dim, uint32_t begin, uint32_t end) const;
};

// A call of a function: two of them that are equal launch the same.
struct CallSite {
  const FunctionSpec& function;
  const uint64_t* frame;
  const std::vector<uint64_t*>& buffers;
  const std::vector<const EncodedPlaintext*>& plaintexts;
  uint64_t launches;  // loops and calls inside of it included
  uint64_t work;      // row passes
};

// What a run wants to hear from its device.
class RunWatch {
 public:
  virtual ~RunWatch() = default;
  // Between pieces of work, and every few milliseconds of waiting: `work` row passes are done, the last one
  // for `node` (index into Plan.locations). R401 cancelled, R405 another rank failed.
  virtual void step(uint64_t work, uint32_t node) = 0;
  virtual void spent(const CommandSpec& command, double seconds) = 0;  // of one launch
  virtual void computed(double seconds) = 0;                           // of all launches since the last call
};

// Zeroed words in a device's memory.
struct DeviceWords {
  std::unique_ptr<uint64_t[], std::function<void(uint64_t*)>> data;
  uint64_t words = 0;
  uint64_t bytes() const { return words * sizeof(uint64_t); }
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const std::string& name() const = 0;  // "avx2"; "device 0 (NVIDIA H100 80GB HBM3)"
  virtual ThreadPool& pool() = 0;               // of the host, for the rank's work there
  virtual bool hostRows() const = 0;            // the host may follow pointers to rows
  virtual bool timesLaunches() const = 0;       // RunWatch::spent is called; else computed

  // R501: there is not enough memory.
  virtual DeviceWords allocate(uint64_t words) = 0;
  // Contiguous rows from to + 0 on; row i comes from source(i).
  virtual void writeRows(uint64_t* to, size_t rows,
                         const std::function<const uint64_t*(size_t i)>& source) = 0;
  // Rows from + rows[k] * N go to target(k).
  virtual void readRows(const uint64_t* from, const std::vector<size_t>& rows,
                        const std::function<uint64_t*(size_t k)>& target) = 0;
  // By index into Plan.plaintexts, as the launches read it.
  virtual const EncodedPlaintext& plaintext(uint32_t index) const = 0;

  // A run: begin, launches, finish; or abandon, after which nothing of the run goes on. `watch` lives until
  // then.
  virtual void begin(RunWatch& watch) = 0;
  virtual void launch(const KernelCall& call) = 0;
  // Before and after the launches of a call without collectives; false: they were made, from what the device
  // kept of an equal call, and there is no leaveCall.
  virtual bool enterCall(const CallSite& site) = 0;
  virtual void leaveCall() = 0;
  virtual void settle() = 0;
  virtual void finish() = 0;
  virtual void abandon() noexcept = 0;

  // For channels. A block is contiguous rows on some rank's device.
  struct Block {
    Device* device = nullptr;
    const uint64_t* rows = nullptr;
  };
  virtual void copyRows(uint64_t* to, const Block& from, uint64_t rows) = 0;
  // out = sum of the blocks modulo the primes of rows first .. first + rows - 1 of what index `index` of the
  // group receives from the reduction (hal/channel.h). out may be one of the blocks.
  virtual void sumBlocks(const Collective& collective, uint32_t index, uint64_t first, uint64_t rows,
                         const std::vector<Block>& blocks, uint64_t* out) = 0;
  virtual void settleCopies() = 0;
  // Rows in the host's memory that the device copies to and from fast.
  virtual DeviceWords stage(uint64_t words) = 0;
  virtual void copyOut(uint64_t* host, const uint64_t* rows, uint64_t words) = 0;  // done on return
  virtual void copyIn(uint64_t* rows, const uint64_t* host, uint64_t words) = 0;
};

}  // namespace aegis

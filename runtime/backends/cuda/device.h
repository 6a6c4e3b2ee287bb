// A rank's share of a GPU: its rows, and two streams that its launches and its channel run on.
//
// Launches are enqueued and the host runs ahead of them by some windows of work, some 30 ms each, whose ends
// are events: what has been done, and whether it went wrong, is known from them. Calls that come again are
// captured into graphs.
//
// Environment: AEGIS_CUDA_GRAPHS=0 launches everything one by one; AEGIS_CUDA_PROFILE=1 does too and times
// every launch by events.
#pragma once

#include <array>
#include <map>

#include "backends/cuda/gpu.h"
#include "backends/cuda/graphs.h"
#include "backends/cuda/residents.h"
#include "backends/cuda/streamer.h"
#include "backends/cuda/tables.h"
#include "hal/device.h"

namespace aegis {

class CudaDevice final : public Device {
 public:
  struct Setting {
    const PlanFile& plan;
    uint32_t rank;
    const Gpu& gpu;
    const Residents& residents;
    std::unique_ptr<ProgramTables> tables;  // not yet loaded
    uint32_t reachable;                     // bit i: the device copies from device i without help
    bool alone;                             // all ranks of the process are on this GPU
    uint64_t ringBytes;                     // for what is streamed
    ThreadPool& pool;
  };
  // References are kept. R501, R408.
  explicit CudaDevice(Setting setting);
  ~CudaDevice() override;

  // For channels that enqueue (Channel::enqueues): rows on the communication stream, ordered by events.
  const AegisCuda& api() const { return gpu_.api; }
  const Gpu& gpu() const { return gpu_; }
  void* computeStream() const { return compute_.get(); }
  void* communicationStream() const { return communication_.get(); }
  // What comes later on `stream` waits for what is on `earlier` now.
  void order(void* earlier, void* stream);
  // out = sums of rows, each modulo its prime: as Device::sumBlocks, of blocks on this GPU, enqueued on
  // `stream`. With one block, 64-bit sums of residues become residues.
  void reduceRows(const Collective& collective, uint32_t index, uint64_t first, uint64_t rows,
                  const std::vector<const uint64_t*>& blocks, uint64_t* out, void* stream);
  // R408, unless `problem` is null: names rank, device and the last node that is known to be done.
  void check(const char* problem) const;

  const std::string& name() const override { return gpu_.name(); }
  ThreadPool& pool() override { return pool_; }
  bool hostRows() const override { return false; }
  bool timesLaunches() const override { return profiles_; }
  DeviceWords allocate(uint64_t words) override;
  void writeRows(uint64_t* to, size_t rows, const std::function<const uint64_t*(size_t)>& source) override;
  void readRows(const uint64_t* from, const std::vector<size_t>& rows,
                const std::function<uint64_t*(size_t)>& target) override;
  const EncodedPlaintext& plaintext(uint32_t index) const override { return residents_.plaintexts()[index]; }

  void begin(RunWatch& watch) override;
  void launch(const KernelCall& call) override;
  bool enterCall(const CallSite& site) override;
  void leaveCall() override;
  void settle() override;
  void finish() override;
  void abandon() noexcept override;

  void copyRows(uint64_t* to, const Block& from, uint64_t rows) override;
  void sumBlocks(const Collective& collective, uint32_t index, uint64_t first, uint64_t rows,
                 const std::vector<Block>& blocks, uint64_t* out) override;
  void settleCopies() override;
  DeviceWords stage(uint64_t words) override;
  void copyOut(uint64_t* host, const uint64_t* rows, uint64_t words) override;
  void copyIn(uint64_t* rows, const uint64_t* host, uint64_t words) override;

  // Device memory that a rank takes beside arena and residents.
  static uint64_t extraBytes(const PlanFile& plan, const ProgramTables& tables, bool alone);

 private:
  // Launches between two events.
  struct Window {
    CudaHandle start, end;
    uint64_t work = 0, launches = 0;
    uint32_t node = 0;
    std::vector<const CommandSpec*> profiled;
    std::vector<CudaHandle> marks;  // events at the ends of profiled launches
  };
  // The way of rows from a GPU that is out of reach: a stream there, and pinned chunks.
  struct Detour {
    CudaHandle stream;
    std::unique_ptr<Stager> stager;
  };
  static constexpr uint32_t kWindows = 4;  // one of them open

  void enqueue(const KernelCall& call);
  const char* start(const KernelCall& call);
  const KeyView* streamKeys(const KernelCall& call);
  PlainRows streamPlain(const KernelCall& call);
  void openWindow();
  void account(uint64_t work, uint64_t launches, uint32_t node);
  void closeWindow();
  void retire(bool waits);
  void await(void* event);
  void mark(const CommandSpec& command);
  void addProfile(const Window& window);
  uint64_t rowBytes() const;

  const PlanFile& plan_;
  const uint32_t rank_;
  const Gpu& gpu_;
  const Residents& residents_;
  const std::unique_ptr<ProgramTables> tables_;
  const uint32_t reachable_;
  ThreadPool& pool_;
  const bool profiles_, capturesCalls_;
  CudaHandle compute_, communication_, orderEvent_;
  std::unique_ptr<Stager> stager_;
  std::map<uint32_t, Detour> detours_;  // by device
  CudaHandle scratchMemory_;
  cuda::Scratch scratch_;
  CudaHandle remoteRows_;  // of other GPUs, to be summed here
  std::unique_ptr<Streamer> streamer_;  // if something is streamed
  GraphCache graphs_;

  GraphCache::Entry* capturing_ = nullptr;
  uint32_t innerCalls_ = 0;  // entered inside of the captured one
  uint64_t capturedWork_ = 0, capturedLaunches_ = 0;
  uint32_t capturedNode_ = 0;

  RunWatch* watch_ = nullptr;
  std::array<Window, kWindows> windows_;
  uint64_t closed_ = 0, retired_ = 0;  // window i is windows_[i % kWindows]
  bool open_ = false;                  // window number closed_ has launches
  uint64_t windowWork_ = 0;            // row passes that end a window
  uint32_t lastNode_ = ~0u;            // of the last window that is done
};

}  // namespace aegis

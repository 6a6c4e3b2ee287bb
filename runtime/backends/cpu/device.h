// The host as a device: rows in its memory, launches done when they return.
#pragma once

#include "hal/device.h"

namespace aegis {

class CpuDevice final : public Device {
 public:
  struct Statics {
    std::vector<EncodedPlaintext> plaintexts;
    KeyViews keys;
  };

  // References are kept.
  CpuDevice(const RingContext& ring, ThreadPool& pool, Statics statics = {});

  const std::string& name() const override { return name_; }
  ThreadPool& pool() override { return pool_; }
  bool hostRows() const override { return true; }
  bool timesLaunches() const override { return true; }

  DeviceWords allocate(uint64_t words) override;
  void writeRows(uint64_t* to, size_t rows, const std::function<const uint64_t*(size_t)>& source) override;
  void readRows(const uint64_t* from, const std::vector<size_t>& rows,
                const std::function<uint64_t*(size_t)>& target) override;
  const EncodedPlaintext& plaintext(uint32_t index) const override { return statics_.plaintexts[index]; }

  void begin(RunWatch& watch) override { watch_ = &watch; }
  void launch(const KernelCall& call) override;
  bool enterCall(const CallSite&) override { return true; }
  void leaveCall() override {}
  void settle() override {}
  void finish() override {}
  void abandon() noexcept override {}

  void copyRows(uint64_t* to, const Block& from, uint64_t rows) override;
  void sumBlocks(const Collective& collective, uint32_t index, uint64_t first, uint64_t rows,
                 const std::vector<Block>& blocks, uint64_t* out) override;
  void settleCopies() override {}
  DeviceWords stage(uint64_t words) override { return allocate(words); }
  void copyOut(uint64_t* host, const uint64_t* rows, uint64_t words) override;
  void copyIn(uint64_t* rows, const uint64_t* host, uint64_t words) override { copyOut(rows, host, words); }

 private:
  void run(const KernelCall& call) const;

  const RingContext& ring_;
  ThreadPool& pool_;
  const KernelTable& kernels_;
  const Statics statics_;
  const std::string name_;
  RunWatch* watch_ = nullptr;
};

}  // namespace aegis

// The GPUs of a session: which rank runs on which, what is uploaded to them, and whether it fits.
#include <algorithm>
#include <cstdlib>
#include <map>

#include "backends/cuda/device.h"
#include "backends/cuda/load.h"
#include "executor/plaintext_store.h"
#include "hal/thread_pool.h"
#include "support/error.h"

namespace aegis {
namespace {

// Device memory that the driver takes for kernels, graphs and streams, beside what is asked for.
constexpr uint64_t kReserveBytes = uint64_t(64) << 20;

struct OnGpu {
  std::unique_ptr<Gpu> gpu;
  CudaHandle stream;
  std::unique_ptr<Stager> stager;
  std::vector<uint32_t> ranks;
  std::unique_ptr<Residents> residents;
  uint32_t reachable = 0;
  Streaming streaming;
  uint64_t ringBytes = 0;  // of each rank
};

// Of a process among several of one machine: what the launchers of Open MPI, MPICH and Slurm say.
uint32_t localRank(uint32_t rank) {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"})
    if (const char* text = std::getenv(name)) return uint32_t(std::atoi(text));
  return rank;
}

// Pieces go to every GPU whose ranks read them.
class UploadSink final : public PlaintextSink {
 public:
  UploadSink(std::map<uint32_t, OnGpu>& gpus, uint64_t words) : gpus_(gpus), piece_(words) {}
  uint64_t* room(uint32_t, uint64_t, uint64_t) override { return piece_.data(); }
  void written(uint32_t plaintext, uint64_t first, uint64_t words) override {
    for (auto& [ordinal, on] : gpus_) {
      on.gpu->use();
      on.residents->loadPlaintext(*on.stager, plaintext, first, piece_.data(), words);
    }
  }

 private:
  std::map<uint32_t, OnGpu>& gpus_;
  std::vector<uint64_t> piece_;
};

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const Setting& s) : plan_(s.plan), ranks_(s.ranks) {
    const AegisCuda* api = nullptr;
    const CudaMachine machine = cudaMachine(&api);
    if (api == nullptr)
      fail("R404", "backend \"cuda\" is not to be had here: " + machine.problem, machine.help);
    for (const uint32_t rank : s.ranks) {
      const bool process = s.ranks.size() == 1 && s.plan.programs().size() > 1;
      OnGpu& on = gpus_[(process ? localRank(rank) : rank) % uint32_t(machine.devices.size())];
      on.ranks.push_back(rank);
    }
    for (auto& [ordinal, on] : gpus_) {
      on.gpu = std::make_unique<Gpu>(*api, ordinal);
      on.gpu->use();
      on.residents = std::make_unique<Residents>(
          plan_, on.ranks, s.keys, cuda::twiddlesOf(cuda::MultiplyForm(api->multiply)));
      for (const uint32_t rank : on.ranks)
        tables_[rank] = std::make_unique<ProgramTables>(plan_, rank, *on.residents);
      shareMemory(on);
      on.stream = on.gpu->makeStream();
      on.stager = std::make_unique<Stager>(*on.gpu, on.stream.get());
      on.residents->load(*on.gpu, *on.stager, s.pool, s.loading, on.streaming);
      on.reachable = 1u << ordinal;
    }
    std::vector<bool> used = plaintextsOf(plan_, s.ranks);
    UploadSink sink(gpus_, largestPlaintextPiece(plan_, used));
    encodePlaintexts(plan_, used, s.weights, s.pool, s.loading, sink);
    for (auto& [ordinal, on] : gpus_) {
      on.gpu->use();
      on.stager->drain();
    }
    connect();
  }

  std::unique_ptr<Device> open(uint32_t rank, ThreadPool& pool) override {
    for (auto& [ordinal, on] : gpus_) {
      if (std::find(on.ranks.begin(), on.ranks.end(), rank) == on.ranks.end()) continue;
      return std::make_unique<CudaDevice>(CudaDevice::Setting{plan_, rank, *on.gpu, *on.residents,
                                                              std::move(tables_.at(rank)), on.reachable,
                                                              gpus_.size() == 1, on.ringBytes, pool});
    }
    AEGIS_INVARIANT(!"a rank of this process");
  }

  uint64_t staticBytes() const override {
    uint64_t bytes = 0;
    for (const auto& [ordinal, on] : gpus_)
      bytes += on.residents->bytes().keys + on.residents->bytes().plaintexts;
    return bytes;
  }
  bool readsKeysInPlace() const override { return false; }
  std::vector<std::string> warnings() const override { return warnings_; }

 private:
  // Decides what is resident: everything if it fits, else keys, plaintexts or both are streamed. R501.
  void shareMemory(OnGpu& on) {
    uint64_t arenas = 0, extra = kReserveBytes;
    for (const uint32_t rank : on.ranks) {
      arenas += plan_.programs()[rank].memory.arenaBytes();
      extra += CudaDevice::extraBytes(plan_, *tables_.at(rank), gpus_.size() == 1);
    }
    const Residents::Bytes& bytes = on.residents->bytes();
    const uint64_t free = on.gpu->freeBytes(), needed = bytes.total({}) + arenas + extra;
    const char* forced = std::getenv("AEGIS_CUDA_STREAM");
    const bool forces = forced != nullptr && std::string(forced) == "1";
    if (needed <= free && !forces) return;
    const Streaming choices[] = {{true, false}, {false, true}, {true, true}};
    for (const Streaming& streaming : choices) {
      if (forces && !(streaming.keys && streaming.plaintexts)) continue;
      uint64_t launch = 0;
      for (const uint32_t rank : on.ranks) launch = std::max(launch, tables_[rank]->streamedBytes(streaming));
      const uint64_t least = launch * Streamer::kLaunchesInRing + Streamer::kAlignBytes;
      const uint64_t rest = bytes.total(streaming) + arenas + extra;
      if (rest + on.ranks.size() * least > free) continue;
      const uint64_t share = (free - rest) / on.ranks.size(), all = bytes.total({}) - bytes.total(streaming);
      on.streaming = streaming;
      on.ringBytes = forces ? least : std::min(share, std::max(all, least));
      warnings_.push_back(std::string(!streaming.plaintexts ? "keys" : !streaming.keys ? "weights"
                                                                               : "keys and weights")
                          + " (" + printedBytes(all) + ") are streamed to " + on.gpu->name() + ", which has "
                          + printedBytes(free) + " free where the plan needs " + printedBytes(needed));
      return;
    }
    fail("R501",
         on.gpu->name() + " has " + printedBytes(free) + " free but the plan needs " + printedBytes(needed) +
             " there: keys " + printedBytes(bytes.keys) + ", weights " + printedBytes(bytes.plaintexts) +
             ", ciphertexts " + printedBytes(arenas) + ", tables and scratch " +
             printedBytes(bytes.ring + extra) + "; keys and weights can be streamed, but not in that",
         "use a device with more memory or more devices, or compile with a smaller --memory-limit");
  }

  // Who copies from whom without the host.
  void connect() {
    for (auto& [ordinal, on] : gpus_) {
      on.gpu->use();
      for (auto& [peer, other] : gpus_) {
        int can = 0;
        if (peer == ordinal) continue;
        on.gpu->check(on.gpu->runtime.canAccessPeer(ordinal, peer, &can));
        if (can && on.gpu->runtime.enablePeer(peer) == nullptr) {
          on.reachable |= 1u << peer;
        } else {
          warnings_.push_back(on.gpu->name() + " cannot reach the memory of " + other.gpu->name()
                              + ": rows between them go through the host");
        }
      }
    }
  }

  const PlanFile& plan_;
  const std::vector<uint32_t> ranks_;
  std::map<uint32_t, OnGpu> gpus_;  // by device
  std::map<uint32_t, std::unique_ptr<ProgramTables>> tables_;  // by rank, until it is opened
  std::vector<std::string> warnings_;
};

}  // namespace

std::unique_ptr<Backend> makeCudaBackend(const Backend::Setting& setting) {
  return std::make_unique<CudaBackend>(setting);
}

}  // namespace aegis

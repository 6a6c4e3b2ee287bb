#include "channels/local/local.h"

#include <array>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <numeric>

#include "channels/stall.h"
#include "ckks/ring.h"
#include "hal/device.h"
#include "support/error.h"

namespace aegis {
namespace {

constexpr auto kPoll = std::chrono::milliseconds(20);

uint64_t bit(uint32_t index) { return uint64_t(1) << index; }
uint64_t allOf(uint32_t count) { return count == 64 ? ~uint64_t(0) : bit(count) - 1; }

// One execution of one collective, guarded by the hub's mutex. Masks are over indices in the group.
struct Exchange {
  uint64_t posted = 0;   // has started: its blocks may be read
  uint64_t reduced = 0;  // AllReduce: has its segment of the sum in its receive block
  uint64_t done = 0;     // has everything it receives
  uint64_t left = 0;
  std::array<const uint64_t*, kMaxRanks> send{};
  std::array<uint64_t*, kMaxRanks> receive{};
  std::array<Device*, kMaxRanks> device{};
};

struct Hub {
  explicit Hub(const TransportJob& j) : job(j), timeoutSeconds(channelTimeoutSeconds()) {}
  const TransportJob job;
  const double timeoutSeconds;
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::pair<uint32_t, uint64_t>, std::shared_ptr<Exchange>> exchanges;  // (collective, execution)
  std::array<std::atomic<uint64_t>, kMaxRanks> beats{};
  std::atomic<bool> aborted{false};
  std::string reason;
};

class LocalChannel final : public Channel {
 public:
  LocalChannel(std::shared_ptr<Hub> hub, uint32_t rank, Device& device)
      : hub_(std::move(hub)), rank_(rank), device_(device), collectives_(*hub_->job.collectives),
        received_(collectives_.size(), 0), executions_(collectives_.size(), 0),
        started_(collectives_.size(), 0) {}

  void start(uint32_t collective, const uint64_t* send, uint64_t* receive) override {
    const Collective& c = collectives_[collective];
    const uint32_t r = c.indexOf(rank_);
    AEGIS_INVARIANT(r != ~0u && open_.count(collective) == 0);
    last_ = &c;
    const std::lock_guard<std::mutex> lock(hub_->mutex);
    throwIfAborted(&c);
    auto& place = hub_->exchanges[{collective, started_[collective]}];
    if (place == nullptr) place = std::make_shared<Exchange>();
    place->send[r] = send;
    place->receive[r] = receive;
    place->device[r] = &device_;
    place->posted |= bit(r);
    Open& open = open_[collective];
    open = {&c, r, place, started_[collective]++, 0, false};
    hub_->changed.notify_all();
  }

  void wait(uint32_t collective) override {
    const auto found = open_.find(collective);
    AEGIS_INVARIANT(found != open_.end());
    Open& own = found->second;
    StallWatch watch;
    std::unique_lock<std::mutex> lock(hub_->mutex);
    for (;;) {
      hub_->beats[rank_].fetch_add(1, std::memory_order_relaxed);
      throwIfAborted(own.collective);
      // Others may wait for what this rank started earlier: everything open goes on.
      bool moved = false;
      for (auto& [id, open] : open_) moved |= progress(open, lock);
      if (moved) {
        hub_->changed.notify_all();
        continue;
      }
      const uint64_t missing = missingFor(own);
      if (missing == 0) break;
      hub_->changed.wait_for(lock, kPoll);
      for (uint32_t i = 0; i < own.collective->size(); i++) {
        const uint32_t other = own.collective->group[i];
        if ((missing & bit(i)) == 0 || i == own.index) continue;
        if (silent(watch, other)) refuseStalled(*own.collective, other);
      }
    }
    own.exchange->left |= bit(own.index);
    if (own.exchange->left == allOf(own.collective->size()))
      hub_->exchanges.erase({collective, own.execution});
    executions_[collective]++;
    open_.erase(found);
  }

  void beat() override {
    hub_->beats[rank_].fetch_add(1, std::memory_order_relaxed);
    if (!hub_->aborted.load(std::memory_order_acquire)) return;
    const std::lock_guard<std::mutex> lock(hub_->mutex);
    throwIfAborted(nullptr);
  }

  void watch(uint32_t collective) override {
    const Collective& c = collectives_[collective];
    last_ = &c;
    hub_->beats[rank_].fetch_add(1, std::memory_order_relaxed);
    if (hub_->aborted.load(std::memory_order_acquire)) {
      const std::lock_guard<std::mutex> lock(hub_->mutex);
      throwIfAborted(&c);
    }
    for (const uint32_t other : c.group)
      if (other != rank_ && silent(watch_, other)) refuseStalled(c, other);
  }

  void abort(const std::string& reason) noexcept override {
    const std::lock_guard<std::mutex> lock(hub_->mutex);
    if (hub_->aborted) return;
    hub_->reason = reason;
    hub_->aborted = true;
    hub_->changed.notify_all();
  }

  uint64_t receivedBytes(uint32_t collective) const override { return received_[collective]; }
  uint64_t executions(uint32_t collective) const override { return executions_[collective]; }
  void resetCounts() override {
    std::fill(received_.begin(), received_.end(), 0);
    std::fill(executions_.begin(), executions_.end(), 0);
    std::fill(started_.begin(), started_.end(), 0);
    open_.clear();
    last_ = nullptr;
    watch_.restart();
  }

 private:
  struct Open {
    const Collective* collective = nullptr;
    uint32_t index = 0;  // in the group
    std::shared_ptr<Exchange> exchange;
    uint64_t execution = 0;
    uint64_t taken = 0;  // whose rows this rank has
    bool done = false;
  };

  size_t rowWords() const { return hub_->job.ring->degree(); }

  // The mutex is released while rows are copied or added. True if something was.
  bool progress(Open& open, std::unique_lock<std::mutex>& lock) {
    if (open.done) return false;
    const Collective& c = *open.collective;
    const uint64_t everyone = allOf(c.size());
    Exchange& x = *open.exchange;
    bool moved = false;
    if (c.reduces() && (x.reduced & bit(open.index)) == 0) {
      if (x.posted != everyone) return false;
      lock.unlock();
      reduce(open);
      lock.lock();
      x.reduced |= bit(open.index);
      moved = true;
    }
    const bool gathersSums = c.kind == CollectiveKind::kAllReduce;
    const uint64_t sources = c.kind == CollectiveKind::kReduceScatter ? 0 : sourcesOf(open);
    if (const uint64_t ready = sources & ~open.taken & (gathersSums ? x.reduced : x.posted); ready != 0) {
      lock.unlock();
      for (uint32_t s = 0; s < c.size(); s++)
        if (ready & bit(s)) take(open, s);
      device_.settleCopies();
      lock.lock();
      open.taken |= ready;
      moved = true;
    }
    if (open.taken == sources) {
      x.done |= bit(open.index);
      open.done = moved = true;
    }
    return moved;
  }

  // Whose rows this rank copies, its own included.
  uint64_t sourcesOf(const Open& open) const {
    const Collective& c = *open.collective;
    if (c.kind == CollectiveKind::kAllReduce) return allOf(c.size()) & ~bit(open.index);
    uint64_t sources = 0;
    for (uint32_t s = 0; s < c.size(); s++)
      if (c.transfer(s, open.index).rows > 0) sources |= bit(s);
    return sources;
  }

  // Who reads this rank's blocks.
  uint64_t readersOf(const Open& open) const {
    const Collective& c = *open.collective;
    if (c.reduces()) return allOf(c.size());
    uint64_t readers = 0;
    for (uint32_t d = 0; d < c.size(); d++)
      if (c.transfer(open.index, d).rows > 0) readers |= bit(d);
    return readers;
  }

  // For whom this rank waits, itself included while it has not got everything.
  uint64_t missingFor(const Open& open) const {
    const Exchange& x = *open.exchange;
    const uint64_t readers = readersOf(open) & ~x.done;
    if (open.done) return readers;
    const Collective& c = *open.collective;
    const uint64_t pending = c.kind == CollectiveKind::kReduceScatter ? 0 : sourcesOf(open) & ~open.taken;
    const uint64_t addends =
        c.reduces() && (x.reduced & bit(open.index)) == 0 ? allOf(c.size()) & ~x.posted : 0;
    return readers | pending | addends | bit(open.index);
  }

  void reduce(const Open& open) {
    const Collective& c = *open.collective;
    const bool all = c.kind == CollectiveKind::kAllReduce;
    const uint64_t from = all ? c.segmentOffset(open.index) : c.transfer(0, open.index).sendOffset;
    const uint64_t rows = all ? c.segmentRows(open.index) : c.rows[open.index];
    std::vector<Device::Block> blocks;
    for (uint32_t s = 0; s < c.size(); s++)
      blocks.push_back({open.exchange->device[s], open.exchange->send[s] + from * rowWords()});
    uint64_t* out = open.exchange->receive[open.index] + (all ? from : 0) * rowWords();
    device_.sumBlocks(c, open.index, 0, rows, blocks, out);
    device_.settleCopies();
    received_[c.id] += (c.size() - 1) * rows * rowWords() * sizeof(uint64_t);
  }

  void take(const Open& open, uint32_t s) {
    const Collective& c = *open.collective;
    const Exchange& x = *open.exchange;
    const size_t n = rowWords();
    uint64_t* out = x.receive[open.index];
    const uint64_t* from = nullptr;
    uint64_t rows = 0;
    if (c.kind == CollectiveKind::kAllReduce) {
      const uint64_t offset = c.segmentOffset(s) * n;
      rows = c.segmentRows(s);
      from = x.receive[s] + offset;
      out += offset;
    } else {
      const Collective::Transfer t = c.transfer(s, open.index);
      rows = t.rows;
      from = x.send[s] + t.sendOffset * n;
      out += t.receiveOffset * n;
    }
    device_.copyRows(out, {x.device[s], from}, rows);
    if (s != open.index) received_[c.id] += rows * n * sizeof(uint64_t);
  }

  bool silent(StallWatch& watch, uint32_t other) const {
    return watch.stalled(other, hub_->beats[other].load(std::memory_order_relaxed), hub_->timeoutSeconds);
  }

  // With the mutex held.
  void throwIfAborted(const Collective* at) const {
    if (!hub_->aborted) return;
    const std::string place = at != nullptr ? "in " + at->describe()
                              : last_ != nullptr ? "after " + last_->describe()
                                                 : "before its first collective";
    fail("R405", "rank " + std::to_string(rank_) + " stopped " + place + ": " + hub_->reason);
  }

  [[noreturn]] void refuseStalled(const Collective& c, uint32_t other) const {
    char seconds[32];
    std::snprintf(seconds, sizeof seconds, "%g s", hub_->timeoutSeconds);
    fail("R405",
         "rank " + std::to_string(rank_) + " gave up in " + c.describe() + ": rank " + std::to_string(other) +
             " has made no progress for " + seconds,
         "AEGIS_CHANNEL_TIMEOUT sets the seconds to wait");
  }

  const std::shared_ptr<Hub> hub_;
  const uint32_t rank_;
  Device& device_;
  const std::vector<Collective>& collectives_;
  std::map<uint32_t, Open> open_;
  std::vector<uint64_t> received_, executions_, started_;
  const Collective* last_ = nullptr;
  StallWatch watch_;  // of watch()
};

class LocalTransport final : public Transport {
 public:
  explicit LocalTransport(const TransportJob& job) : hub_(std::make_shared<Hub>(job)), ranks_(job.rankCount) {
    std::iota(ranks_.begin(), ranks_.end(), 0u);
  }
  const char* name() const override { return "local"; }
  const std::vector<uint32_t>& ranks() const override { return ranks_; }
  std::unique_ptr<Channel> open(uint32_t rank, Device& device) override {
    return std::make_unique<LocalChannel>(hub_, rank, device);
  }
  void begin() override {
    const std::lock_guard<std::mutex> lock(hub_->mutex);
    hub_->exchanges.clear();
    hub_->aborted = false;
    hub_->reason.clear();
  }
  void send(uint32_t, const void*, uint64_t) override { AEGIS_INVARIANT(!"one process"); }
  void receive(uint32_t, void*, uint64_t) override { AEGIS_INVARIANT(!"one process"); }

 private:
  const std::shared_ptr<Hub> hub_;
  std::vector<uint32_t> ranks_;
};

}  // namespace

std::shared_ptr<Transport> makeLocalTransport(const TransportJob& job) {
  AEGIS_INVARIANT(job.rankCount >= 1 && job.rankCount <= kMaxRanks);
  return std::make_shared<LocalTransport>(job);
}

}  // namespace aegis

#include "channels/mpi/mpi.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "channels/mpi/load.h"
#include "channels/stall.h"
#include "ckks/ring.h"
#include "hal/device.h"
#include "hal/thread_pool.h"
#include "support/error.h"

namespace aegis {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kMaxMessageBytes = uint64_t(1) << 30;
// Of a reduction: what a rank holds of every other rank's rows at a time.
constexpr uint64_t kReduceChunkBytes = uint64_t(4) << 20;
constexpr auto kBeatPeriod = std::chrono::milliseconds(200);
// Who waits looks for silent ranks every kLookPeriod; its sleeps are short at first.
constexpr auto kLookPeriod = std::chrono::milliseconds(20);
constexpr auto kSpin = std::chrono::microseconds(200), kShortWait = std::chrono::microseconds(200'000);
constexpr auto kShortSleep = std::chrono::microseconds(50), kLongSleep = std::chrono::microseconds(500);
constexpr size_t kReasonBytes = 512;
// Starting is a collective of MPI's own, without a time-out.
constexpr auto kStartLimit = std::chrono::seconds(120);
// After the last collective the root may write for long.
constexpr double kCloseFactor = 15;
// Tags 2c and 2c + 1 are the two steps of collective c; these lie below them.
constexpr uint32_t kFailTag = 0, kBeatTag = 1, kResultTag = 2, kCloseTag = 3, kFirstTag = 4;

// Ends the process unless it is destroyed in time.
class StartLimit {
 public:
  StartLimit() : thread_([this] { watch(); }) {}
  ~StartLimit() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      started_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  void watch() {
    std::unique_lock<std::mutex> lock(mutex_);
    if (changed_.wait_for(lock, kStartLimit, [this] { return started_; })) return;
    std::fprintf(stderr, "error[R406]: MPI has not started in 120 s: is a process missing?\n");
    _exit(1);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool started_ = false;
  std::thread thread_;
};

// The MPI library, signs of life, and waiting with a time-out.
class Link {
 public:
  Link() : timeoutSeconds(channelTimeoutSeconds()), heard(kMaxRanks, 0), beatRequests_(kMaxRanks, nullptr) {
    std::string why;
    api_ = loadMpi(why);
    if (api_ == nullptr)
      fail("R406", "the mpi channel is not available: " + why,
           "install an MPI library (Debian: libopenmpi-dev, openmpi-bin) and build again, or use --channel "
           "local");
    const StartLimit limit;
    if (const char* error = api_->init(&rank, &size))
      fail("R406", std::string("the mpi channel does not start: ") + error,
           "start one process for each rank with mpirun or srun");
    setActive(api_);
    setPending("rank " + std::to_string(rank) + " stopped before its first collective");
  }

  void check(const char* error) const {
    if (error != nullptr) fail("R405", "rank " + std::to_string(rank) + ": MPI: " + error);
  }

  // Messages of any size in pieces; requests are appended.
  void send(const void* data, uint64_t bytes, uint32_t to, uint32_t tag, std::vector<void*>& requests) const {
    for (uint64_t at = 0; at < bytes; at += kMaxMessageBytes)
      check(api_->send(static_cast<const uint8_t*>(data) + at, std::min(kMaxMessageBytes, bytes - at), to,
                       tag, &requests.emplace_back(nullptr)));
  }
  void receive(void* data, uint64_t bytes, uint32_t from, uint32_t tag, std::vector<void*>& requests) const {
    for (uint64_t at = 0; at < bytes; at += kMaxMessageBytes)
      check(api_->receive(static_cast<uint8_t*>(data) + at, std::min(kMaxMessageBytes, bytes - at), from, tag,
                          &requests.emplace_back(nullptr)));
  }

  // Drops what is over; true if nothing is left.
  bool test(std::vector<void*>& requests) const {
    for (size_t i = 0; i < requests.size();) {
      int done = 0;
      check(api_->test(&requests[i], &done));
      if (!done) {
        i++;
        continue;
      }
      requests[i] = requests.back();
      requests.pop_back();
    }
    return requests.empty();
  }

  // Tells all others that this rank goes on, and hears the same from them.
  void beat() {
    if (Clock::now() - lastBeat_ < kBeatPeriod) return;
    lastBeat_ = Clock::now();
    tell();
    hear();
  }

  void refuseIfFailed(const std::string& place) const {
    if (!failure_.empty())
      fail("R405", "rank " + std::to_string(rank) + " stopped " + place + ": " + failure_);
  }

  // Tells the others, unless they are why; they have until abortMpiJob to say where they were.
  void tellFailure(const std::string& reason) {
    if (!failure_.empty()) return;
    static char text[kReasonBytes];
    reason.copy(text, sizeof text - 1);
    std::vector<void*> requests;
    for (uint32_t other = 0; other < size; other++)
      if (other != rank) send(text, sizeof text, other, kFailTag, requests);
    test(requests);  // nobody waits for them to be over
  }

  // Until `step` says true; refuses once one of the ranks that `missing` names is silent for the time-out.
  void waitFor(const std::function<bool()>& step, const std::function<std::vector<uint32_t>()>& missing,
               const std::string& place, double seconds) {
    StallWatch watch;
    const auto start = Clock::now();
    auto nextLook = start;
    while (!step()) {
      beat();
      refuseIfFailed(place);
      // By the clock, not by turns: on an overloaded machine a turn, in which MPI yields, takes tens of ms.
      const auto now = Clock::now();
      if (now >= nextLook) {
        nextLook = now + kLookPeriod;
        refuseIfSilent(watch, missing(), place, seconds);
      }
      if (now - start < kSpin) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(now - start < kShortWait ? kShortSleep : kLongSleep);
      }
    }
  }

  void refuseIfSilent(StallWatch& watch, const std::vector<uint32_t>& others, const std::string& place,
                      double seconds) const {
    for (const uint32_t other : others)
      if (watch.stalled(other, heard[other], seconds)) refuse(place, other, seconds);
  }

  void finalize() {
    check(api_->finalize());
    setActive(nullptr);
  }

  const double timeoutSeconds;
  uint32_t rank = 0, size = 0;
  std::vector<uint64_t> heard;  // signs of life of every rank

 private:
  void tell() {
    static const uint8_t nothing = 0;
    for (uint32_t other = 0; other < size; other++) {
      if (other == rank) continue;
      int done = 1;
      if (beatRequests_[other] != nullptr) check(api_->test(&beatRequests_[other], &done));
      if (done) check(api_->send(&nothing, 1, other, kBeatTag, &beatRequests_[other]));
    }
  }

  void hear() {
    uint8_t byte = 0;
    uint32_t from = 0;
    while (take(kBeatTag, &byte, 1, from)) heard[from]++;
    char reason[kReasonBytes];
    if (take(kFailTag, reason, sizeof reason, from)) {
      reason[sizeof reason - 1] = '\0';
      failure_ = reason;
    }
  }

  // A message of this size that has arrived.
  bool take(uint32_t tag, void* data, uint64_t bytes, uint32_t& from) const {
    int found = 0;
    check(api_->probe(tag, &found, &from));
    if (!found) return false;
    std::vector<void*> request;
    receive(data, bytes, from, tag, request);
    while (!test(request)) std::this_thread::yield();
    return true;
  }

  [[noreturn]] void refuse(const std::string& place, uint32_t other, double seconds) const {
    char text[32];
    std::snprintf(text, sizeof text, "%g s", seconds);
    fail("R405",
         "rank " + std::to_string(rank) + " gave up " + place + ": rank " + std::to_string(other) +
             " has made no progress for " + text,
         "AEGIS_CHANNEL_TIMEOUT sets the seconds to wait");
  }

  const AegisMpi* api_ = nullptr;
  Clock::time_point lastBeat_;
  std::string failure_;  // of another rank
  std::vector<void*> beatRequests_;
};

// One collective of this rank between start and wait.
class Exchange {
 public:
  struct Setting {
    Link& link;
    const RingContext& ring;
    ThreadPool& pool;
    const Collective& collective;
    uint64_t& received;  // bytes
  };

  Exchange(const Setting& setting, const uint64_t* send, uint64_t* receive)
      : s_(setting), c_(setting.collective), index_(c_.indexOf(setting.link.rank)), n_(setting.ring.degree()),
        send_(send), receive_(receive), sends_(c_.size()), receives_(c_.size()) {
    if (c_.reduces()) {
      startReduction();
    } else {
      startTransfers();
    }
  }

  // Goes on as far as it can; true once it is over.
  bool progress() {
    bool done = true;
    for (uint32_t i = 0; i < c_.size(); i++) {
      done &= s_.link.test(sends_[i].requests);
      const bool arrived = s_.link.test(receives_[i].requests);
      if (arrived) {
        s_.received += receives_[i].bytes;
        receives_[i].bytes = 0;
      }
      done &= arrived;
    }
    if (c_.reduces()) done &= reduce();
    return done;
  }

  std::vector<uint32_t> missing() const {
    std::vector<uint32_t> ranks;
    for (uint32_t i = 0; i < c_.size(); i++) {
      const bool addends = i < addends_.size() && !addends_[i].requests.empty();
      if (!sends_[i].requests.empty() || !receives_[i].requests.empty() || addends)
        ranks.push_back(c_.group[i]);
    }
    return ranks;
  }

 private:
  struct Pending {
    std::vector<void*> requests;
    uint64_t bytes = 0;  // not yet counted
  };

  uint64_t bytesOf(uint64_t rows) const { return rows * n_ * sizeof(uint64_t); }
  uint32_t tag(uint32_t step) const { return kFirstTag + 2 * c_.id + step; }
  uint32_t peer(uint32_t i) const { return c_.group[i]; }

  void send(uint32_t to, const uint64_t* rows, uint64_t count, uint32_t step) {
    s_.link.send(rows, bytesOf(count), peer(to), tag(step), sends_[to].requests);
  }
  void receive(uint32_t from, uint64_t* rows, uint64_t count, uint32_t step, Pending& pending) {
    s_.link.receive(rows, bytesOf(count), peer(from), tag(step), pending.requests);
    pending.bytes += bytesOf(count);
  }

  void startTransfers() {
    for (uint32_t i = 0; i < c_.size(); i++) {
      const Collective::Transfer in = c_.transfer(i, index_), out = c_.transfer(index_, i);
      if (i == index_) {
        if (in.rows > 0)
          std::memcpy(receive_ + in.receiveOffset * n_, send_ + in.sendOffset * n_, bytesOf(in.rows));
        continue;
      }
      if (in.rows > 0) receive(i, receive_ + in.receiveOffset * n_, in.rows, 0, receives_[i]);
      if (out.rows > 0) send(i, send_ + out.sendOffset * n_, out.rows, 0);
    }
  }

  bool sumsAll() const { return c_.kind == CollectiveKind::kAllReduce; }
  uint64_t segmentRows(uint32_t i) const { return sumsAll() ? c_.segmentRows(i) : c_.rows[i]; }
  uint64_t segmentOffset(uint32_t i) const {
    return sumsAll() ? c_.segmentOffset(i) : c_.transfer(index_, i).sendOffset;
  }
  uint64_t chunkRows() const { return std::max<uint64_t>(1, kReduceChunkBytes / bytesOf(1)); }

  void startReduction() {
    addends_.resize(c_.size());
    const uint64_t staged = std::min(chunkRows(), segmentRows(index_));
    staging_.resize(c_.size());
    for (uint32_t i = 0; i < c_.size(); i++) {
      if (i == index_) continue;
      staging_[i].resize(staged * n_);
      const uint64_t rows = segmentRows(i);
      for (uint64_t at = 0; at < rows; at += chunkRows())
        send(i, send_ + (segmentOffset(i) + at) * n_, std::min(chunkRows(), rows - at), 0);
      if (sumsAll() && rows > 0) receive(i, receive_ + segmentOffset(i) * n_, rows, 1, receives_[i]);
    }
    receiveAddends();
  }

  void receiveAddends() {
    const uint64_t rows = std::min(chunkRows(), segmentRows(index_) - summed_);
    for (uint32_t i = 0; i < c_.size() && rows > 0; i++)
      if (i != index_) receive(i, staging_[i].data(), rows, 0, addends_[i]);
  }

  // True once this rank has its sum, and has sent it where it must.
  bool reduce() {
    while (summed_ < segmentRows(index_)) {
      bool arrived = true;
      for (Pending& addend : addends_) arrived &= s_.link.test(addend.requests);
      if (!arrived) return false;
      const uint64_t rows = std::min(chunkRows(), segmentRows(index_) - summed_);
      std::vector<const uint64_t*> blocks;
      for (uint32_t i = 0; i < c_.size(); i++) {
        s_.received += addends_[i].bytes;
        addends_[i].bytes = 0;
        blocks.push_back(i == index_ ? send_ + (segmentOffset(index_) + summed_) * n_ : staging_[i].data());
      }
      uint64_t* out = receive_ + ((sumsAll() ? segmentOffset(index_) : 0) + summed_) * n_;
      sumBlocks(s_.ring, s_.pool, c_, index_, summed_, rows, blocks, out);
      summed_ += rows;
      receiveAddends();
    }
    if (!sumsAll() || spread_) return true;
    spread_ = true;
    for (uint32_t i = 0; i < c_.size() && segmentRows(index_) > 0; i++)
      if (i != index_) send(i, receive_ + segmentOffset(index_) * n_, segmentRows(index_), 1);
    return false;  // the new messages are looked at next time
  }

  const Setting s_;
  const Collective& c_;
  const uint32_t index_;
  const size_t n_;
  const uint64_t* const send_;
  uint64_t* const receive_;
  std::vector<Pending> sends_, receives_, addends_;  // by index in the group
  std::vector<std::vector<uint64_t>> staging_;       // a chunk of each other rank's rows
  uint64_t summed_ = 0;
  bool spread_ = false;
};

class MpiChannel final : public Channel {
 public:
  MpiChannel(const TransportJob& job, Link& link, Device& device)
      : job_(job), link_(link), device_(device), received_(job.collectives->size(), 0),
        executions_(job.collectives->size(), 0) {}

  void start(uint32_t collective, const uint64_t* send, uint64_t* receive) override {
    const Collective& c = (*job_.collectives)[collective];
    AEGIS_INVARIANT(open_.count(collective) == 0);
    pending("in " + c.describe());
    if (!device_.hostRows()) {
      Staged& staged = stage(c);
      staged.rows = receive;
      if (staged.send.words > 0) device_.copyOut(staged.send.data.get(), send, staged.send.words);
      send = staged.send.data.get();
      receive = staged.receive.data.get();
    }
    open_[collective] = std::make_unique<Exchange>(
        Exchange::Setting{link_, *job_.ring, device_.pool(), c, received_[collective]}, send, receive);
  }

  void wait(uint32_t collective) override {
    const Collective& c = (*job_.collectives)[collective];
    const auto own = open_.find(collective);
    AEGIS_INVARIANT(own != open_.end());
    pending("in " + c.describe());
    const auto step = [&] {
      bool done = false;
      // Others may wait for what this rank started earlier.
      for (auto& [id, exchange] : open_) {
        const bool over = exchange->progress();
        if (id == collective) done = over;
      }
      return done;
    };
    link_.waitFor(step, [&] { return own->second->missing(); }, "in " + c.describe(), link_.timeoutSeconds);
    open_.erase(own);
    if (const auto staged = staged_.find(collective); staged != staged_.end()) {
      const DeviceWords& block = staged->second.receive;
      if (block.words > 0) device_.copyIn(staged->second.rows, block.data.get(), block.words);
    }
    executions_[collective]++;
    pending("after " + c.describe());
  }

  void beat() override {
    link_.beat();
    link_.refuseIfFailed(place_);
  }
  void watch(uint32_t collective) override {
    if (watched_ != collective) {
      const Collective& c = (*job_.collectives)[collective];
      pending("in " + c.describe());
      others_.clear();
      for (const uint32_t other : c.group)
        if (other != link_.rank) others_.push_back(other);
      watch_.restart();
      watched_ = collective;
    }
    beat();
    link_.refuseIfSilent(watch_, others_, place_, link_.timeoutSeconds);
  }
  // This process ends with its error, and the others with it (abortMpiJob).
  void abort(const std::string& reason) noexcept override {
    try {
      link_.tellFailure(reason);
    } catch (const std::exception&) {  // they will see that this process is gone
    }
  }
  uint64_t receivedBytes(uint32_t collective) const override { return received_[collective]; }
  uint64_t executions(uint32_t collective) const override { return executions_[collective]; }
  void resetCounts() override {
    std::fill(received_.begin(), received_.end(), 0);
    std::fill(executions_.begin(), executions_.end(), 0);
  }

 private:
  // Blocks on the host of rows that it cannot reach; they stay for the collective's next execution.
  struct Staged {
    DeviceWords send, receive;
    uint64_t* rows = nullptr;  // where the received ones go
  };

  Staged& stage(const Collective& c) {
    const auto [found, isNew] = staged_.try_emplace(c.id);
    if (!isNew) return found->second;
    const uint32_t index = c.indexOf(link_.rank);
    const uint64_t n = job_.ring->degree();
    found->second.send = device_.stage(c.sendRows(index) * n);
    found->second.receive = device_.stage(c.receiveRows(index) * n);
    return found->second;
  }

  void pending(const std::string& place) {
    place_ = place;
    setPending("rank " + std::to_string(link_.rank) + " stopped " + place);
  }

  const TransportJob job_;
  Link& link_;
  Device& device_;
  std::map<uint32_t, Staged> staged_;  // by collective
  std::string place_ = "before its first collective";
  uint32_t watched_ = ~0u;  // the collective of watch(), with the others of its group
  std::vector<uint32_t> others_;
  StallWatch watch_;
  std::map<uint32_t, std::unique_ptr<Exchange>> open_;
  std::vector<uint64_t> received_, executions_;
};

class MpiTransport final : public Transport {
 public:
  explicit MpiTransport(const TransportJob& job) : job_(job), ranks_{link_.rank} {
    if (link_.size != job.rankCount)
      fail("R406",
           "the plan is for " + std::to_string(job.rankCount) + " ranks but " + std::to_string(link_.size) +
               " processes were started",
           "mpirun -n " + std::to_string(job.rankCount) + " aegis-exec PLAN --channel mpi ...");
  }
  const char* name() const override { return "mpi"; }
  const std::vector<uint32_t>& ranks() const override { return ranks_; }
  std::unique_ptr<Channel> open(uint32_t, Device& device) override {
    return std::make_unique<MpiChannel>(job_, link_, device);
  }
  void begin() override {}
  void beat() override { link_.beat(); }

  void send(uint32_t to, const void* data, uint64_t bytes) override {
    std::vector<void*> requests;
    link_.send(data, bytes, to, kResultTag, requests);
    waitForResults(requests, to, link_.timeoutSeconds);
  }
  void receive(uint32_t from, void* data, uint64_t bytes) override {
    std::vector<void*> requests;
    link_.receive(data, bytes, from, kResultTag, requests);
    waitForResults(requests, from, link_.timeoutSeconds);
  }

  // The root has written what there is to write; then nobody is needed any more.
  void close() override {
    uint8_t byte = 0;
    for (uint32_t other = 1; other < link_.size; other++) {
      std::vector<void*> requests;
      if (link_.rank == 0) link_.send(&byte, 1, other, kCloseTag, requests);
      if (link_.rank == other) link_.receive(&byte, 1, 0, kCloseTag, requests);
      waitForResults(requests, link_.rank == 0 ? other : 0, kCloseFactor * link_.timeoutSeconds);
    }
    link_.finalize();
  }

 private:
  void waitForResults(std::vector<void*>& requests, uint32_t other, double seconds) {
    link_.waitFor([&] { return link_.test(requests); }, [&] { return std::vector<uint32_t>{other}; },
                  "after the last collective", seconds);
  }

  const TransportJob job_;
  Link link_;
  const std::vector<uint32_t> ranks_;
};

}  // namespace

std::shared_ptr<Transport> makeMpiTransport(const TransportJob& job) {
  return std::make_shared<MpiTransport>(job);
}

}  // namespace aegis

#include "channels/nccl/nccl.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <thread>

#include "backends/cuda/device.h"
#include "channels/nccl/api.h"
#include "channels/nccl/group.h"
#include "channels/nccl/meeting.h"
#include "ckks/ring.h"
#include "support/error.h"

namespace aegis {
namespace {

using nccl::Group;
using nccl::kSum;
using nccl::kUint64;

constexpr uint64_t kTestWords = 4096;
// Blocks of a collective where ranks share a GPU: those of all ranks must fit on it at a time, and NCCL took
// 64 of 512 threads for each of two ranks on an H100 of 132 multiprocessors.
constexpr int kSharedBlocks = 8;
constexpr auto kHearing = std::chrono::milliseconds(500);

// Of one process: what its ranks share.
struct Job {
  TransportJob setting;
  const nccl::Api* api = nullptr;
  std::shared_ptr<Transport> base;
  std::unique_ptr<nccl::Meeting> meeting;
  std::vector<std::vector<uint16_t>> groups;  // that differ, of two ranks or more
  std::vector<nccl::UniqueId> ids;            // of the groups
  std::mutex mutex;                           // guards what follows
  bool cut = false;                           // communicators were: the next run makes new ones
  uint64_t generation = 0;                    // of the ids
  std::vector<std::string> warnings;
  std::optional<int> mostBlocks;              // of a collective; else as many as NCCL likes
};

class NcclChannel final : public Channel {
 public:
  NcclChannel(std::shared_ptr<Job> job, std::unique_ptr<Channel> base, uint32_t rank, CudaDevice& device)
      : job_(std::move(job)), base_(std::move(base)), rank_(rank), device_(device), cuda_(device.api()),
        collectives_(*job_->setting.collectives), groups_(job_->groups.size()),
        received_(collectives_.size(), 0), executions_(collectives_.size(), 0) {
    for (const Collective& c : collectives_)
      done_.push_back(c.indexOf(rank) == ~0u ? nullptr : device_.gpu().makeEvent());
  }

  ~NcclChannel() override {
    device_.gpu().use();
    groups_.clear();
  }

  // All ranks of the job together: either all of them are connected by NCCL, or none uses it.
  void connect() override {
    base_->connect();
    if (staged_ || (connected_ && generation_ == job_->generation)) return;
    device_.gpu().use();
    disconnect();
    generation_ = job_->generation;
    const auto idle = [&] { base_->beat(); };
    std::string problem;
    try {
      join(idle);
    } catch (const Error&) {
      throw;
    } catch (const std::runtime_error& error) {
      problem = error.what();
    }
    connected_ = job_->meeting->all(rank_, problem.empty(), idle);
    if (connected_) return;
    cut();
    if (!job_->base->movesRows())
      fail("R406", "rank " + std::to_string(rank_) + ": NCCL does not work between the devices: " +
                       (problem.empty() ? "another rank says so" : problem),
           "NCCL_DEBUG=INFO makes NCCL say more; --channel mpi goes by way of the host");
    staged_ = true;
    if (problem.empty()) return;
    const std::lock_guard<std::mutex> lock(job_->mutex);
    job_->warnings.push_back("rank " + std::to_string(rank_) + ": NCCL does not work between the devices (" +
                             problem + "): rows go by channel " + job_->base->name() +
                             " instead, which is slower");
  }

  void start(uint32_t collective, const uint64_t* send, uint64_t* receive) override {
    if (staged_) return base_->start(collective, send, receive);
    const Collective& c = collectives_[collective];
    const uint32_t index = c.indexOf(rank_);
    AEGIS_INVARIANT(index != ~0u && connected_);
    device_.gpu().use();
    guarded(c, [&] {
      device_.order(device_.computeStream(), stream());
      if (Group* group = groupOf(c)) enqueue(*group, c, index, send, receive);
      keepOwn(c, index, send, receive);
      demand(cuda_.runtime->record(done_[collective].get(), stream()));
    });
    received_[collective] += c.arrivingRows(index) * rowWords() * sizeof(uint64_t);
    executions_[collective]++;
    open_.push_back(collective);
  }

  void wait(uint32_t collective) override {
    if (staged_) return base_->wait(collective);
    const Collective& c = collectives_[collective];
    guarded(c, [&] { demand(cuda_.runtime->streamWait(device_.computeStream(), done_[collective].get())); });
  }

  // What is open is looked at in the order of starting.
  void beat() override {
    base_->beat();
    if (!connected_) return;
    while (!open_.empty()) {
      const Collective& c = collectives_[open_.front()];
      int done = 0;
      guarded(c, [&] {
        demand(cuda_.runtime->query(done_[c.id].get(), &done));
        if (Group* group = groupOf(c)) group->check();
      });
      if (done == 0) return base_->watch(c.id);
      open_.pop_front();
    }
  }
  void watch(uint32_t collective) override { base_->watch(collective); }
  void finish() override { beat(); }
  bool enqueues() const override { return !staged_; }

  void drop() noexcept override {
    cut();
    base_->drop();
  }
  void abort(const std::string& reason) noexcept override { base_->abort(reason); }
  uint64_t receivedBytes(uint32_t c) const override {
    return staged_ ? base_->receivedBytes(c) : received_[c];
  }
  uint64_t executions(uint32_t c) const override { return staged_ ? base_->executions(c) : executions_[c]; }
  void resetCounts() override {
    std::fill(received_.begin(), received_.end(), 0);
    std::fill(executions_.begin(), executions_.end(), 0);
    open_.clear();
    base_->resetCounts();
  }

 private:
  void* stream() const { return device_.communicationStream(); }
  size_t rowWords() const { return job_->setting.ring->degree(); }

  static void demand(const char* problem) {
    if (problem != nullptr) throw std::runtime_error(problem);
  }

  // What NCCL or the device says is an error of this rank in this collective.
  template <class Run>
  void guarded(const Collective& c, const Run& run) {
    try {
      run();
    } catch (const Error&) {
      throw;
    } catch (const std::runtime_error& error) {
      hearOthers(c);
      fail("R405",
           "rank " + std::to_string(rank_) + " stopped in " + c.describe() + ": NCCL: " + error.what(),
           "NCCL_DEBUG=INFO makes NCCL say more");
    }
  }

  // When another rank has failed NCCL may say so before that rank does: R405 with its reason.
  void hearOthers(const Collective& c) {
    const auto end = std::chrono::steady_clock::now() + kHearing;
    while (std::chrono::steady_clock::now() < end) {
      base_->watch(c.id);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  void disconnect() noexcept {
    for (auto& group : groups_) {
      if (group != nullptr) group->abort();
      group = nullptr;
    }
    connected_ = false;
  }

  void cut() noexcept {
    disconnect();
    const std::lock_guard<std::mutex> lock(job_->mutex);
    job_->cut = true;
  }

  void join(const nccl::Idle& idle) {
    for (size_t i = 0; i < groups_.size(); i++) {
      const std::vector<uint16_t>& ranks = job_->groups[i];
      const auto own = std::find(ranks.begin(), ranks.end(), rank_);
      if (own == ranks.end()) continue;
      groups_[i] = std::make_unique<Group>(*job_->api, job_->ids[i], uint32_t(own - ranks.begin()),
                                           uint32_t(ranks.size()), job_->mostBlocks);
    }
    for (auto& group : groups_)
      if (group != nullptr) group->settle(idle);
    for (size_t i = 0; i < groups_.size(); i++)
      if (groups_[i] != nullptr) test(*groups_[i], job_->groups[i], idle);
  }

  // A sum over the group, since there are machines on which devices reach each other's memory wrongly.
  void test(Group& group, const std::vector<uint16_t>& ranks, const nccl::Idle& idle) {
    std::vector<uint64_t> words(kTestWords);
    const auto word = [](uint64_t rank, uint64_t k) { return (rank + 1) * 0x9e3779b97f4a7c15ull + k; };
    for (uint64_t k = 0; k < kTestWords; k++) words[k] = word(rank_, k);
    const CudaHandle handle = device_.gpu().allocate(kTestWords * sizeof(uint64_t));
    void* memory = handle.get();
    demand(cuda_.copyBytes(memory, words.data(), kTestWords * sizeof(uint64_t), stream()));
    group.together(
        [&] {
          group.demand(group.api().allReduce(memory, memory, kTestWords, kUint64, kSum, group.handle(),
                                             stream()));
        },
        idle);
    const CudaHandle event = device_.gpu().makeEvent();
    demand(cuda_.runtime->record(event.get(), stream()));
    for (int done = 0; done == 0;) {
      idle();
      group.check();
      demand(cuda_.runtime->query(event.get(), &done));
    }
    demand(cuda_.copyBytes(words.data(), memory, kTestWords * sizeof(uint64_t), stream()));
    demand(cuda_.synchronise(stream()));
    for (uint64_t k = 0; k < kTestWords; k++) {
      uint64_t sum = 0;
      for (const uint16_t rank : ranks) sum += word(rank, k);
      if (words[k] != sum) throw std::runtime_error("a sum over the devices came out wrong");
    }
  }

  // nullptr: the rank is alone in it.
  Group* groupOf(const Collective& c) const {
    const auto found = std::find(job_->groups.begin(), job_->groups.end(), c.group);
    return found == job_->groups.end() ? nullptr : groups_[size_t(found - job_->groups.begin())].get();
  }

  void enqueue(Group& group, const Collective& c, uint32_t index, const uint64_t* send, uint64_t* receive) {
    const nccl::Api& api = group.api();
    const size_t n = rowWords();
    void* comm = group.handle();
    const bool even = std::all_of(c.rows.begin(), c.rows.end(), [&](uint64_t r) { return r == c.rows[0]; });
    const auto idle = [&] { base_->beat(); };
    const auto ask = [&](nccl::Result result) { group.demand(result); };
    group.together(
        [&] {
          switch (c.kind) {
            case CollectiveKind::kAllGather:
              if (even) ask(api.allGather(send, receive, c.rows[0] * n, kUint64, comm, stream()));
              else exchange(group, c, index, send, receive);
              break;
            case CollectiveKind::kAllToAll: exchange(group, c, index, send, receive); break;
            case CollectiveKind::kBroadcast: {
              uint64_t* rows = index == c.root ? const_cast<uint64_t*>(send) : receive;
              ask(api.broadcast(rows, rows, c.rows[0] * n, kUint64, int(c.root), comm, stream()));
              break;
            }
            case CollectiveKind::kAllReduce:
              ask(api.allReduce(send, receive, c.rows[0] * n, kUint64, kSum, comm, stream()));
              break;
            case CollectiveKind::kReduceScatter:
              if (even) {
                ask(api.reduceScatter(send, receive, c.rows[0] * n, kUint64, kSum, comm, stream()));
                break;
              }
              for (uint32_t k = 0; k < c.size(); k++)
                if (c.rows[k] > 0)
                  ask(api.reduce(send + c.transfer(index, k).sendOffset * n, k == index ? receive : nullptr,
                                 c.rows[k] * n, kUint64, kSum, int(k), comm, stream()));
              break;
          }
        },
        idle);
    if (c.reduces()) reduce(c, index, receive);
  }

  void exchange(Group& group, const Collective& c, uint32_t index, const uint64_t* send, uint64_t* receive) {
    const size_t n = rowWords();
    for (uint32_t i = 0; i < c.size(); i++) {
      if (i == index) continue;
      const Collective::Transfer in = c.transfer(i, index), out = c.transfer(index, i);
      if (out.rows > 0)
        group.demand(group.api().send(send + out.sendOffset * n, out.rows * n, kUint64, int(i),
                                      group.handle(), stream()));
      if (in.rows > 0)
        group.demand(group.api().recv(receive + in.receiveOffset * n, in.rows * n, kUint64, int(i),
                                      group.handle(), stream()));
    }
  }

  // 64-bit sums of residues below 2^50 become residues. All ranks have the whole of an all-reduce's, which
  // begins where the segment of index 0 does.
  void reduce(const Collective& c, uint32_t index, uint64_t* rows) {
    const bool all = c.kind == CollectiveKind::kAllReduce;
    const uint64_t count = all ? c.rows[0] : c.rows[index];
    if (count > 0) device_.reduceRows(c, all ? 0 : index, 0, count, {rows}, rows, stream());
  }

  // Rows that stay with the rank, where NCCL does not copy them.
  void keepOwn(const Collective& c, uint32_t index, const uint64_t* send, uint64_t* receive) {
    const bool even = std::all_of(c.rows.begin(), c.rows.end(), [&](uint64_t r) { return r == c.rows[0]; });
    Collective::Transfer own;
    if (c.size() == 1 && c.kind == CollectiveKind::kAllReduce) own.rows = c.rows[0];
    else if (c.size() == 1 || c.kind == CollectiveKind::kAllToAll ||
             (c.kind == CollectiveKind::kAllGather && !even))
      own = c.transfer(index, index);
    if (own.rows == 0) return;
    const size_t n = rowWords();
    demand(cuda_.copyBytes(receive + own.receiveOffset * n, send + own.sendOffset * n,
                           own.rows * n * sizeof(uint64_t), stream()));
  }

  const std::shared_ptr<Job> job_;
  const std::unique_ptr<Channel> base_;
  const uint32_t rank_;
  CudaDevice& device_;
  const AegisCuda& cuda_;
  const std::vector<Collective>& collectives_;
  std::vector<std::unique_ptr<Group>> groups_;  // of this rank, in the order of Job::groups
  std::vector<CudaHandle> done_;                // events, by collective
  std::deque<uint32_t> open_;                   // collectives that may be under way
  bool connected_ = false, staged_ = false;
  uint64_t generation_ = 0;
  std::vector<uint64_t> received_, executions_;
};

class NcclTransport final : public Transport {
 public:
  NcclTransport(const TransportJob& setting, std::shared_ptr<Transport> base)
      : job_(std::make_shared<Job>()) {
    std::string why;
    job_->api = nccl::load(why);
    if (job_->api == nullptr)
      fail("R406", "the nccl channel is not available: " + why,
           "install NCCL 2.18 or newer, or name its library in AEGIS_NCCL_LIBRARY; --channel local needs "
           "none");
    job_->setting = setting;
    job_->base = std::move(base);
    job_->meeting = std::make_unique<nccl::Meeting>(job_->base, setting.rankCount);
    for (const Collective& c : *setting.collectives)
      if (c.size() > 1 && std::find(job_->groups.begin(), job_->groups.end(), c.group) == job_->groups.end())
        job_->groups.push_back(c.group);
    invite();
  }

  const char* name() const override { return "nccl"; }
  const std::vector<uint32_t>& ranks() const override { return job_->base->ranks(); }
  std::unique_ptr<Channel> open(uint32_t rank, Device& device) override {
    auto* gpu = dynamic_cast<CudaDevice*>(&device);
    AEGIS_INVARIANT(gpu != nullptr);
    if (!devices_.insert(gpu->gpu().ordinal).second) allowSharing();
    return std::make_unique<NcclChannel>(job_, job_->base->open(rank, device), rank, *gpu);
  }
  void begin() override {
    job_->base->begin();
    job_->meeting->restart();
    if (!job_->cut) return;
    job_->cut = false;
    job_->generation++;
    invite();
  }
  void send(uint32_t to, const void* data, uint64_t bytes) override { job_->base->send(to, data, bytes); }
  void receive(uint32_t from, void* data, uint64_t bytes) override { job_->base->receive(from, data, bytes); }
  void beat() override { job_->base->beat(); }
  void close() override { job_->base->close(); }
  std::vector<std::string> warnings() const override {
    const std::lock_guard<std::mutex> lock(job_->mutex);
    return job_->warnings;
  }

 private:
  // Rank 0's process names the communicators.
  void invite() {
    job_->ids.resize(job_->groups.size());
    if (ranks().front() == 0)
      for (nccl::UniqueId& id : job_->ids) {
        const nccl::Result result = job_->api->getUniqueId(&id);
        if (result != nccl::kSuccess)
          fail("R406", std::string("NCCL does not start: ") + job_->api->getErrorString(result),
               "NCCL_DEBUG=INFO makes NCCL say more");
      }
    if (!job_->ids.empty())
      job_->meeting->spread(job_->ids.data(), job_->ids.size() * sizeof(nccl::UniqueId));
  }

  void allowSharing() {
    if (job_->api->version < nccl::kRanksShareDevice)
      fail("R406", "several ranks share a GPU, which NCCL can from 2.30 on; this is " + ncclLibrary(),
           "use --channel local, a newer NCCL, or a GPU for each rank");
    setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 0);
    job_->mostBlocks = kSharedBlocks;
  }

  const std::shared_ptr<Job> job_;
  std::set<uint32_t> devices_;
};

}  // namespace

std::shared_ptr<Transport> makeNcclTransport(const TransportJob& job, std::shared_ptr<Transport> base) {
  return std::make_shared<NcclTransport>(job, std::move(base));
}

std::string ncclLibrary(std::string* why) {
  std::string reason;
  const nccl::Api* api = nccl::load(reason);
  if (why != nullptr) *why = reason;
  if (api == nullptr) return "";
  return "NCCL " + std::to_string(api->version / 10000) + "." + std::to_string(api->version / 100 % 100) +
         "." + std::to_string(api->version % 100) + " (" + api->path + ")";
}

}  // namespace aegis

#include "executor/ranks.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <new>
#include <optional>
#include <thread>

#include "support/error.h"

namespace aegis {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kReportPeriod = std::chrono::milliseconds(50);
// How long ranks may take to stop after the first error; with the time-out of channels below ten seconds.
constexpr auto kGrace = std::chrono::milliseconds(1000);

// What the threads of one run share with the thread that started them. Owned by all of them.
struct Shared {
  struct OfRank {
    RankStatistics statistics;
    std::optional<Error> error;
    std::exception_ptr bug;  // anything but an Error
    bool finished = false;
    uint64_t done = 0;
    std::string_view node;
  };
  std::shared_ptr<void> owner;
  std::optional<Fault> fault;
  Checkpoints* checkpoints = nullptr;
  const CheckpointSource* resume = nullptr;
  std::atomic<bool> cancelled{false};
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<OfRank> ranks;
  std::vector<uint32_t> failed;  // in order of time
  uint32_t running = 0;
};

std::string nameOf(const Rank& rank) { return "rank " + std::to_string(rank.rank()); }

Error named(const Rank& rank, const char* code, const std::string& message, const std::string& help) {
  const bool known = message.rfind("rank ", 0) == 0;
  return Error(code, known ? message : nameOf(rank) + ": " + message, help);
}

void runThread(const std::shared_ptr<Shared>& shared, Rank& rank, uint32_t index) {
  Shared::OfRank& own = shared->ranks[index];
  RunOptions options;
  options.cancel = &shared->cancelled;
  options.checkpoints = shared->checkpoints;
  options.resume = shared->resume;
  options.progress = [&](uint64_t done, uint64_t, std::string_view node) {
    const std::lock_guard<std::mutex> lock(shared->mutex);
    own.done = done;
    own.node = node;
  };
  std::optional<Error> error;
  std::exception_ptr bug;
  RankStatistics statistics;
  try {
    statistics = rank.run(options, shared->fault);
  } catch (const Error& e) {
    error = e.code() == "R401" ? e : named(rank, e.code().c_str(), e.what(), e.help());
  } catch (const std::bad_alloc&) {
    error = Error("R501", nameOf(rank) + ": the machine has too little memory");
  } catch (const std::exception& e) {
    bug = std::current_exception();
    error = Error("R500", nameOf(rank) + ": " + e.what());
  }
  {
    const std::lock_guard<std::mutex> lock(shared->mutex);
    own.statistics = std::move(statistics);
    own.error = error;
    own.bug = bug;
    own.finished = true;
    if (error.has_value()) shared->failed.push_back(index);
    shared->running--;
    shared->changed.notify_all();
  }
  if (error.has_value()) rank.channel().abort(error->what());
}

[[noreturn]] void throwErrors(Shared& shared, const std::vector<Rank*>& ranks) {
  const Shared::OfRank& first = shared.ranks[shared.failed.front()];
  if (first.bug) std::rethrow_exception(first.bug);
  Error error = *first.error;
  if (error.code() == "R401") throw error;
  for (uint32_t i = 0; i < ranks.size(); i++) {
    const Shared::OfRank& rank = shared.ranks[i];
    if (&rank == &first) continue;
    if (rank.error.has_value()) error.add(*rank.error);
    if (!rank.finished) error.add(Error("R405", nameOf(*ranks[i]) + " did not stop"));
  }
  throw error;
}

// Ranks for which the system has no thread have failed before they began.
void startThreads(const std::shared_ptr<Shared>& shared, const std::vector<Rank*>& ranks,
                  std::vector<std::thread>& threads) {
  threads.reserve(ranks.size());
  try {
    for (uint32_t i = 0; i < ranks.size(); i++)
      threads.emplace_back([shared, rank = ranks[i], i] { runThread(shared, *rank, i); });
  } catch (const std::exception& reason) {
    const auto first = uint32_t(threads.size());
    const Error error = named(*ranks[first], "R502", std::string("no thread: ") + reason.what(), "");
    {
      const std::lock_guard<std::mutex> lock(shared->mutex);
      for (uint32_t i = first; i < ranks.size(); i++) {
        shared->ranks[i].error = error;
        shared->ranks[i].finished = true;
        shared->failed.push_back(i);
        shared->running--;
      }
    }
    ranks[first]->channel().abort(error.what());
  }
}

std::vector<RankStatistics> runThreads(const std::shared_ptr<void>& owner, const std::vector<Rank*>& ranks,
                                       const RunOptions& options, const std::optional<Fault>& fault,
                                       bool& stuck) {
  const auto shared = std::make_shared<Shared>();
  shared->owner = owner;
  shared->fault = fault;
  shared->checkpoints = options.checkpoints;
  shared->resume = options.resume;
  shared->ranks.resize(ranks.size());
  shared->running = uint32_t(ranks.size());
  shared->cancelled = options.isCancelled();
  uint64_t total = 0;
  for (const Rank* rank : ranks) total += rank->program().entry().rowCost;
  std::vector<std::thread> threads;
  startThreads(shared, ranks, threads);

  std::optional<Clock::time_point> firstError;
  std::unique_lock<std::mutex> lock(shared->mutex);
  while (shared->running > 0) {
    shared->changed.wait_for(lock, kReportPeriod);
    if (options.isCancelled()) shared->cancelled = true;
    if (!shared->failed.empty() && !firstError) firstError = Clock::now();
    if (firstError && Clock::now() - *firstError > kGrace) break;
    if (!options.progress || shared->running == 0) continue;
    uint64_t done = 0;
    std::string_view node;
    for (const Shared::OfRank& rank : shared->ranks) {
      done += rank.done;
      if (!rank.finished) node = rank.node;
    }
    lock.unlock();
    options.progress(std::min(done, total), total, node);
    lock.lock();
  }
  for (uint32_t i = 0; i < ranks.size(); i++) {
    if (shared->ranks[i].finished || i >= threads.size()) continue;
    stuck = true;
    threads[i].detach();
  }
  lock.unlock();
  for (std::thread& thread : threads)
    if (thread.joinable()) thread.join();
  lock.lock();
  if (!shared->failed.empty()) throwErrors(*shared, ranks);
  std::vector<RankStatistics> result;
  for (Shared::OfRank& rank : shared->ranks) result.push_back(std::move(rank.statistics));
  lock.unlock();
  if (options.progress) options.progress(total, total, "");
  return result;
}

}  // namespace

Rank::Rank(const Setting& setting, uint32_t rank, ThreadPool& pool)
    : plan_(setting.plan),
      program_(setting.plan.programs()[rank]),
      rank_(rank),
      device_(setting.backend.open(rank, pool)),
      interpreter_(setting.plan, program_, *device_),
      channel_(setting.transport.open(rank, *device_)),
      arena_(device_->allocate(program_.memory.arenaBytes() / sizeof(uint64_t))) {
  const FunctionSpec& entry = program_.entry();
  uint64_t* next = arena_.data.get();
  for (uint32_t i = 0; i < entry.argumentCount; i++) {
    arguments_.push_back(next);
    next += entry.buffers[i].rows * plan_.ring().degree();
  }
}

RankStatistics Rank::run(const RunOptions& options, const std::optional<Fault>& fault) {
  const auto start = Clock::now();
  RankStatistics result;
  result.rank = rank_;
  result.nodeSeconds.assign(plan_.plan().locations()->size(), 0);
  channel_->resetCounts();
  try {
    channel_->connect();
    interpreter_.run(arena_.data.get(), options, *channel_, fault, result);
    channel_->finish();
  } catch (...) {
    channel_->drop();
    device_->abandon();
    throw;
  }
  result.staticBytes = program_.memory.staticBytes();
  result.arenaBytes = arena_.bytes();
  result.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return result;
}

std::vector<RankStatistics> runRanks(const std::shared_ptr<void>& owner, const std::vector<Rank*>& ranks,
                                     const RunOptions& options, const std::optional<Fault>& fault,
                                     bool& stuck) {
  if (ranks.size() > 1) return runThreads(owner, ranks, options, fault, stuck);
  try {
    return {ranks[0]->run(options, fault)};
  } catch (const std::exception& error) {
    ranks[0]->channel().abort(named(*ranks[0], "", error.what(), "").what());
    throw;
  }
}

}  // namespace aegis

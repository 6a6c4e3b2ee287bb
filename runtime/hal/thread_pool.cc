#include "hal/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <string>

#include "support/error.h"

namespace aegis {
namespace {

thread_local bool insideRange = false;

}  // namespace

struct ThreadPool::Job {
  const std::function<void(size_t, size_t)>* fn;
  size_t count, grain;
  Job(const std::function<void(size_t, size_t)>& f, size_t n, size_t g) : fn(&f), count(n), grain(g) {}
  std::atomic<size_t> next{0};
  uint32_t helpers = 0;      // workers inside this job; guarded by mutex_
  std::exception_ptr error;  // guarded by mutex_
};

ThreadPool::ThreadPool(uint32_t threads) {
  if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
  try {
    for (uint32_t i = 1; i < threads; i++) workers_.emplace_back([this] { work(); });
  } catch (const std::exception& error) {
    const size_t started = workers_.size();
    end();
    fail("R502",
         "no more than " + std::to_string(started + 1) + " of " + std::to_string(threads) +
             " threads could be started: " + error.what(),
         "give --threads a smaller number");
  }
}

ThreadPool::~ThreadPool() { end(); }

void ThreadPool::end() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::runRanges(Job& job) {
  const bool outer = insideRange;
  insideRange = true;
  try {
    for (;;) {
      const size_t begin = job.next.fetch_add(job.grain, std::memory_order_relaxed);
      if (begin >= job.count) break;
      (*job.fn)(begin, std::min(job.count, begin + job.grain));
    }
  } catch (...) {
    job.next.store(job.count, std::memory_order_relaxed);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!job.error) job.error = std::current_exception();
  }
  insideRange = outer;
}

void ThreadPool::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    if (stopping_) return;
    Job& job = *jobs_.front();
    job.helpers++;
    lock.unlock();
    runRanges(job);
    lock.lock();
    // Nothing is left to hand out, so nobody else needs to enter.
    jobs_.erase(std::remove(jobs_.begin(), jobs_.end(), &job), jobs_.end());
    if (--job.helpers == 0) idle_.notify_all();
  }
}

void ThreadPool::parallelFor(size_t count, size_t grain, const std::function<void(size_t, size_t)>& fn) {
  if (count == 0) return;
  grain = std::max<size_t>(grain, 1);
  if (insideRange || workers_.empty() || count <= grain) {
    for (size_t begin = 0; begin < count; begin += grain) fn(begin, std::min(count, begin + grain));
    return;
  }
  Job job(fn, count, grain);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(&job);
  }
  const size_t ranges = (count + grain - 1) / grain;
  if (ranges > workers_.size()) {
    wake_.notify_all();
  } else {
    for (size_t i = 1; i < ranges; i++) wake_.notify_one();
  }
  runRanges(job);
  std::unique_lock<std::mutex> lock(mutex_);
  jobs_.erase(std::remove(jobs_.begin(), jobs_.end(), &job), jobs_.end());
  idle_.wait(lock, [&job] { return job.helpers == 0; });
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace aegis

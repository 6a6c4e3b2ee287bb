// A fixed set of threads that share loops. The calling thread works too, so ThreadPool(1) starts no thread at
// all.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace aegis {

class ThreadPool {
 public:
  // 0: as many threads as the machine has. R502: the system gives no more threads.
  explicit ThreadPool(uint32_t threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  uint32_t threadCount() const { return uint32_t(workers_.size()) + 1; }

  // Calls fn(begin, end) on disjoint ranges of at most `grain` indices that cover [0, count), and returns
  // when all are done. Ranges are handed out in order. The first exception cancels what has not begun and is
  // thrown here. A call from inside a range runs inline; calls from several threads share the workers.
  void parallelFor(size_t count, size_t grain, const std::function<void(size_t begin, size_t end)>& fn);

 private:
  struct Job;
  void work();
  void end();
  void runRanges(Job& job);

  std::mutex mutex_;
  std::condition_variable wake_;  // workers: a job or the end
  std::condition_variable idle_;  // callers: a worker left a job
  std::vector<Job*> jobs_;        // with ranges left to hand out
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace aegis

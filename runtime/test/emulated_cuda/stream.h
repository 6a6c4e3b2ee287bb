// Streams, events and graphs of the emulated CUDA module: a stream is a thread that does its work in order.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace aegis::emulated {

using Work = std::function<std::string()>;  // gives what went wrong, or ""

struct Graph {
  uint32_t device = 0;
  std::vector<Work> work;
};

class Event {
 public:
  explicit Event(uint32_t device) : device(device) {}
  const uint32_t device;
  uint64_t record();  // the number of this record
  void reach(uint64_t number);
  void await(uint64_t number);
  uint64_t recorded();
  bool done();
  std::optional<double> secondsUntil(Event& later);  // none: one of them is not done

 private:
  using Clock = std::chrono::steady_clock;
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t recorded_ = 0, reached_ = 0;
  Clock::time_point time_;
};

class Stream {
 public:
  explicit Stream(uint32_t device);
  ~Stream();  // does what is left
  const uint32_t device;

  // Kept for the graph while a capture is open.
  void push(Work work);
  void pushAlways(std::function<void()> work);  // also on a device that failed
  void wait();

  bool capturing() const { return capture_ != nullptr; }
  void beginCapture();
  std::unique_ptr<Graph> endCapture() { return std::move(capture_); }

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool busy_ = false, ending_ = false;
  std::unique_ptr<Graph> capture_;  // of the thread that uses the stream
  std::minstd_rand random_;
  std::thread thread_;
};

}  // namespace aegis::emulated

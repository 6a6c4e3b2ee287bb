#include "test/emulated_cuda/stream.h"

#include "test/emulated_cuda/machine.h"

namespace aegis::emulated {
namespace {

// Work that starts late shows who did not wait for it.
constexpr uint32_t kMaxJitterUs = 200;

}  // namespace

uint64_t Event::record() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return ++recorded_;
}

void Event::reach(uint64_t number) {
  const std::lock_guard<std::mutex> lock(mutex_);
  reached_ = number;
  time_ = Clock::now();
  changed_.notify_all();
}

void Event::await(uint64_t number) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return reached_ >= number; });
}

uint64_t Event::recorded() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return recorded_;
}

bool Event::done() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return reached_ == recorded_;
}

std::optional<double> Event::secondsUntil(Event& later) {
  if (!done() || !later.done()) return std::nullopt;
  return std::chrono::duration<double>(later.time_ - time_).count();
}

Stream::Stream(uint32_t d) : device(d), random_(d + 1), thread_([this] { run(); }) {}

Stream::~Stream() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void Stream::push(Work work) {
  if (capture_ != nullptr) {
    capture_->work.push_back(std::move(work));
    return;
  }
  pushAlways([this, work = std::move(work)] {
    Machine& machine = Machine::get();
    if (machine.settings.jitter != 0)
      std::this_thread::sleep_for(std::chrono::microseconds(random_() % kMaxJitterUs));
    if (!machine.failure(device).empty()) return;
    const std::string problem = work();
    if (!problem.empty()) machine.setFailure(device, problem);
  });
}

void Stream::pushAlways(std::function<void()> work) {
  const std::lock_guard<std::mutex> lock(mutex_);
  queue_.push_back(std::move(work));
  changed_.notify_all();
}

void Stream::wait() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return queue_.empty() && !busy_; });
}

void Stream::beginCapture() {
  capture_ = std::make_unique<Graph>();
  capture_->device = device;
}

void Stream::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return ending_ || !queue_.empty(); });
    if (queue_.empty()) return;
    const std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    work();
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

}  // namespace aegis::emulated

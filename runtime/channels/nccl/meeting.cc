#include "channels/nccl/meeting.h"

#include <chrono>

namespace aegis::nccl {
namespace {

constexpr auto kPoll = std::chrono::milliseconds(20);

}  // namespace

Meeting::Meeting(std::shared_ptr<Transport> base, uint32_t rankCount)
    : base_(std::move(base)), rankCount_(rankCount) {}

bool Meeting::all(uint32_t rank, bool yes, const std::function<void()>& idle) {
  if (!together()) {
    uint8_t word = yes;
    if (rank != 0) {
      base_->send(0, &word, 1);
      base_->receive(0, &word, 1);
      return word != 0;
    }
    for (uint32_t other = 1; other < rankCount_; other++) {
      uint8_t theirs = 0;
      base_->receive(other, &theirs, 1);
      word &= theirs;
    }
    for (uint32_t other = 1; other < rankCount_; other++) base_->send(other, &word, 1);
    return word != 0;
  }
  std::unique_lock<std::mutex> lock(mutex_);
  yes_ &= yes;
  if (++arrived_ == rankCount_) {
    agreed_ = yes_;
    arrived_ = 0;
    yes_ = true;
    round_++;
    changed_.notify_all();
    return agreed_;
  }
  // Nobody can leave the next round before this rank has come to it.
  for (const uint64_t round = round_; round_ == round;) {
    changed_.wait_for(lock, kPoll);
    lock.unlock();
    idle();
    lock.lock();
  }
  return agreed_;
}

void Meeting::spread(void* data, uint64_t bytes) {
  if (together()) return;
  if (base_->ranks().front() != 0) return base_->receive(0, data, bytes);
  for (uint32_t other = 1; other < rankCount_; other++) base_->send(other, data, bytes);
}

void Meeting::restart() {
  const std::lock_guard<std::mutex> lock(mutex_);
  arrived_ = 0;
  yes_ = true;
}

}  // namespace aegis::nccl

// Where all ranks of a job agree on something before their first collective (internal to channels/nccl).
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>

#include "channels/nccl/api.h"
#include "hal/channel.h"

namespace aegis::nccl {

class Meeting {
 public:
  // `base` carries what processes say to each other.
  Meeting(std::shared_ptr<Transport> base, uint32_t rankCount);

  // Ranks of one process: each from its own thread. True if every rank says `yes`. `idle` is called while it
  // waits, and may throw.
  bool all(uint32_t rank, bool yes, const std::function<void()>& idle);
  // Rank 0's bytes for every process.
  void spread(void* data, uint64_t bytes);
  // Forgets ranks that came to an agreement which others did not reach.
  void restart();

 private:
  bool together() const { return base_->ranks().size() == rankCount_; }

  const std::shared_ptr<Transport> base_;
  const uint32_t rankCount_;
  std::mutex mutex_;
  std::condition_variable changed_;
  uint32_t arrived_ = 0;
  uint64_t round_ = 0;
  bool yes_ = true, agreed_ = false;
};

}  // namespace aegis::nccl

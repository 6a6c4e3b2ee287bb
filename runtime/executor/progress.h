// Progress and cancellation of one long call (internal to runtime/executor).
#pragma once

#include <chrono>
#include <string_view>

#include "executor/run_types.h"
#include "support/error.h"

namespace aegis {

class ProgressMeter {
 public:
  ProgressMeter(const RunOptions& options, uint64_t total, uint64_t done = 0)
      : options_(options), total_(total), done_(done) {}

  // Between pieces of work: R401 if cancelled; a report if the last one is long ago.
  void step(uint64_t work, std::string_view node) {
    if (options_.isCancelled()) fail("R401", "cancelled");
    done_ += work;
    if (!options_.progress) return;
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(100) && done_ < total_) return;
    last_ = now;
    options_.progress(done_ < total_ ? done_ : total_, total_, node);
  }

 private:
  const RunOptions& options_;
  const uint64_t total_;
  uint64_t done_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace aegis

// Whose silence has lasted for the time-out (internal to runtime/channels).
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "hal/channel.h"

namespace aegis {

class StallWatch {
 public:
  using Clock = std::chrono::steady_clock;
  StallWatch() : seen_(kMaxRanks) {}

  // `beats` counts the signs of life of a rank. True once they have not changed for `seconds`, counted from
  // the first look on: a rank is not blamed for the time before anybody waited for it.
  bool stalled(uint32_t rank, uint64_t beats, double seconds) {
    Seen& seen = seen_[rank];
    const auto now = Clock::now();
    if (!seen.known || seen.beats != beats) {
      seen = {true, beats, now};
      return false;
    }
    return std::chrono::duration<double>(now - seen.since).count() > seconds;
  }
  void restart() { seen_.assign(kMaxRanks, {}); }

 private:
  struct Seen {
    bool known = false;
    uint64_t beats = 0;
    Clock::time_point since;
  };
  std::vector<Seen> seen_;
};

}  // namespace aegis

#include "executor/fault.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "support/error.h"

namespace aegis {

std::optional<Fault> Fault::fromEnvironment() {
  const char* text = std::getenv("AEGIS_FAULT");
  if (text == nullptr || *text == '\0') return std::nullopt;
  unsigned rank = 0;
  unsigned long long collective = 0;
  int end = 0;
  if (std::sscanf(text, "rank=%u,collective=%llu,kind=%n", &rank, &collective, &end) == 2 && end > 0) {
    const std::string kind = text + end;
    if (kind == "fail") return Fault{rank, collective, Kind::kFail};
    if (kind == "hang") return Fault{rank, collective, Kind::kHang};
    if (kind == "exit") return Fault{rank, collective, Kind::kExit};
    if (kind == "slow") return Fault{rank, collective, Kind::kSlow};
  }
  fail("R407", "AEGIS_FAULT is \"" + std::string(text) + "\"",
       "rank=2,collective=5,kind=fail|hang|exit|slow");
}

void Fault::happen(const std::string& where, const std::function<void()>& beat) const {
  switch (kind) {
    case Kind::kFail: fail("R407", "rank " + std::to_string(rank) + " failed on purpose at " + where);
    case Kind::kHang:
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    case Kind::kExit: _exit(9);
    case Kind::kSlow:
      for (int i = 0; i < 60; i++) {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        beat();
      }
      return;
  }
}

}  // namespace aegis

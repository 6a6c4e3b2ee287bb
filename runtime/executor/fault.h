// Faults for tests: AEGIS_FAULT="rank=2,collective=5,kind=fail|hang|exit|slow" strikes a rank where it starts
// its n-th collective, counted from 0 in order of execution. Only INSECURE plans obey (internal to
// runtime/executor).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace aegis {

struct Fault {
  enum class Kind { kFail, kHang, kExit, kSlow };
  uint32_t rank = 0;
  uint64_t collective = 0;
  Kind kind = Kind::kFail;

  // R407: it is none.
  static std::optional<Fault> fromEnvironment();
  // Throws R407, never returns, ends the process, or calls `beat` for three seconds.
  void happen(const std::string& where, const std::function<void()>& beat) const;
};

}  // namespace aegis

#include "channels/nccl/group.h"

#include <chrono>
#include <stdexcept>
#include <thread>

namespace aegis::nccl {
namespace {

// Most is done in microseconds; making a communicator takes seconds.
constexpr int kSpins = 1000;
constexpr auto kPause = std::chrono::microseconds(200);
// How long the end of a communicator may take before it is cut off.
constexpr auto kEndLimit = std::chrono::seconds(2);

}  // namespace

Group::Group(const Api& api, const UniqueId& id, uint32_t index, uint32_t size, std::optional<int> mostBlocks)
    : api_(api) {
  Configuration configuration;
  if (mostBlocks) configuration.maxCtas = *mostBlocks;
  demand(api_.commInitRankConfig(&handle_, int(size), id, int(index), &configuration));
}

Group::~Group() {
  if (handle_ == nullptr) return;
  Result state = api_.commFinalize(handle_);
  const auto end = std::chrono::steady_clock::now() + kEndLimit;
  while (state == kInProgress && std::chrono::steady_clock::now() < end) {
    if (api_.commGetAsyncError(handle_, &state) != kSuccess) break;
    std::this_thread::sleep_for(kPause);
  }
  if (state == kSuccess) api_.commDestroy(handle_);
  else api_.commAbort(handle_);
}

void Group::demand(Result result) {
  if (result == kSuccess || result == kInProgress) return;
  std::string text = api_.getErrorString(result);
  const char* detail = api_.getLastError(handle_);
  if (detail != nullptr && *detail != '\0') text += std::string(" (") + detail + ")";
  throw std::runtime_error(text);
}

void Group::check() {
  Result state = kSuccess;
  demand(api_.commGetAsyncError(handle_, &state));
  demand(state);
}

void Group::settle(const Idle& idle) {
  for (int turn = 0;; turn++) {
    Result state = kSuccess;
    demand(api_.commGetAsyncError(handle_, &state));
    demand(state);
    if (state != kInProgress) return;
    if (turn < kSpins) {
      std::this_thread::yield();
      continue;
    }
    idle();
    std::this_thread::sleep_for(kPause);
  }
}

void Group::abort() noexcept {
  if (handle_ != nullptr) api_.commAbort(handle_);
  handle_ = nullptr;
}

void Group::begin() { demand(api_.groupStart()); }

void Group::end(const Idle& idle) {
  demand(api_.groupEnd());
  settle(idle);
}

}  // namespace aegis::nccl

// A communicator of NCCL for one group of ranks, without blocking calls (internal to channels/nccl).
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "channels/nccl/api.h"

namespace aegis::nccl {

// Called while NCCL works on something; may throw.
using Idle = std::function<void()>;

class Group {
 public:
  // Begins to connect; the thread's device is the one that it is for.
  Group(const Api& api, const UniqueId& id, uint32_t index, uint32_t size, std::optional<int> mostBlocks);
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  // Until what was begun is done, and in the stream. Throws std::runtime_error with NCCL's words.
  void settle(const Idle& idle);
  // The same without waiting: throws if something has gone wrong by now.
  void check();
  // What is under way ends, wherever it is.
  void abort() noexcept;

  // run() calls the api's collectives with handle(): they become one operation of the stream.
  template <class Run>
  void together(const Run& run, const Idle& idle) {
    begin();
    run();
    end(idle);
  }
  void demand(Result result);
  Communicator handle() const { return handle_; }
  const Api& api() const { return api_; }

 private:
  void begin();
  void end(const Idle& idle);

  const Api& api_;
  Communicator handle_ = nullptr;
};

}  // namespace aegis::nccl

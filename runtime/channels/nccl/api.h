// The calls of NCCL that the channel makes, declared here (after nccl.h of 2.30): the library is looked for
// when --channel nccl is asked for, so no build needs it.
#pragma once

#include <climits>
#include <cstddef>
#include <cstdint>
#include <string>

namespace aegis::nccl {

using Communicator = void*;

struct UniqueId {
  char bytes[128];
};

using Result = int;
constexpr Result kSuccess = 0, kInProgress = 7;

constexpr int kUint64 = 5, kSum = 0;

// ncclConfig_t up to 2.18; later versions take the rest of theirs as not given.
struct Configuration {
  size_t size = sizeof(Configuration);
  unsigned magic = 0xcafebeef, version = 21800;
  int blocking = 0;
  int cgaClusterSize = INT_MIN, minCtas = INT_MIN, maxCtas = INT_MIN;
  const char* network = nullptr;
  int splitShare = INT_MIN;
};

constexpr int kOldest = 21800;         // versions: 10000 major + 100 minor + patch
constexpr int kRanksShareDevice = 23000;  // with NCCL_MULTI_RANK_GPU_ENABLE=1

struct Api {
  Result (*getVersion)(int*);
  Result (*getUniqueId)(UniqueId*);
  Result (*commInitRankConfig)(Communicator*, int ranks, UniqueId, int rank, Configuration*);
  Result (*commGetAsyncError)(Communicator, Result*);
  Result (*commAbort)(Communicator);
  Result (*commFinalize)(Communicator);
  Result (*commDestroy)(Communicator);
  const char* (*getErrorString)(Result);
  const char* (*getLastError)(Communicator);
  Result (*groupStart)();
  Result (*groupEnd)();
  Result (*send)(const void*, size_t count, int type, int peer, Communicator, void* stream);
  Result (*recv)(void*, size_t count, int type, int peer, Communicator, void* stream);
  Result (*broadcast)(const void* send, void* receive, size_t count, int type, int root, Communicator,
                      void* stream);
  Result (*allGather)(const void* send, void* receive, size_t sendCount, int type, Communicator,
                      void* stream);
  Result (*allReduce)(const void* send, void* receive, size_t count, int type, int op, Communicator,
                      void* stream);
  Result (*reduceScatter)(const void* send, void* receive, size_t receiveCount, int type, int op,
                          Communicator, void* stream);
  Result (*reduce)(const void* send, void* receive, size_t count, int type, int op, int root, Communicator,
                   void* stream);
  int version = 0;
  std::string path;
};

// Loaded once a process. nullptr if there is none that will do; `why` says so. AEGIS_NCCL_LIBRARY names the
// file; else libnccl.so.2 is looked for where the system has libraries, then in Python packages.
const Api* load(std::string& why);

}  // namespace aegis::nccl

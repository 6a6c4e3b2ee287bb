// NCCL for machines without a GPU: the calls of channels/nccl/api.h over shared memory, for ranks that are
// threads or processes of one machine, in the order of the emulated module's streams (test/emulated_cuda).
// AEGIS_FAKE_NCCL: "old" (version 2.17), "no-init" (communicators fail), "wrong-sums" (reductions add one),
// "shared" (version 2.29: no ranks that share a device).
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "channels/nccl/api.h"

namespace {

using aegis::nccl::Configuration;
using aegis::nccl::kInProgress;
using aegis::nccl::kSuccess;
using aegis::nccl::Result;
using aegis::nccl::UniqueId;

constexpr Result kSystemError = 2, kInvalidArgument = 4, kRemoteError = 6;
constexpr int kMaxSize = 8;
constexpr uint64_t kRingBytes = uint64_t(1) << 16;

bool faulty(const char* kind) {
  const char* text = std::getenv("AEGIS_FAKE_NCCL");
  return text != nullptr && std::strcmp(text, kind) == 0;
}

// Bytes from one rank to another.
struct Ring {
  std::atomic<uint64_t> written, read;
  uint8_t data[kRingBytes];
};

struct Shared {
  std::atomic<int> joined, aborted;
  Ring rings[kMaxSize][kMaxSize];  // [from][to]
};

// Rows on their way; `at` counts bytes that have gone.
struct Transfer {
  bool sends;
  int peer;
  uint8_t* data;
  uint64_t bytes, at = 0;
};

struct Operation {
  std::vector<Transfer> transfers;
  std::vector<std::unique_ptr<std::vector<uint64_t>>> staging;
  std::vector<std::function<void()>> after;
};

struct Comm {
  Shared* shared = nullptr;
  std::string name;
  int rank = 0, size = 0;
  std::atomic<int> state{kInProgress};
  std::atomic<int> busy{0};  // looks that still say "in progress" after an operation
};

thread_local int depth = 0;
thread_local std::unique_ptr<Operation> open;
thread_local Comm* openComm = nullptr;
thread_local void* openStream = nullptr;

bool move(Comm& comm, Transfer& t) {
  Ring& ring = t.sends ? comm.shared->rings[comm.rank][t.peer] : comm.shared->rings[t.peer][comm.rank];
  const uint64_t written = ring.written.load(std::memory_order_acquire),
                 read = ring.read.load(std::memory_order_acquire);
  const uint64_t from = t.sends ? written : read;
  uint64_t count = t.sends ? kRingBytes - (written - read) : written - read;
  count = std::min({count, t.bytes - t.at, kRingBytes - from % kRingBytes});
  if (count == 0) return false;
  uint8_t* place = ring.data + from % kRingBytes;
  if (t.sends) {
    std::memcpy(place, t.data + t.at, count);
    ring.written.store(written + count, std::memory_order_release);
  } else {
    std::memcpy(t.data + t.at, place, count);
    ring.read.store(read + count, std::memory_order_release);
  }
  t.at += count;
  return true;
}

// In the stream: blocks it as a kernel of NCCL would.
void perform(Comm& comm, Operation& operation) {
  for (;;) {
    bool done = true, moved = false;
    for (size_t i = 0; i < operation.transfers.size(); i++) {
      Transfer& t = operation.transfers[i];
      if (t.at == t.bytes) continue;
      done = false;
      // Between two ranks one after the other.
      bool first = true;
      for (size_t k = 0; k < i; k++) {
        const Transfer& earlier = operation.transfers[k];
        first &= earlier.at == earlier.bytes || earlier.sends != t.sends || earlier.peer != t.peer;
      }
      if (first) moved |= move(comm, t);
    }
    if (done) break;
    if (comm.shared->aborted.load() != 0) {
      comm.state = kRemoteError;
      return;
    }
    if (!moved) std::this_thread::yield();
  }
  for (const auto& step : operation.after) step();
}

// The emulated module that this process has loaded.
using HostCall = void (*)(void* stream, void (*work)(void*), void* data);
HostCall findHostCall() {
  const char* path = std::getenv("AEGIS_CUDA_MODULE");
  void* module = path == nullptr ? nullptr : dlopen(path, RTLD_NOW | RTLD_NOLOAD);
  return module == nullptr ? nullptr
                           : reinterpret_cast<HostCall>(dlsym(module, "aegisEmulatedCudaHostCall"));
}

Result enqueue() {
  if (open == nullptr) return kSuccess;
  struct Job {
    Comm* comm;
    std::unique_ptr<Operation> operation;
  };
  auto* job = new Job{openComm, std::move(open)};
  job->comm->busy = 3;
  static const HostCall hostCall = findHostCall();
  if (hostCall == nullptr) return kSystemError;
  hostCall(
      openStream,
      [](void* data) {
        const std::unique_ptr<Job> own(static_cast<Job*>(data));
        perform(*own->comm, *own->operation);
      },
      job);
  return kInProgress;
}

Operation& operationFor(Comm* comm, void* stream) {
  if (open == nullptr) open = std::make_unique<Operation>();
  openComm = comm;
  openStream = stream;
  return *open;
}

Result finish() { return depth == 0 ? enqueue() : kSuccess; }

uint8_t* bytesOf(const void* data) { return static_cast<uint8_t*>(const_cast<void*>(data)); }
uint64_t wordBytes(uint64_t count) { return count * sizeof(uint64_t); }

void addSend(Operation& op, const void* data, uint64_t bytes, int peer) {
  op.transfers.push_back({true, peer, bytesOf(data), bytes});
}
void addReceive(Operation& op, void* data, uint64_t bytes, int peer) {
  op.transfers.push_back({false, peer, bytesOf(data), bytes});
}

// `count` words from everybody, added into `receive`; own words are at `own`.
void addSum(Comm& comm, Operation& op, const void* own, void* receive, uint64_t count) {
  std::vector<uint64_t*> blocks;
  for (int i = 0; i < comm.size; i++) {
    if (i == comm.rank) continue;
    op.staging.push_back(std::make_unique<std::vector<uint64_t>>(count));
    blocks.push_back(op.staging.back()->data());
    addReceive(op, blocks.back(), wordBytes(count), i);
  }
  op.after.push_back([=] {
    auto* out = static_cast<uint64_t*>(receive);
    const auto* mine = static_cast<const uint64_t*>(own);
    const uint64_t wrong = faulty("wrong-sums") ? 1 : 0;
    for (uint64_t k = 0; k < count; k++) {
      uint64_t sum = mine[k] + wrong;
      for (const uint64_t* block : blocks) sum += block[k];
      out[k] = sum;
    }
  });
}

}  // namespace

extern "C" {

Result ncclGetVersion(int* version) {
  *version = faulty("old") ? 21700 : faulty("shared") ? 22900 : 23007;
  return kSuccess;
}

Result ncclGetUniqueId(UniqueId* id) {
  static std::atomic<int> next{0};
  std::memset(id, 0, sizeof *id);
  std::snprintf(id->bytes, sizeof id->bytes, "/aegis-fake-nccl-%d-%d", int(getpid()), next++);
  const int file = shm_open(id->bytes, O_CREAT | O_EXCL | O_RDWR, 0600);
  if (file < 0) return kSystemError;
  const bool sized = ftruncate(file, sizeof(Shared)) == 0;
  close(file);
  return sized ? kSuccess : kSystemError;
}

Result ncclCommInitRankConfig(void** out, int size, UniqueId id, int rank, Configuration* configuration) {
  if (size > kMaxSize || configuration->magic != 0xcafebeef || configuration->blocking != 0)
    return kInvalidArgument;
  if (faulty("no-init")) return kSystemError;
  auto comm = std::make_unique<Comm>();
  const int file = shm_open(id.bytes, O_RDWR, 0600);
  if (file < 0) return kSystemError;
  void* mapped = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (mapped == MAP_FAILED) return kSystemError;
  comm->shared = static_cast<Shared*>(mapped);
  comm->name = id.bytes;
  comm->rank = rank;
  comm->size = size;
  comm->shared->joined++;
  *out = comm.release();
  return kInProgress;
}

Result ncclCommGetAsyncError(void* handle, Result* out) {
  auto& comm = *static_cast<Comm*>(handle);
  if (comm.state == kInProgress && comm.shared->joined.load() >= comm.size) {
    comm.state = kSuccess;
    shm_unlink(comm.name.c_str());  // the first one does
  }
  *out = comm.state;
  if (comm.state == kSuccess && comm.busy.load() > 0) {
    comm.busy--;
    *out = kInProgress;
  }
  return kSuccess;
}

Result ncclCommAbort(void* handle) {
  static_cast<Comm*>(handle)->shared->aborted = 1;
  return kSuccess;  // the handle stays: an operation of the stream may still look at it
}

Result ncclCommFinalize(void*) { return kSuccess; }

Result ncclCommDestroy(void* handle) {
  auto* comm = static_cast<Comm*>(handle);
  munmap(comm->shared, sizeof(Shared));
  delete comm;
  return kSuccess;
}

const char* ncclGetErrorString(Result result) {
  if (result == kSystemError) return "system error";
  return result == kRemoteError ? "remote error" : "invalid argument";
}

const char* ncclGetLastError(void*) { return faulty("no-init") ? "no peer to be had" : ""; }

Result ncclGroupStart() {
  depth++;
  return kSuccess;
}

Result ncclGroupEnd() {
  depth--;
  return finish();
}

Result ncclSend(const void* data, size_t count, int, int peer, void* comm, void* stream) {
  addSend(operationFor(static_cast<Comm*>(comm), stream), data, wordBytes(count), peer);
  return finish();
}

Result ncclRecv(void* data, size_t count, int, int peer, void* comm, void* stream) {
  addReceive(operationFor(static_cast<Comm*>(comm), stream), data, wordBytes(count), peer);
  return finish();
}

Result ncclBroadcast(const void* send, void* receive, size_t count, int, int root, void* handle,
                     void* stream) {
  auto& comm = *static_cast<Comm*>(handle);
  Operation& op = operationFor(&comm, stream);
  if (comm.rank != root) {
    addReceive(op, receive, wordBytes(count), root);
  } else {
    for (int i = 0; i < comm.size; i++)
      if (i != root) addSend(op, send, wordBytes(count), i);
    if (send != receive) op.after.push_back([=] { std::memcpy(receive, send, wordBytes(count)); });
  }
  return finish();
}

Result ncclAllGather(const void* send, void* receive, size_t count, int, void* handle, void* stream) {
  auto& comm = *static_cast<Comm*>(handle);
  Operation& op = operationFor(&comm, stream);
  for (int i = 0; i < comm.size; i++) {
    uint8_t* place = bytesOf(receive) + wordBytes(count) * uint64_t(i);
    if (i == comm.rank) {
      if (place != send) op.after.push_back([=] { std::memmove(place, send, wordBytes(count)); });
      continue;
    }
    addSend(op, send, wordBytes(count), i);
    addReceive(op, place, wordBytes(count), i);
  }
  return finish();
}

Result ncclAllReduce(const void* send, void* receive, size_t count, int, int, void* handle, void* stream) {
  auto& comm = *static_cast<Comm*>(handle);
  Operation& op = operationFor(&comm, stream);
  for (int i = 0; i < comm.size; i++)
    if (i != comm.rank) addSend(op, send, wordBytes(count), i);
  addSum(comm, op, send, receive, count);
  return finish();
}

Result ncclReduceScatter(const void* send, void* receive, size_t count, int, int, void* handle,
                         void* stream) {
  auto& comm = *static_cast<Comm*>(handle);
  Operation& op = operationFor(&comm, stream);
  for (int i = 0; i < comm.size; i++)
    if (i != comm.rank) addSend(op, bytesOf(send) + wordBytes(count) * uint64_t(i), wordBytes(count), i);
  addSum(comm, op, bytesOf(send) + wordBytes(count) * uint64_t(comm.rank), receive, count);
  return finish();
}

Result ncclReduce(const void* send, void* receive, size_t count, int, int, int root, void* handle,
                  void* stream) {
  auto& comm = *static_cast<Comm*>(handle);
  Operation& op = operationFor(&comm, stream);
  if (comm.rank != root) addSend(op, send, wordBytes(count), root);
  else addSum(comm, op, send, receive, count);
  return finish();
}
}

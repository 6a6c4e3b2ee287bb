// The part of the module's interface that is not a launch: pinned memory, events, graphs, peers.
#pragma once

#include <cstdint>

#include "backends/cuda/batch.h"
#include "backends/cuda/reduce_rows.h"

extern "C" {

// Functions give null, or what went wrong in words that live until the thread's next call. Streams, events
// and graphs belong to the device that the thread used when they were made, and are used with it.
struct AegisCudaRuntime {
  const char* (*memory)(uint64_t* freeBytes, uint64_t* totalBytes);  // of the thread's device
  // Pages that the device copies to and from without help: copies of other host memory wait.
  const char* (*hostAllocate)(uint64_t bytes, void** out);
  const char* (*hostRelease)(void* memory);
  const char* (*hostRegister)(void* memory, uint64_t bytes);  // pins memory that there is
  const char* (*hostUnregister)(void* memory);
  const char* (*fill)(void* memory, uint32_t byte, uint64_t bytes, void* stream);

  const char* (*createEvent)(void** out);
  const char* (*destroyEvent)(void* event);
  const char* (*record)(void* event, void* stream);
  const char* (*streamWait)(void* stream, void* event);  // what comes later waits for the event's last record
  // *done 1: everything before the event's last record is done. Errors of kernels appear here.
  const char* (*query)(void* event, int* done);
  const char* (*elapsed)(void* from, void* to, float* milliseconds);  // both are done

  // From beginCapture on, the stream's launches and copies are kept, not run; *graph launches them all.
  const char* (*beginCapture)(void* stream);
  const char* (*endCapture)(void* stream, void** graph);
  const char* (*dropCapture)(void* stream);  // and nothing is kept; also if none is open
  const char* (*launchGraph)(void* graph, void* stream);
  const char* (*destroyGraph)(void* graph);  // none of its launches is under way

  const char* (*canAccessPeer)(uint32_t device, uint32_t peer, int* can);
  const char* (*enablePeer)(uint32_t peer);  // for the thread's device; also if it is enabled already

  // out row i = sum of the blocks' rows i modulo the prime of row first + i.
  const char* (*reduceRows)(void* stream, const aegis::cuda::ReduceRowsJob*);
};
}

// The calls of MPI that the channel needs, behind plain functions: aegis_mpi.so is the one file linked with
// an MPI library, and is loaded when --channel mpi is asked for. So one build serves machines with and
// without MPI.
#pragma once

#include <cstdint>

extern "C" {

constexpr uint32_t kAegisMpiVersion = 1;

// Functions give null, or what went wrong. All are called from one thread.
struct AegisMpi {
  uint32_t version;
  const char* (*library)();  // name and version; may be called before init
  const char* (*init)(uint32_t* rank, uint32_t* size);
  const char* (*finalize)();
  void (*abort)(int status);
  // Non-blocking, of at most 2^30 bytes. Messages between two ranks with one tag arrive in order.
  const char* (*send)(const void* data, uint64_t bytes, uint32_t to, uint32_t tag, void** request);
  const char* (*receive)(void* data, uint64_t bytes, uint32_t from, uint32_t tag, void** request);
  // *done 1: the request is over and freed.
  const char* (*test)(void** request, int* done);
  // *found 1: a message with this tag waits to be received, from *from.
  const char* (*probe)(uint32_t tag, int* found, uint32_t* from);
};

typedef const AegisMpi* (*AegisMpiEntry)();
const AegisMpi* aegisMpi();
}

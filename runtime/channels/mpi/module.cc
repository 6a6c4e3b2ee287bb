#include "channels/mpi/module.h"

#include <mpi.h>

#include <cstring>

namespace {

char text[MPI_MAX_ERROR_STRING + 1];

const char* check(int status) {
  if (status == MPI_SUCCESS) return nullptr;
  int length = 0;
  if (MPI_Error_string(status, text, &length) != MPI_SUCCESS) return "unknown error of MPI";
  text[length] = '\0';
  return text;
}

const char* library() {
  static char version[MPI_MAX_LIBRARY_VERSION_STRING + 1];
  int length = 0;
  if (MPI_Get_library_version(version, &length) != MPI_SUCCESS) return "MPI";
  version[length] = '\0';
  version[std::strcspn(version, ",\n")] = '\0';
  return version;
}

const char* init(uint32_t* rank, uint32_t* size) {
  int done = 0, provided = 0, r = 0, n = 0;
  MPI_Initialized(&done);
  if (done) return "MPI was initialised before in this process";
  if (const char* error = check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided)))
    return error;
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  if (const char* error = check(MPI_Comm_rank(MPI_COMM_WORLD, &r))) return error;
  if (const char* error = check(MPI_Comm_size(MPI_COMM_WORLD, &n))) return error;
  *rank = uint32_t(r);
  *size = uint32_t(n);
  return nullptr;
}

const char* finalize() { return check(MPI_Finalize()); }

void abortJob(int status) { MPI_Abort(MPI_COMM_WORLD, status); }

const char* send(const void* data, uint64_t bytes, uint32_t to, uint32_t tag, void** request) {
  auto* handle = new MPI_Request;
  *request = handle;
  return check(MPI_Isend(data, int(bytes), MPI_BYTE, int(to), int(tag), MPI_COMM_WORLD, handle));
}

const char* receive(void* data, uint64_t bytes, uint32_t from, uint32_t tag, void** request) {
  auto* handle = new MPI_Request;
  *request = handle;
  return check(MPI_Irecv(data, int(bytes), MPI_BYTE, int(from), int(tag), MPI_COMM_WORLD, handle));
}

const char* test(void** request, int* done) {
  auto* handle = static_cast<MPI_Request*>(*request);
  const char* error = check(MPI_Test(handle, done, MPI_STATUS_IGNORE));
  if (error == nullptr && *done) {
    delete handle;
    *request = nullptr;
  }
  return error;
}

const char* probe(uint32_t tag, int* found, uint32_t* from) {
  MPI_Status status;
  const char* error = check(MPI_Iprobe(MPI_ANY_SOURCE, int(tag), MPI_COMM_WORLD, found, &status));
  if (error == nullptr && *found) *from = uint32_t(status.MPI_SOURCE);
  return error;
}

const AegisMpi table = {kAegisMpiVersion, library, init, finalize, abortJob, send, receive, test, probe};

}  // namespace

extern "C" const AegisMpi* aegisMpi() { return &table; }

#include "channels/mpi/load.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "channels/mpi/mpi.h"
#include "support/module_path.h"

namespace aegis {
namespace {

constexpr auto kGrace = std::chrono::milliseconds(400), kPoll = std::chrono::milliseconds(20);

// Two lines: the handler reads one while the other is written.
struct Line {
  char text[512];
  size_t length;
};
Line lines[2];
std::atomic<int> current{-1};
std::atomic<const AegisMpi*> active{nullptr};

}  // namespace

const AegisMpi* loadMpi(std::string& why) {
  const std::string path = modulePath("AEGIS_MPI_MODULE", "aegis_mpi.so");
  if (access(path.c_str(), R_OK) != 0) {
    why = "this build has no MPI: there is no " + path;
    return nullptr;
  }
  // Global: MPI libraries load parts of themselves that look for their symbols.
  void* module = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (module == nullptr) {
    why = dlerror();
    return nullptr;
  }
  const auto entry = reinterpret_cast<AegisMpiEntry>(dlsym(module, "aegisMpi"));
  const AegisMpi* api = entry == nullptr ? nullptr : entry();
  if (api == nullptr || api->version != kAegisMpiVersion) {
    why = path + " belongs to another build";
    return nullptr;
  }
  return api;
}

void setPending(const std::string& line) {
  const int next = current.load() == 0 ? 1 : 0;
  Line& place = lines[next];
  place.length = std::min(line.size(), sizeof place.text - 1);
  std::memcpy(place.text, line.data(), place.length);
  place.text[place.length++] = '\n';
  current = next;
}

void setActive(const AegisMpi* api) { active = api; }

void abortMpiJob(int status) {
  const AegisMpi* api = active.load();
  if (api == nullptr) return;
  // The others are told, and say where they were. Asking for messages keeps the ones of this process going.
  const auto end = std::chrono::steady_clock::now() + kGrace;
  while (std::chrono::steady_clock::now() < end) {
    int found = 0;
    uint32_t from = 0;
    api->probe(0, &found, &from);
    std::this_thread::sleep_for(kPoll);
  }
  api->abort(status);
}

bool writePendingCollective(int file) {
  if (active.load() == nullptr) return false;
  const int line = current.load();
  if (line >= 0 && write(file, lines[line].text, lines[line].length) < 0) return true;
  return true;
}

std::string mpiLibrary(std::string* why) {
  std::string reason;
  const AegisMpi* api = loadMpi(reason);
  if (why != nullptr) *why = reason;
  return api == nullptr ? "" : api->library();
}

}  // namespace aegis

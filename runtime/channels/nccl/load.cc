#include <dlfcn.h>
#include <glob.h>

#include <cstdlib>
#include <vector>

#include "channels/nccl/api.h"

namespace aegis::nccl {
namespace {

constexpr const char* kName = "libnccl.so.2";

// Where pip puts nvidia-nccl-cu12 and nvidia-nccl-cu13.
std::vector<std::string> inPythonPackages() {
  std::vector<std::string> roots;
  if (const char* environment = std::getenv("VIRTUAL_ENV")) roots.push_back(environment);
  if (const char* home = std::getenv("HOME")) roots.push_back(std::string(home) + "/.local");
  roots.insert(roots.end(), {"/usr/local", "/usr"});
  std::vector<std::string> found;
  for (const std::string& root : roots) {
    const std::string pattern = root + "/lib/python3*/*-packages/nvidia/nccl/lib/" + kName;
    glob_t matches{};
    if (glob(pattern.c_str(), 0, nullptr, &matches) == 0)
      for (size_t i = 0; i < matches.gl_pathc; i++) found.push_back(matches.gl_pathv[i]);
    globfree(&matches);
  }
  return found;
}

void* open(std::string& path, std::string& why) {
  std::vector<std::string> paths;
  if (const char* named = std::getenv("AEGIS_NCCL_LIBRARY")) {
    paths.push_back(named);
  } else {
    paths = inPythonPackages();
    paths.insert(paths.begin(), kName);
  }
  for (const std::string& candidate : paths) {
    if (void* library = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      path = candidate;
      return library;
    }
    if (why.empty()) why = dlerror();
  }
  return nullptr;
}

template <class Function>
bool find(void* library, const char* name, Function& function, std::string& why) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) why = std::string("it has no ") + name;
  return function != nullptr;
}

bool fill(void* library, Api& api, std::string& why) {
  return find(library, "ncclGetVersion", api.getVersion, why) &&
         find(library, "ncclGetUniqueId", api.getUniqueId, why) &&
         find(library, "ncclCommInitRankConfig", api.commInitRankConfig, why) &&
         find(library, "ncclCommGetAsyncError", api.commGetAsyncError, why) &&
         find(library, "ncclCommAbort", api.commAbort, why) &&
         find(library, "ncclCommFinalize", api.commFinalize, why) &&
         find(library, "ncclCommDestroy", api.commDestroy, why) &&
         find(library, "ncclGetErrorString", api.getErrorString, why) &&
         find(library, "ncclGetLastError", api.getLastError, why) &&
         find(library, "ncclGroupStart", api.groupStart, why) &&
         find(library, "ncclGroupEnd", api.groupEnd, why) && find(library, "ncclSend", api.send, why) &&
         find(library, "ncclRecv", api.recv, why) && find(library, "ncclBroadcast", api.broadcast, why) &&
         find(library, "ncclAllGather", api.allGather, why) &&
         find(library, "ncclAllReduce", api.allReduce, why) &&
         find(library, "ncclReduceScatter", api.reduceScatter, why) &&
         find(library, "ncclReduce", api.reduce, why);
}

struct Loaded {
  Api api{};
  std::string why;
  bool usable = false;
};

Loaded loadOnce() {
  Loaded loaded;
  void* library = open(loaded.api.path, loaded.why);
  if (library == nullptr) return loaded;
  std::string problem;
  if (!fill(library, loaded.api, problem)) {
    loaded.why = loaded.api.path + " will not do: " + problem;
    return loaded;
  }
  if (loaded.api.getVersion(&loaded.api.version) != kSuccess || loaded.api.version < kOldest) {
    loaded.why = loaded.api.path + " is older than NCCL 2.18";
    return loaded;
  }
  loaded.usable = true;
  return loaded;
}

}  // namespace

const Api* load(std::string& why) {
  static const Loaded loaded = loadOnce();
  why = loaded.why;
  return loaded.usable ? &loaded.api : nullptr;
}

}  // namespace aegis::nccl

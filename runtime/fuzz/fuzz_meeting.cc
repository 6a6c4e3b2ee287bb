// Any bytes as the files through which processes meet in a folder: what rank 1 finds there of rank 0.
//   two bytes: length of `failed`, of `rank-0`, each times four; then these files, the rest is the message
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "channels/folder/folder.h"
#include "support/error.h"

namespace {

struct Folder {
  Folder() {
    const char* base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    path = std::string(base) + "/aegis-fuzz-XXXXXX";
    if (mkdtemp(path.data()) == nullptr) __builtin_trap();
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
};

const uint8_t* put(const std::string& path, const uint8_t* data, size_t size) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(data), std::streamsize(size));
  return data + size;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Folder folder;
  if (size < 2) return 0;
  const size_t failed = std::min<size_t>(4 * data[0], size - 2);
  const size_t beats = std::min<size_t>(4 * data[1], size - 2 - failed);
  const std::string prefix = folder.path + "/aegis-";
  const uint8_t* at = data + 2;
  at = failed == 0 ? at : put(prefix + "failed", at, failed);
  at = beats == 0 ? at : put(prefix + "rank-0", at, beats);
  put(prefix + "message-0-1-0", at, size_t(data + size - at));
  try {
    const std::vector<aegis::Collective> none;
    const auto transport = aegis::makeFolderTransport({nullptr, &none, 2}, {folder.path, 1});
    transport->beat();
    uint64_t message[4];
    transport->receive(0, message, sizeof message);
  } catch (const aegis::Error&) {
  }
  for (const char* name : {"failed", "rank-0", "message-0-1-0"}) unlink((prefix + name).c_str());
  return 0;
}

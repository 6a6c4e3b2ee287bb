#include "support/module_path.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>

namespace aegis {

std::string modulePath(const char* variable, const char* file) {
  if (const char* path = std::getenv(variable)) return path;
  Dl_info info;
  std::string here;
  if (dladdr(reinterpret_cast<void*>(&modulePath), &info) != 0 && info.dli_fname != nullptr)
    here = info.dli_fname;
  // A program is named as it was called, perhaps through PATH.
  char self[4096];
  if (here.find('/') == std::string::npos) {
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self);
    if (length > 0) here.assign(self, size_t(length));
  }
  const size_t slash = here.rfind('/');
  return (slash == std::string::npos ? "." : here.substr(0, slash)) + "/" + file;
}

}  // namespace aegis

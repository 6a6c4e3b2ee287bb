// Input of a fuzz target as a file: one byte that is added to its length, the file's first bytes, then zeros
// for the tensors, so that whole files of keys and ciphertexts are within reach of short inputs.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "client/parameters.h"
#include "test/client_fixture.h"
#include "plan/plan_file.h"
#include "support/error.h"

namespace aegis::fuzz {

// A plan and what the client makes of it, once for a process.
struct Setting {
  test::Fixture fixture = test::makeFixture();
  PlanFile plan = PlanFile::fromBytes(fixture.plan, {kNoMemoryLimit});
  ClientParameters parameters = ClientParameters::fromPlan(plan.plan());
};
inline const Setting& setting() {
  static const Setting one;
  return one;
}

// read(path) may throw Error. bodyBytes: of the tensors of a whole file.
template <class Read>
int readFile(const uint8_t* data, size_t size, uint64_t bodyBytes, Read read) {
  if (size < 1) return 0;
  const auto longer = int8_t(data[0]);
  const uint8_t* bytes = data + 1;
  size--;
  uint64_t header = 0, total = size;
  if (size >= sizeof header) {
    std::memcpy(&header, bytes, sizeof header);
    if (header <= size - sizeof header)
      total = std::max<uint64_t>(size, sizeof header + header + bodyBytes + uint64_t(int64_t(longer)));
  }
  static const int file = memfd_create("fuzz", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, 0) != 0 || pwrite(file, bytes, size, 0) != ssize_t(size) ||
      ftruncate(file, off_t(total)) != 0)
    __builtin_trap();
  try {
    read("/proc/self/fd/" + std::to_string(file));
  } catch (const Error&) {
  }
  return 0;
}

}  // namespace aegis::fuzz

#include "executor/memory.h"

#include <sys/mman.h>

#include <cstring>
#include <string>
#include <utility>

#include "support/error.h"

namespace aegis {

WordBlock::WordBlock(uint64_t words) : words_(words) {
  if (words == 0) return;
  void* data = mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED)
    fail("R501", "the machine does not give " + std::to_string(bytes() >> 20) + " MiB of memory",
         "use a machine with more memory, or compile with a smaller --memory-limit");
  madvise(data, bytes(), MADV_HUGEPAGE);  // only a hint
  data_ = static_cast<uint64_t*>(data);
}

WordBlock::~WordBlock() {
  if (data_ != nullptr) munmap(data_, bytes());
}

WordBlock& WordBlock::operator=(WordBlock&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(words_, other.words_);
  return *this;
}

void WordBlock::touch(ThreadPool& pool) const {
  constexpr size_t kChunkWords = size_t(1) << 18;
  pool.parallelFor(words_, kChunkWords, [this](size_t begin, size_t end) {
    std::memset(data_ + begin, 0, (end - begin) * sizeof(uint64_t));
  });
}

}  // namespace aegis

// Large zeroed blocks of words that live as long as a session: mapped once, touched once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "hal/thread_pool.h"

namespace aegis {

class WordBlock {
 public:
  WordBlock() = default;
  // R501: the machine does not give that much memory.
  explicit WordBlock(uint64_t words);
  ~WordBlock();
  WordBlock(WordBlock&& other) noexcept : data_(other.data_), words_(other.words_) { other.data_ = nullptr; }
  WordBlock& operator=(WordBlock&& other) noexcept;
  WordBlock(const WordBlock&) = delete;

  uint64_t* data() const { return data_; }
  uint64_t bytes() const { return words_ * sizeof(uint64_t); }
  // Takes all pages now, so that no kernel pays for page faults.
  void touch(ThreadPool& pool) const;

 private:
  uint64_t* data_ = nullptr;
  uint64_t words_ = 0;
};

}  // namespace aegis

// Checks, when a launch starts, that everything it points to lies in live memory of its device.
#pragma once

#include <string>

#include "backends/cuda/module.h"

namespace aegis::emulated {

class Inspection {
 public:
  Inspection(const char* kernel, uint32_t device, const cuda::RingView& ring, const Launch& launch);

  void bytes(const char* name, const void* memory, uint64_t count);
  void rows(const char* name, const Rows& rows, uint32_t limbs, uint32_t components = 1);
  void plain(const PlainRows& rows);
  void primes();  // and limbs, of the ring
  void transforms();
  void scratch(const cuda::Scratch& scratch) { bytes("scratch", scratch.base, scratch.words * 8); }
  void conversion(const ConversionTable& table);
  void keys(const KeyView* keys, uint32_t keyDim, uint32_t digits, const uint16_t* keyRows);
  const std::string& problem() const { return problem_; }  // the first; ""

 private:
  // Lowest and highest word offset over the batch.
  void extent(const char* name, const uint64_t* base, const ptrdiff_t* strides, ptrdiff_t limbStride,
              uint32_t limbs, ptrdiff_t componentStride, uint32_t components, uint64_t rowWords);
  bool good() const { return problem_.empty(); }

  const char* kernel_;
  const uint32_t device_;
  const cuda::RingView& ring_;
  const Launch& launch_;
  std::string problem_;
};

}  // namespace aegis::emulated

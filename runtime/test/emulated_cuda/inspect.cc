#include "test/emulated_cuda/inspect.h"

#include <algorithm>

#include "backends/cuda/twiddles.h"
#include "test/emulated_cuda/machine.h"

namespace aegis::emulated {

Inspection::Inspection(const char* kernel, uint32_t device, const cuda::RingView& ring, const Launch& launch)
    : kernel_(kernel), device_(device), ring_(ring), launch_(launch) {}

void Inspection::bytes(const char* name, const void* memory, uint64_t count) {
  if (!good() || count == 0) return;
  const int owner = Machine::get().ownerOf(memory, count);
  if (owner == int(device_)) return;
  const std::string what = owner == kPinned || owner == kPageable ? "host memory"
                           : owner < 0                             ? "beyond its allocation"
                                                                   : "on device " + std::to_string(owner);
  problem_ = std::string("an illegal memory access was encountered: ") + kernel_ + " on device "
             + std::to_string(device_) + ", " + name + " is " + what;
}

void Inspection::extent(const char* name, const uint64_t* base, const ptrdiff_t* strides,
                        ptrdiff_t limbStride, uint32_t limbs, ptrdiff_t componentStride, uint32_t components,
                        uint64_t rowWords) {
  ptrdiff_t low = 0, high = 0;
  const auto add = [&](uint32_t count, ptrdiff_t stride) {
    const ptrdiff_t span = ptrdiff_t(std::max(count, 1u) - 1) * stride;
    (span < 0 ? low : high) += span;
  };
  for (uint32_t d = 0; d < launch_.rank; d++) add(launch_.dims[d], strides[d]);
  add(limbs, limbStride);
  add(components, componentStride);
  bytes(name, base + low, (uint64_t(high - low) + rowWords) * 8);
}

void Inspection::rows(const char* name, const Rows& rows, uint32_t limbs, uint32_t components) {
  extent(name, rows.base, rows.strides, rows.limbStride, limbs, rows.componentStride, components,
         uint64_t(1) << ring_.logN);
}

void Inspection::plain(const PlainRows& rows) {
  extent("plain", rows.base, rows.strides, rows.limbStride, launch_.limbCount, 0, 1, rows.rowWords);
}

void Inspection::primes() {
  bytes("limbs", launch_.limbs, launch_.limbCount * sizeof(uint16_t));
  for (uint32_t j = 0; good() && j < launch_.limbCount; j++)
    bytes("primes", ring_.primes + launch_.limbs[j], sizeof(Prime));
}

void Inspection::transforms() {
  for (uint32_t j = 0; good() && j < launch_.limbCount; j++) {
    const NttTable* table = ring_.ntt + launch_.limbs[j];
    bytes("NTT tables", table, sizeof(NttTable));
    if (!good()) return;
    NttTable seen = *table;
    cuda::moveTwiddles(seen, [&](const auto* words) {
      bytes("twiddles", words, uint64_t(8) << ring_.logN);
      return words;
    });
  }
}

void Inspection::conversion(const ConversionTable& t) {
  bytes("conversion sources", t.sources, t.sourceCount * sizeof(Prime));
  bytes("conversion destinations", t.destinations, t.destinationCount * sizeof(Prime));
  bytes("conversion scale", t.scale, t.sourceCount * 8);
  bytes("conversion scale", t.scaleShoup64, t.sourceCount * 8);
  bytes("conversion matrix", t.matrix, uint64_t(t.sourceCount) * t.destinationCount * 8);
  bytes("conversion offset", t.offset, t.destinationCount * 8);
}

void Inspection::keys(const KeyView* keys, uint32_t keyDim, uint32_t digits, const uint16_t* keyRows) {
  const uint32_t count = keyDim == ~0u ? 1 : launch_.dims[keyDim];
  bytes("key views", keys, count * sizeof(KeyView));
  bytes("key rows", keyRows, launch_.limbCount * sizeof(uint16_t));
  for (uint32_t i = 0; good() && i < count; i++) {
    bytes("key", keys[i].base, (uint64_t(digits) * 2 * keys[i].rowCount * 8) << ring_.logN);
    for (uint32_t j = 0; good() && keys[i].rowOf != nullptr && j < launch_.limbCount; j++)
      bytes("rows of a key", keys[i].rowOf + keyRows[j], sizeof(uint16_t));
  }
}

}  // namespace aegis::emulated

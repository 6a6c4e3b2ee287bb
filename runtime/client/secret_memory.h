// Memory for secrets: overwritten before it is given back.
#pragma once

#include <sodium.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

namespace aegis {

template <class T>
struct WipingAllocator {
  using value_type = T;
  WipingAllocator() = default;
  template <class U>
  WipingAllocator(const WipingAllocator<U>&) {}
  T* allocate(size_t count) {
    return static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(64)));
  }
  void deallocate(T* data, size_t count) {
    sodium_memzero(data, count * sizeof(T));
    ::operator delete(data, std::align_val_t(64));
  }
  friend bool operator==(const WipingAllocator&, const WipingAllocator&) { return true; }
};

template <class T>
using SecretVector = std::vector<T, WipingAllocator<T>>;

// Coefficients of a small polynomial: a secret, an error, an encryption's random factor.
using SmallPolynomial = SecretVector<int8_t>;

}  // namespace aegis

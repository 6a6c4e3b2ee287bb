#include "backends/cuda/graphs.h"

namespace aegis {

size_t GraphCache::Hash::operator()(const Signature& signature) const {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a over words
  for (const uintptr_t word : signature) hash = (hash ^ word) * 0x100000001b3;
  return size_t(hash ^ hash >> 32);
}

GraphCache::Entry* GraphCache::find(const CallSite& site) {
  if (site.launches < 2 || site.launches > kMaxLaunches) return nullptr;
  Signature signature{reinterpret_cast<uintptr_t>(&site.function), reinterpret_cast<uintptr_t>(site.frame)};
  for (const uint64_t* buffer : site.buffers) signature.push_back(reinterpret_cast<uintptr_t>(buffer));
  for (const EncodedPlaintext* plaintext : site.plaintexts)
    signature.push_back(reinterpret_cast<uintptr_t>(plaintext));
  const auto found = entries_.find(signature);
  if (found != entries_.end()) return &found->second;
  return entries_.size() < kMaxSignatures ? &entries_[std::move(signature)] : nullptr;
}

void GraphCache::keep(Entry& entry, CudaHandle graph, uint64_t launches) {
  entry.graph = std::move(graph);
  keptLaunches_ += launches;
}

}  // namespace aegis

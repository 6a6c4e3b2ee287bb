#include "hal/channel.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "ckks/ring.h"
#include "hal/kernels.h"
#include "hal/thread_pool.h"
#include "support/error.h"

namespace aegis {
namespace {

constexpr double kDefaultTimeoutSeconds = 8;

uint64_t sumOf(const std::vector<uint64_t>& rows, size_t first, size_t count, size_t step = 1) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; i++) sum += rows[first + i * step];
  return sum;
}

}  // namespace

const char* collectiveName(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::kAllGather: return "all-gather";
    case CollectiveKind::kReduceScatter: return "reduce-scatter";
    case CollectiveKind::kAllReduce: return "all-reduce";
    case CollectiveKind::kAllToAll: return "all-to-all";
    case CollectiveKind::kBroadcast: return "broadcast";
  }
  return "?";
}

uint32_t Collective::indexOf(uint32_t rank) const {
  const auto found = std::lower_bound(group.begin(), group.end(), rank);
  return found == group.end() || *found != rank ? ~0u : uint32_t(found - group.begin());
}

uint64_t Collective::sendRows(uint32_t index) const {
  switch (kind) {
    case CollectiveKind::kAllGather: return rows[index];
    case CollectiveKind::kReduceScatter: return sumOf(rows, 0, rows.size());
    case CollectiveKind::kAllReduce: return rows[0];
    case CollectiveKind::kAllToAll: return sumOf(rows, size_t(index) * size(), size());
    case CollectiveKind::kBroadcast: return index == root ? rows[0] : 0;
  }
  return 0;
}

uint64_t Collective::receiveRows(uint32_t index) const {
  switch (kind) {
    case CollectiveKind::kAllGather: return sumOf(rows, 0, rows.size());
    case CollectiveKind::kReduceScatter: return rows[index];
    case CollectiveKind::kAllReduce: return rows[0];
    case CollectiveKind::kAllToAll: return sumOf(rows, index, size(), size());
    case CollectiveKind::kBroadcast: return index == root ? 0 : rows[0];
  }
  return 0;
}

uint64_t Collective::arrivingRows(uint32_t index) const {
  switch (kind) {
    case CollectiveKind::kAllGather: return receiveRows(index) - rows[index];
    case CollectiveKind::kReduceScatter: return (size() - 1) * rows[index];
    case CollectiveKind::kAllReduce: return (size() - 1) * segmentRows(index) + rows[0] - segmentRows(index);
    case CollectiveKind::kAllToAll: return receiveRows(index) - rows[size_t(index) * size() + index];
    case CollectiveKind::kBroadcast: return receiveRows(index);
  }
  return 0;
}

Collective::Transfer Collective::transfer(uint32_t from, uint32_t to) const {
  switch (kind) {
    case CollectiveKind::kAllGather: return {0, sumOf(rows, 0, from), rows[from]};
    case CollectiveKind::kReduceScatter: return {sumOf(rows, 0, to), 0, rows[to]};
    case CollectiveKind::kAllToAll:
      return {sumOf(rows, size_t(from) * size(), to), sumOf(rows, to, from, size()),
              rows[size_t(from) * size() + to]};
    case CollectiveKind::kBroadcast: return {0, 0, from == root && to != root ? rows[0] : 0};
    case CollectiveKind::kAllReduce: break;
  }
  AEGIS_INVARIANT(!"an all-reduce has two steps");
}

uint64_t Collective::segmentOffset(uint32_t k) const {
  return rows[0] / size() * k + std::min<uint64_t>(k, rows[0] % size());
}

uint16_t Collective::limbOf(uint32_t r, uint64_t i) const {
  const bool scatters = kind == CollectiveKind::kReduceScatter;
  const std::vector<uint16_t>& list = limbs[scatters ? r : 0];
  return list[(scatters ? i : segmentOffset(r) + i) % list.size()];
}

std::string Collective::describe() const {
  return "collective " + std::to_string(id) + " (" + collectiveName(kind) + ") for node \"" + node + "\"";
}

double channelTimeoutSeconds() {
  const char* text = std::getenv("AEGIS_CHANNEL_TIMEOUT");
  if (text == nullptr || *text == '\0') return kDefaultTimeoutSeconds;
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  if (*end != '\0' || !(seconds > 0 && seconds <= 86400))
    fail("R406", "AEGIS_CHANNEL_TIMEOUT is \"" + std::string(text) + "\", not a number of seconds");
  return seconds;
}

void sumBlocks(const RingContext& ring, ThreadPool& pool, const Collective& collective, uint32_t index,
               uint64_t first, uint64_t rows, const std::vector<const uint64_t*>& blocks, uint64_t* out) {
  const size_t n = ring.degree();
  pool.parallelFor(rows, 1, [&](size_t begin, size_t end) {
    std::vector<const uint64_t*> addends(blocks.size());
    for (size_t row = begin; row < end; row++) {
      for (size_t b = 0; b < blocks.size(); b++) addends[b] = blocks[b] + row * n;
      const Prime& prime = ring.prime(collective.limbOf(index, first + row));
      cpuKernels().sumRows(out + row * n, addends.data(), addends.size(), n, prime);
    }
  });
}

}  // namespace aegis

#include "test/channel_cases.h"

namespace aegis::test {
namespace {

Collective randomCollective(const RingContext& ring, uint32_t ranks, uint32_t id, std::mt19937_64& engine) {
  const auto below = [&](uint64_t bound) { return engine() % bound; };
  Collective c;
  c.id = id;
  c.kind = CollectiveKind(below(5));
  while (c.group.empty())
    for (uint32_t rank = 0; rank < ranks; rank++)
      if (below(4) != 0) c.group.push_back(uint16_t(rank));
  const uint32_t g = c.size();
  size_t counts = g;
  if (c.kind == CollectiveKind::kAllReduce || c.kind == CollectiveKind::kBroadcast) counts = 1;
  if (c.kind == CollectiveKind::kAllToAll) counts = size_t(g) * g;
  for (size_t i = 0; i < counts; i++) {
    std::vector<uint16_t> limbs;
    uint64_t rows = below(6);
    if (c.reduces()) {
      for (uint64_t k = 1 + below(3); k > 0; k--) limbs.push_back(uint16_t(below(ring.primeCount())));
      rows = below(4) * limbs.size();
      if (rows == 0) limbs.clear();
      c.limbs.push_back(limbs);
    }
    c.rows.push_back(c.kind == CollectiveKind::kAllToAll && i % (g + 1) == 0 ? 0 : rows);
  }
  c.root = uint32_t(below(g));
  return c;
}

}  // namespace

ChannelCase makeChannelCase(const RingContext& ring, uint32_t ranks, uint32_t count,
                            std::mt19937_64& engine) {
  ChannelCase one;
  one.degree = ring.degree();
  for (uint32_t id = 0; id < count; id++) {
    one.collectives.push_back(randomCollective(ring, ranks, id, engine));
    const Collective& c = one.collectives.back();
    one.sent.emplace_back();
    for (uint32_t i = 0; i < c.size(); i++) {
      std::vector<uint64_t> rows(c.sendRows(i) * one.degree);
      // Values up to the smallest prime: canonical modulo every one of them.
      for (uint64_t& word : rows) word = engine() % ring.modulus(1);
      one.sent.back().push_back(std::move(rows));
    }
  }
  return one;
}

std::vector<uint64_t> expectedBlock(const RingContext& ring, const ChannelCase& one, const Collective& c,
                                    uint32_t index) {
  const size_t n = one.degree, g = c.size();
  const auto& sent = one.sent[c.id];
  std::vector<uint64_t> result;
  const auto append = [&](const std::vector<uint64_t>& from, uint64_t first, uint64_t rows) {
    result.insert(result.end(), from.begin() + ptrdiff_t(first * n),
                  from.begin() + ptrdiff_t((first + rows) * n));
  };
  switch (c.kind) {
    case CollectiveKind::kAllGather:
      for (size_t s = 0; s < g; s++) append(sent[s], 0, c.rows[s]);
      break;
    case CollectiveKind::kReduceScatter:
    case CollectiveKind::kAllReduce: {
      const bool all = c.kind == CollectiveKind::kAllReduce;
      uint64_t first = 0;
      for (uint32_t k = 0; !all && k < index; k++) first += c.rows[k];
      const uint64_t rows = all ? c.rows[0] : c.rows[index];
      const std::vector<uint16_t>& limbs = c.limbs[all ? 0 : index];
      for (uint64_t i = 0; i < rows * n; i++) {
        const uint64_t q = ring.modulus(limbs[i / n % limbs.size()]);
        uint64_t sum = 0;
        for (size_t s = 0; s < g; s++) sum = (sum + sent[s][first * n + i]) % q;
        result.push_back(sum);
      }
      break;
    }
    case CollectiveKind::kAllToAll:
      for (size_t s = 0; s < g; s++) {
        uint64_t first = 0;
        for (uint32_t d = 0; d < index; d++) first += c.rows[s * g + d];
        append(sent[s], first, c.rows[s * g + index]);
      }
      break;
    case CollectiveKind::kBroadcast:
      if (index != c.root) append(sent[c.root], 0, c.rows[0]);
      break;
  }
  return result;
}

uint64_t expectedBytes(const RingContext& ring, const Collective& c, uint32_t index) {
  const uint64_t g = c.size();
  uint64_t rows = 0;
  switch (c.kind) {
    case CollectiveKind::kAllGather:
      for (uint32_t s = 0; s < g; s++) rows += s == index ? 0 : c.rows[s];
      break;
    case CollectiveKind::kReduceScatter: rows = (g - 1) * c.rows[index]; break;
    case CollectiveKind::kAllReduce: {
      const uint64_t segment = c.rows[0] / g + (index < c.rows[0] % g ? 1 : 0);
      rows = (g - 1) * segment + c.rows[0] - segment;
      break;
    }
    case CollectiveKind::kAllToAll:
      for (uint32_t s = 0; s < g; s++) rows += c.rows[s * g + index];
      break;
    case CollectiveKind::kBroadcast: rows = index == c.root ? 0 : c.rows[0]; break;
  }
  return rows * ring.degree() * sizeof(uint64_t);
}

}  // namespace aegis::test

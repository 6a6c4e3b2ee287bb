// Random collectives, what they send, and what they must deliver.
#pragma once

#include <random>
#include <vector>

#include "ckks/ring.h"
#include "hal/channel.h"

namespace aegis::test {

struct ChannelCase {
  size_t degree = 0;
  std::vector<Collective> collectives;
  std::vector<std::vector<std::vector<uint64_t>>> sent;  // [collective][index in the group]
};

ChannelCase makeChannelCase(const RingContext& ring, uint32_t ranks, uint32_t count, std::mt19937_64& engine);
std::vector<uint64_t> expectedBlock(const RingContext& ring, const ChannelCase& one, const Collective& c,
                                    uint32_t index);
// From the comment of hal/channel.h.
uint64_t expectedBytes(const RingContext& ring, const Collective& c, uint32_t index);

}  // namespace aegis::test

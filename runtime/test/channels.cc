// Collectives of the local channel against plain loops: all kinds, uneven rows, random groups, several open
// at once. aegis_channels_test
#include <cstring>
#include <random>
#include <thread>

#include "backends/cpu/device.h"
#include "channels/local/local.h"
#include "ckks/ring.h"
#include "hal/thread_pool.h"
#include "test/channel_cases.h"
#include "test/client_check.h"
#include "test/toy_plan.h"

namespace aegis::test {
namespace {

// What one rank does in a thread of its own: starts all collectives, waits in another order, keeps what it
// got.
struct Played {
  std::vector<std::vector<uint64_t>> received;  // by collective
  std::vector<uint64_t> bytes;
  std::string error;
};

void play(const RingContext& ring, const ChannelCase& one, Transport& transport, uint32_t rank,
          Played& played) {
  ThreadPool pool(1 + rank % 2);
  CpuDevice device(ring, pool);
  const std::unique_ptr<Channel> channel = transport.open(rank, device);
  std::vector<uint32_t> mine;
  played.received.resize(one.collectives.size());
  played.bytes.resize(one.collectives.size());
  try {
    for (const Collective& c : one.collectives) {
      const uint32_t index = c.indexOf(rank);
      if (index == ~0u) continue;
      played.received[c.id].assign(c.receiveRows(index) * one.degree, ~0ull);
      channel->start(c.id, one.sent[c.id][index].data(), played.received[c.id].data());
      mine.push_back(c.id);
      if (c.id % 3 == 2) continue;  // stays open
      channel->wait(c.id);
    }
    std::mt19937 order(rank);
    std::shuffle(mine.begin(), mine.end(), order);
    for (const uint32_t id : mine)
      if (id % 3 == 2) channel->wait(id);
    for (const uint32_t id : mine) played.bytes[id] = channel->receivedBytes(id);
  } catch (const Error& error) {
    played.error = error.what();
  }
}

void checkRandom(Checker& checker, const RingContext& ring) {
  std::mt19937_64 engine(3);
  for (uint32_t ranks = 1; ranks <= 5; ranks++) {
    uint32_t wrong = 0, compared = 0;
    std::string error;
    for (int round = 0; round < 12; round++) {
      const ChannelCase one = makeChannelCase(ring, ranks, 15, engine);
      const auto transport = makeLocalTransport({&ring, &one.collectives, ranks});
      std::vector<Played> played(ranks);
      std::vector<std::thread> threads;
      for (uint32_t rank = 0; rank < ranks; rank++)
        threads.emplace_back([&, rank] { play(ring, one, *transport, rank, played[rank]); });
      for (std::thread& thread : threads) thread.join();
      for (const Collective& c : one.collectives) {
        for (uint32_t i = 0; i < c.size(); i++) {
          const Played& own = played[c.group[i]];
          if (!own.error.empty()) error = own.error;
          wrong += own.received[c.id] != expectedBlock(ring, one, c, i);
          wrong += own.bytes[c.id] != expectedBytes(ring, c, i);
          compared++;
        }
      }
    }
    checker.check(wrong == 0 && error.empty(), "collectives of " + std::to_string(ranks) + " ranks",
                  std::to_string(compared) + " blocks " + error);
  }
}

// Several executions of one collective: the fast ranks run ahead of the slow ones.
void checkRepeated(Checker& checker, const RingContext& ring) {
  constexpr uint32_t kRanks = 3, kRounds = 200;
  std::vector<Collective> collectives(1);
  collectives[0].kind = CollectiveKind::kBroadcast;
  collectives[0].group = {0, 1, 2};
  collectives[0].rows = {1};
  const auto transport = makeLocalTransport({&ring, &collectives, kRanks});
  std::atomic<uint32_t> wrong{0};
  std::vector<std::thread> threads;
  for (uint32_t rank = 0; rank < kRanks; rank++) {
    threads.emplace_back([&, rank] {
      ThreadPool pool(1);
      CpuDevice device(ring, pool);
      const auto channel = transport->open(rank, device);
      std::vector<uint64_t> block(ring.degree());
      for (uint32_t round = 0; round < kRounds; round++) {
        if (rank == 0) block.assign(block.size(), round);
        channel->start(0, rank == 0 ? block.data() : nullptr, rank == 0 ? nullptr : block.data());
        channel->wait(0);
        wrong += block[0] != round || block.back() != round;
      }
      wrong += channel->executions(0) != kRounds;
    });
  }
  for (std::thread& thread : threads) thread.join();
  checker.check(wrong == 0, "two hundred executions of one broadcast");
}

// A rank that stays away is named by the others.
void checkSilence(Checker& checker, const RingContext& ring) {
  setenv("AEGIS_CHANNEL_TIMEOUT", "0.3", 1);
  std::vector<Collective> collectives(1);
  collectives[0].kind = CollectiveKind::kAllGather;
  collectives[0].group = {0, 1};
  collectives[0].rows = {1, 1};
  collectives[0].node = "scores";
  const auto transport = makeLocalTransport({&ring, &collectives, 2});
  ThreadPool pool(1);
  CpuDevice device(ring, pool);
  const auto channel = transport->open(0, device);
  std::vector<uint64_t> block(3 * ring.degree());
  std::string message;
  try {
    channel->start(0, block.data(), block.data() + ring.degree());
    channel->wait(0);
  } catch (const Error& error) {
    message = error.code() + " " + error.what();
  }
  const std::string expected =
      "R405 rank 0 gave up in collective 0 (all-gather) for node \"scores\": rank 1 has made no progress for "
      "0.3 s";
  checker.check(message == expected, "a rank that stays away", message);
  setenv("AEGIS_CHANNEL_TIMEOUT", "soon", 1);
  checker.refuses("R406", "a time-out that is no number",
                  [&] { makeLocalTransport({&ring, &collectives, 2}); });
  unsetenv("AEGIS_CHANNEL_TIMEOUT");
}

}  // namespace
}  // namespace aegis::test

int main() {
  using namespace aegis::test;
  Checker checker;
  const aegis::RingContext ring(6, toyPrimes(6, 3, 1));
  checkRandom(checker, ring);
  checkRepeated(checker, ring);
  checkSilence(checker, ring);
  return checker.finish();
}

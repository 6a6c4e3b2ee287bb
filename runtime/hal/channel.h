// How the ranks of a plan exchange rows: one Channel for each rank, made by a Transport.
//
// A *row* is N words of 64 bits, a *block* a run of contiguous rows. Every rank of a collective's group
// starts it in the same order, and waits for what it started; until then neither block may be touched. With G
// ranks in the group and r the index in it of the rank at hand:
//
//   AllGather      sends rows[r] rows; receives the blocks of ranks 0..G-1 in order, its own included.
//   ReduceScatter  sends sum(rows) rows, the blocks for ranks 0..G-1 in order; receives rows[r] rows, the sum
//   of
//                  the blocks r of all ranks.
//   AllReduce      sends and receives rows[0] rows; receives the sum of all send blocks.
//   AllToAll       sends the blocks for ranks d = 0..G-1 in order, rows[r*G + d] rows each; receives the
//   blocks
//                  from s = 0..G-1 in order, rows[s*G + r] rows each.
//   Broadcast      `root` sends rows[0] rows, the others receive them.
//
// Sums are modular: row i of segment k belongs to prime limbs[k][i % limbs[k].size()], ReduceScatter has a
// segment for each rank and AllReduce one. Residues are below 2^50, so up to 2^14 of them are added in 64
// bits and reduced once: the result does not depend on the order.
//
// Received bytes are counted where they are copied or arrive, a rank's own rows apart: AllGather sum(rows) -
// rows[r], ReduceScatter (G-1) rows[r], AllReduce (reduce-scatter of segments, then all-gather of the sums)
// (G-1) segment(r) + rows[0] - segment(r), AllToAll the column sum, Broadcast rows[0] unless root. In rows.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace aegis {

class Device;
class RingContext;
class ThreadPool;

constexpr uint32_t kMaxRanks = 64;

// The order of plan.fbs.
enum class CollectiveKind : uint8_t { kAllGather, kReduceScatter, kAllReduce, kAllToAll, kBroadcast };
const char* collectiveName(CollectiveKind kind);  // "all-gather"

struct Collective {
  uint32_t id = 0;
  CollectiveKind kind = CollectiveKind::kAllGather;
  std::vector<uint16_t> group;  // rising
  std::vector<uint64_t> rows;
  std::vector<std::vector<uint16_t>> limbs;
  uint32_t root = 0;            // index into the group
  std::string node;             // ONNX node of the consumer
  uint64_t executions = 0;      // predicted, of one run
  std::vector<uint64_t> predictedBytes;  // received by each rank of the group in one run

  uint32_t size() const { return uint32_t(group.size()); }
  bool reduces() const {
    return kind == CollectiveKind::kReduceScatter || kind == CollectiveKind::kAllReduce;
  }
  uint32_t indexOf(uint32_t rank) const;  // ~0u if the rank is not in the group
  uint64_t sendRows(uint32_t index) const;
  uint64_t receiveRows(uint32_t index) const;
  uint64_t arrivingRows(uint32_t index) const;  // of one execution, counted as above
  // Where the rows that go from `from` to `to` start in from's send block and in to's receive block, and how
  // many there are; not for AllReduce. A reduction receives all of them at 0, as addends.
  struct Transfer {
    uint64_t sendOffset = 0, receiveOffset = 0, rows = 0;
  };
  Transfer transfer(uint32_t from, uint32_t to) const;
  // AllReduce: rows of the part that index k sums, as even as they can be, the first ones longer.
  uint64_t segmentRows(uint32_t k) const { return rows[0] / size() + (k < rows[0] % size() ? 1 : 0); }
  uint64_t segmentOffset(uint32_t k) const;
  // Prime of row i of what index r receives from a reduction.
  uint16_t limbOf(uint32_t r, uint64_t i) const;
  // `collective 5 (all-gather) for node "encoder.0/attn"`
  std::string describe() const;
};

// How one rank takes part. Not shared between threads; abort() excepted, which any thread may call.
class Channel {
 public:
  virtual ~Channel() = default;
  // Before the first collective of a run, on the thread that runs the rank, by all ranks of the job.
  virtual void connect() {}
  // Blocks hold sendRows and receiveRows rows, and may be null where those are 0. At most one execution of a
  // collective is open at a time.
  // R405: another rank failed or made no progress for the time-out; the message names this rank, the
  // collective, its kind and its node.
  // Blocks are the device's (Transport::open). What was launched before is done, unless the channel enqueues.
  virtual void start(uint32_t collective, const uint64_t* send, uint64_t* receive) = 0;
  virtual void wait(uint32_t collective) = 0;
  // start and wait only order what the device does: its launches before and after them.
  virtual bool enqueues() const { return false; }
  // A sign of life, every second or oftener: whoever gives none for the time-out counts as hung. R405 if the
  // job was aborted.
  virtual void beat() = 0;
  // A sign of life of a rank whose rows of this collective go another way than through this channel. R405 as
  // from wait().
  virtual void watch(uint32_t collective) = 0;
  // All collectives of a run have been waited for, and the device has finished: R405 if one went wrong.
  virtual void finish() {}
  // After an error: ends what the channel has enqueued, so that the device's streams come to their end.
  virtual void drop() noexcept {}
  // Ends the job: all ranks, wherever they wait, get R405 with this reason.
  virtual void abort(const std::string& reason) noexcept = 0;
  virtual uint64_t receivedBytes(uint32_t collective) const = 0;  // since the last reset
  virtual uint64_t executions(uint32_t collective) const = 0;
  virtual void resetCounts() = 0;
};

// What a job's channels have in common.
struct TransportJob {
  const RingContext* ring = nullptr;
  const std::vector<Collective>* collectives = nullptr;
  uint32_t rankCount = 1;
};

// Ranks of this process, and the way to the others. Outlives its channels.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual const char* name() const = 0;
  virtual bool movesRows() const { return true; }  // its channels have collectives
  virtual const std::vector<uint32_t>& ranks() const = 0;  // that this process runs, rising
  // Once for every rank of this process. The device copies and adds; it outlives the channel.
  virtual std::unique_ptr<Channel> open(uint32_t rank, Device& device) = 0;
  // Ready for a run, after a failed one too: no collective is open, nothing is aborted.
  virtual void begin() = 0;

  // Between processes, outside of collectives: one message after the other, in order. R405 as above.
  virtual void send(uint32_t toRank, const void* data, uint64_t bytes) = 0;
  virtual void receive(uint32_t fromRank, void* data, uint64_t bytes) = 0;
  virtual void beat() {}
  // The end of the job, after rank 0 has written the results. Without it the other processes are taken to
  // have failed.
  virtual void close() {}
  // What the user should know of how rows travel here, a sentence each.
  virtual std::vector<std::string> warnings() const { return {}; }
};

// Seconds without progress after which a rank counts as hung: AEGIS_CHANNEL_TIMEOUT, or 8.
double channelTimeoutSeconds();

// out = sum of the blocks modulo the primes of rows first .. first + rows - 1 of what index `index` receives
// from the reduction. out may be one of the blocks.
void sumBlocks(const RingContext& ring, ThreadPool& pool, const Collective& collective, uint32_t index,
               uint64_t first, uint64_t rows, const std::vector<const uint64_t*>& blocks, uint64_t* out);

}  // namespace aegis

#include "executor/session.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "channels/local/local.h"
#include "executor/backend.h"
#include "executor/exchange_results.h"
#include "executor/ranks.h"
#include "hal/thread_pool.h"
#include "support/error.h"

namespace aegis {

TransportJob transportJob(const PlanFile& plan) {
  return {&plan.ring(), &plan.collectives(), uint32_t(plan.programs().size())};
}

struct Session::State {
  State(std::shared_ptr<const PlanFile> planFile, const Weights& weights, KeySource source, uint32_t threads,
        const RunOptions& loading, std::shared_ptr<Transport> given, const std::string& backendName)
      : plan(std::move(planFile)),
        keys(std::move(source)),
        fault(plan->insecure() ? Fault::fromEnvironment() : std::nullopt),
        transport(given != nullptr ? std::move(given) : makeLocalTransport(transportJob(*plan))),
        pool(threads),
        backend(makeBackend(backendName, {*plan, transport->ranks(), weights, keys.view, keys.bytes, pool,
                                          loading})) {
    const std::vector<uint32_t>& own = transport->ranks();
    for (const uint32_t rank : own) {
      ThreadPool* rankPool = &pool;
      if (own.size() > 1) {
        const auto share = std::max<uint32_t>(1, pool.threadCount() / uint32_t(own.size()));
        rankPool = pools.emplace_back(std::make_unique<ThreadPool>(share)).get();
      }
      ranks.push_back(
          std::make_unique<Rank>(Rank::Setting{*plan, *backend, *transport}, rank, *rankPool));
    }
    if (!backend->readsKeysInPlace()) keys.view = nullptr;
  }

  void checkInput(const plan::Port& port, const CiphertextArray& input);
  void copyIn(const CiphertextArray& input, uint32_t port, Rank& rank);

  const std::shared_ptr<const PlanFile> plan;
  KeySource keys;
  const std::optional<Fault> fault;
  const std::shared_ptr<Transport> transport;
  ThreadPool pool;
  const std::unique_ptr<Backend> backend;
  std::vector<std::unique_ptr<ThreadPool>> pools;  // of the ranks, if there are several
  std::vector<std::unique_ptr<Rank>> ranks;
  std::mutex running;
  bool stuck = false;  // a rank hangs in its thread
};

Session::Session(std::shared_ptr<const PlanFile> plan, const Weights& weights, KeySource keys,
                 uint32_t threads, const RunOptions& loading, std::shared_ptr<Transport> transport,
                 const std::string& backend)
    : state_(std::make_shared<State>(std::move(plan), weights, std::move(keys), threads, loading,
                                     std::move(transport), backend)) {}

Session::~Session() = default;

ThreadPool& Session::pool() { return state_->pool; }
const PlanFile& Session::plan() const { return *state_->plan; }
uint64_t Session::staticBytes() const { return state_->backend->staticBytes(); }

std::vector<std::string> Session::warnings() const {
  std::vector<std::string> all = state_->backend->warnings();
  for (std::string& warning : state_->transport->warnings()) all.push_back(std::move(warning));
  return all;
}

uint64_t Session::arenaBytes() const {
  uint64_t bytes = 0;
  for (const auto& rank : state_->ranks) bytes += rank->program().memory.arenaBytes();
  return bytes;
}

void Session::State::checkInput(const plan::Port& port, const CiphertextArray& input) {
  const std::string name = "input " + port.name()->str();
  const size_t n = plan->ring().degree(), limbs = port.level() + size_t(1);
  if (input.elements != port.elements() || input.limbCount != limbs ||
      input.data.size() != port.elements() * 2 * limbs * n)
    fail("R302", name + " has " + std::to_string(input.elements) + " ciphertexts of " +
                     std::to_string(input.limbCount) + " limbs but the plan takes " +
                     std::to_string(port.elements()) + " of " + std::to_string(limbs));
  std::atomic<bool> canonical{true};
  pool.parallelFor(size_t(port.elements()) * 2 * limbs, 1, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; row++) {
      const uint64_t q = plan->ring().modulus(uint32_t(row % limbs));
      const uint64_t* words = input.data.data() + row * n;
      uint64_t over = 0;
      for (size_t k = 0; k < n; k++) over |= uint64_t(words[k] >= q);
      if (over) canonical = false;
    }
  });
  if (!canonical) fail("R302", name + " has a residue that is not below its prime");
}

// Rows of the part, in order: [element][component][limb].
void Session::State::copyIn(const CiphertextArray& input, uint32_t port, Rank& rank) {
  const PortPartSpec& part = rank.program().inputs[port];
  const size_t n = plan->ring().degree();
  rank.device().writeRows(rank.argument(part.buffer), part.elements.size() * 2 * part.limbs.size(),
                          [&](size_t row) {
                            return input.data.data() + portRow(part, input.limbCount, row) * n;
                          });
}

RunResult Session::run(const std::vector<CiphertextArray>& inputs, const RunOptions& options) {
  State& state = *state_;
  const plan::Plan& plan = state.plan->plan();
  if (inputs.size() != plan.inputs()->size())
    fail("R302", "the plan takes " + std::to_string(plan.inputs()->size()) + " inputs but got " +
                     std::to_string(inputs.size()));
  const std::lock_guard<std::mutex> lock(state.running);
  if (state.stuck) fail("R405", "a rank of an earlier run still hangs", "start again in a new process");
  const auto start = std::chrono::steady_clock::now();
  std::vector<Rank*> ranks;
  for (const auto& rank : state.ranks) ranks.push_back(rank.get());
  for (uint32_t i = 0; i < inputs.size(); i++) {
    state.checkInput(*plan.inputs()->Get(i), inputs[i]);
    for (Rank* rank : ranks) state.copyIn(inputs[i], i, *rank);
  }
  state.transport->begin();
  RunResult result;
  result.ranks = runRanks(state_, ranks, options, state.fault, state.stuck);
  gatherResults(*state.plan, *state.transport, ranks, result);
  for (const RankStatistics& rank : result.ranks) {
    result.nodeSeconds.resize(rank.nodeSeconds.size(), 0);
    for (size_t i = 0; i < rank.nodeSeconds.size(); i++) result.nodeSeconds[i] += rank.nodeSeconds[i];
    for (uint32_t i = 0; i < kOpcodeCount; i++) {
      result.opcodes[i].seconds += rank.opcodes[i].seconds;
      result.opcodes[i].launches += rank.opcodes[i].launches;
      result.opcodes[i].rowBytes += rank.opcodes[i].rowBytes;
    }
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace aegis

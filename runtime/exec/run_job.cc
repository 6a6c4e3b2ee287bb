#include "exec/run_job.h"

#include <sodium.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>

#include "backends/cuda/load.h"
#include "channels/folder/folder.h"
#include "channels/local/local.h"
#include "channels/mpi/mpi.h"
#include "channels/nccl/nccl.h"
#include "client/ciphertext_file.h"
#include "client/eval_keys.h"
#include "client/machine.h"
#include "exec/checkpoint_file.h"
#include "executor/session.h"
#include "executor/weights.h"
#include "plan/plan_file.h"
#include "support/error.h"

namespace aegis {
namespace {

using Clock = std::chrono::steady_clock;

double secondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string hashOf(const ByteSource& source) {
  std::vector<uint8_t> chunk(size_t(1) << 20);
  crypto_hash_sha256_state state;
  crypto_hash_sha256_init(&state);
  for (uint64_t at = 0; at < source.size(); at += chunk.size()) {
    const auto bytes = size_t(std::min<uint64_t>(chunk.size(), source.size() - at));
    source.read(at, chunk.data(), bytes);
    crypto_hash_sha256_update(&state, chunk.data(), bytes);
  }
  uint8_t hash[crypto_hash_sha256_BYTES];
  crypto_hash_sha256_final(&state, hash);
  return toHex(hash, sizeof hash);
}

SafeTensors openWeights(const std::string& path, const plan::Plan& plan) {
  SafeTensors file = SafeTensors::open(path);
  if (file.meta("format") == "aegis-secret-key")
    fail("R310", path + " is a secret key, expected a weights file",
         "a secret key never belongs to a server");
  if (hashOf(file.source()) != plan.weights_hash()->string_view())
    fail("R113", path + " is not the weights file of this plan", "copy PLAN and PLAN.weights together");
  return file;
}

CiphertextArray readInput(const CiphertextReader& reader, const plan::Port& port,
                          const ClientParameters& parameters, ThreadPool& pool) {
  CiphertextArray array{port.elements(), port.level() + 1u, {}};
  array.data.resize(ciphertextWords(port, parameters));
  reader.read(port, pool, array.data.data());
  return array;
}

void checkOptions(const RunJob& job) {
  if (job.backend == "cuda") {
    const CudaMachine machine = cudaMachine();
    if (machine.devices.empty())
      fail("R404", "backend \"cuda\" is not to be had here: " + machine.problem, machine.help);
  } else if (job.backend != "cpu") {
    fail("R404", "backend \"" + job.backend + "\" is not built in; this build has: cpu, cuda");
  }
  if (job.channel != "local" && job.channel != "mpi" && job.channel != "nccl")
    fail("R404", "channel \"" + job.channel + "\" is not built in; this build has: local, mpi, nccl");
  if (job.channel == "nccl" && job.backend != "cuda")
    fail("R404", "channel \"nccl\" moves rows between GPUs, but the backend is " + job.backend,
         "add --backend cuda, or use --channel local or mpi");
}

void checkCheckpoints(const RunJob& job, const PlanFile& plan) {
  if (job.checkpoint.empty()) return;
  if (job.channel != "local")
    fail("R410", "no checkpoints with channel \"" + job.channel + "\": the ranks must be in one process",
         "use --channel local, or leave --checkpoint out");
  if (!stopsAnywhere(plan) && commonStops(plan)[0].empty())
    fail("R410", "no checkpoints with this plan: its ranks are never between two calls together",
         "leave --checkpoint out");
}

// The checkpoints of one run, from their folder's lock to their removal.
class RunCheckpoints {
 public:
  RunCheckpoints(const RunJob& job, const PlanFile& plan)
      : folder_(job.checkpoint, plan, job.progress), job_(job), plan_(plan) {
    if (!job.resume && folder_.holdsAny())
      fail("R413", job.checkpoint + " holds a checkpoint of a run that was cut short",
           "--resume goes on from it; to start again, remove it");
  }

  void prepare(const std::vector<CiphertextArray>& inputs, RunOptions& options) {
    folder_.belongsTo(runIdentity(plan_, job_.keys, inputs));
    if (job_.resume) source_ = folder_.newest();
    if (job_.resume && source_ == nullptr)
      job_.progress.warning("R416", job_.checkpoint + " holds no checkpoint: the run starts from the start");
    checkpoints_.emplace(plan_, folder_, job_.checkpointSeconds);
    options.checkpoints = &*checkpoints_;
    options.resume = source_.get();
  }

  // What to do after an interruption.
  Error explain(const Error& error) const {
    if (error.code() != "R401" || !folder_.holdsAny()) return error;
    return Error("R401", error.what(),
                 "the same command with --resume goes on from the checkpoint in " + job_.checkpoint);
  }

  CheckpointReport report() const {
    const CheckpointStatistics& s = folder_.statistics();
    CheckpointReport report{s.written, s.bytes, s.seconds, 0};
    if (source_ == nullptr) return report;
    uint64_t done = 0, total = 0;
    for (uint32_t rank = 0; rank < plan_.programs().size(); rank++) {
      done += workBefore(plan_.programs()[rank], source_->position(rank));
      total += plan_.programs()[rank].entry().rowCost;
    }
    report.resumedAt = double(done) / double(std::max<uint64_t>(1, total));
    return report;
  }

  void finish() { folder_.removeAll(); }

 private:
  CheckpointFolder folder_;
  const RunJob& job_;
  const PlanFile& plan_;
  std::unique_ptr<CheckpointFile> source_;
  std::optional<Checkpoints> checkpoints_;
};

// Whether a launcher has started other processes beside this one.
bool launchedWithOthers() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS"}) {
    const char* text = std::getenv(name);
    if (text != nullptr && std::atoi(text) > 1) return true;
  }
  return false;
}

std::shared_ptr<Transport> makeTransport(const std::string& channel, const TransportJob& ranks) {
  if (channel == "mpi") return makeMpiTransport(ranks);
  if (channel == "local") return makeLocalTransport(ranks);
  const Rendezvous rendezvous = rendezvousOfProcess(ranks.rankCount);
  if (!rendezvous.folder.empty())
    return makeNcclTransport(ranks, makeFolderTransport(ranks, rendezvous));
  return makeNcclTransport(ranks, launchedWithOthers() ? makeMpiTransport(ranks) : makeLocalTransport(ranks));
}

// Processes of one machine share its cores; the launchers of Open MPI, MPICH and Slurm say how many there
// are.
uint32_t threadsOfProcess(uint32_t wanted) {
  if (wanted != 0) return wanted;
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE"}) {
    const char* text = std::getenv(name);
    const int count = text == nullptr ? 0 : std::atoi(text);
    if (count > 0) return std::max(1u, std::thread::hardware_concurrency() / uint32_t(count));
  }
  return 0;
}

uint64_t processPeakBytes() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return uint64_t(usage.ru_maxrss) * 1024;
}

RankReport rankReport(const PlanFile& plan, const RankStatistics& rank) {
  RankReport report{rank.rank, rank.peakBytes(), rank.staticBytes, rank.seconds, rank.computeSeconds,
                    rank.waitSeconds, {}};
  for (const CollectiveStatistics& c : rank.collectives) {
    const Collective& collective = plan.collectives()[c.id];
    report.collectives.push_back({c.id, collective.node, collectiveName(collective.kind), c.executions,
                                  c.predictedBytes, c.receivedBytes, c.waitSeconds});
  }
  return report;
}

RunReport reportOf(const PlanFile& plan, const RunResult& result) {
  RunReport report;
  report.seconds = result.seconds;
  report.insecure = plan.insecure();
  report.processPeakBytes = processPeakBytes();
  for (const RankStatistics& rank : result.ranks) report.ranks.push_back(rankReport(plan, rank));
  for (uint32_t i = 0; i < result.nodeSeconds.size(); i++)
    if (result.nodeSeconds[i] > 0)
      report.nodes.push_back({std::string(plan.location(i)), result.nodeSeconds[i], 0, 0});
  for (uint32_t i = 0; i < kOpcodeCount; i++) {
    const OpcodeStatistics& op = result.opcodes[i];
    if (op.launches > 0)
      report.opcodes.push_back({plan::EnumNameOpcode(plan::Opcode(i)), op.seconds, op.launches, op.rowBytes});
  }
  return report;
}

RunResult runInputs(Session& session, const std::vector<CiphertextArray>& inputs, const RunOptions& options,
                    const std::optional<RunCheckpoints>& checkpoints) {
  try {
    return session.run(inputs, options);
  } catch (const Error& error) {
    if (!checkpoints.has_value()) throw;
    throw checkpoints->explain(error);
  }
}

}  // namespace

RunReport runJob(const RunJob& job) {
  const auto start = Clock::now();
  checkOptions(job);
  const auto plan = std::make_shared<const PlanFile>(PlanFile::open(job.plan, {kNoMemoryLimit}));
  checkCheckpoints(job, *plan);
  const TransportJob ranks = transportJob(*plan);
  const std::shared_ptr<Transport> transport = makeTransport(job.channel, ranks);
  const bool distributed = transport->ranks().size() < ranks.rankCount;
  const bool root = transport->ranks().front() == 0;
  // The devices say for themselves what they lack.
  if (job.backend == "cpu")
    plan->requireMemory(availableMemoryBytes(), distributed ? transport->ranks().front() : kAllRanks);
  const uint32_t threads = distributed ? threadsOfProcess(job.threads) : job.threads;
  // While a process loads, the others wait for it: it gives signs of life.
  Progress progress = job.progress;
  progress.report = [&](const std::string& detail, uint64_t done, uint64_t total) {
    transport->beat();
    if (root && job.progress.report) job.progress.report(detail, done, total);
  };
  const ClientParameters parameters = ClientParameters::fromPlan(plan->plan());
  // What can be wrong with small files is said before the keys are loaded, which takes long.
  const SafeTensors weightsFile =
      openWeights(job.weights.empty() ? job.plan + ".weights" : job.weights, plan->plan());
  const SafeTensorsWeights weights(weightsFile);
  const CiphertextReader request(job.in, plan->plan(), parameters, CiphertextKind::kRequest);
  std::optional<RunCheckpoints> checkpoints;
  if (!job.checkpoint.empty()) checkpoints.emplace(job, *plan);
  ThreadPool pool(threads);
  const std::vector<std::vector<uint16_t>> keyRows = plan->keyRowsOf(transport->ranks());
  auto keys =
      std::make_shared<const EvalKeys>(EvalKeys::open(job.keys, parameters, pool, progress, &keyRows));
  if (keys->keyId() != request.keyId())
    fail("R311", job.in + " was encrypted with other keys than " + job.keys,
         "use eval.keys of the folder whose public.key encrypted the request");

  RunOptions options;
  options.cancel = job.progress.cancelled;
  options.progress = [&](uint64_t done, uint64_t total, std::string_view node) {
    progress.step(std::string(node).c_str(), done, total);
  };
  // The session lets go of keys that it has copied to GPUs.
  Session session(plan, weights, std::move(keys), threads, options, transport, job.backend);
  std::vector<CiphertextArray> inputs;
  for (const plan::Port* port : *plan->plan().inputs())
    inputs.push_back(readInput(request, *port, parameters, pool));
  for (const std::string& warning : session.warnings()) job.progress.warning("R409", warning);
  if (checkpoints.has_value()) checkpoints->prepare(inputs, options);
  const double loadSeconds = secondsSince(start);
  const RunResult result = runInputs(session, inputs, options, checkpoints);

  RunReport report = reportOf(*plan, result);
  report.loadSeconds = loadSeconds;
  report.root = root;
  for (const std::string& warning : session.warnings()) report.warnings.push_back({"R409", warning});
  std::vector<const uint64_t*> outputs;
  for (const CiphertextArray& output : result.outputs) outputs.push_back(output.data.data());
  if (root)
    report.outputSha256 = writeResponse(job.out, plan->plan(), parameters, request.keyId(), outputs);
  if (checkpoints.has_value()) {
    report.checkpoint = checkpoints->report();
    checkpoints->finish();
  }
  transport->close();
  return report;
}

}  // namespace aegis

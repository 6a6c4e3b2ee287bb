// aegis-exec: `aegis run` without Node. Exit codes 0 ok, 1 user error, 2 usage, 70 internal, 130 interrupted.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <string>
#include <unistd.h>

#include "channels/mpi/mpi.h"
#include "exec/run_job.h"
#include "support/error.h"

namespace aegis {
namespace {

constexpr int kUserError = 1, kUsage = 2, kInternal = 70, kInterrupted = 130;
constexpr uint32_t kMaxThreads = 4096;
constexpr uint32_t kMaxIntervalSeconds = 86400;
// mpirun sends SIGTERM to all, and SIGKILL a second later or as soon as the first of them ends (Open MPI 4
// sleeps in between, and SIGCHLD wakes it): who ended at once would silence those that have not run yet.
constexpr int kLingerMs = 500;

constexpr const char* kHelp =
    "aegis-exec PLAN --keys eval.keys --in REQUEST.ct -o RESPONSE.ct [options]\n"
    "\n"
    "Runs a plan on an encrypted request; needs no secret.\n"
    "\n"
    "  --keys FILE        evaluation keys of aegis keygen\n"
    "  --in FILE          request of aegis encrypt\n"
    "  -o, --output FILE  response to write\n"
    "  --weights FILE     weights file, PLAN.weights unless given\n"
    "  --backend NAME     cpu (default), or cuda: NVIDIA GPUs, rank r on device r modulo their number\n"
    "  --channel NAME     local (default): ranks are threads; mpi: processes, one for each rank:\n"
    "                     mpirun -n RANKS aegis-exec PLAN --channel mpi ...; nccl: either of them,\n"
    "                     rows between GPUs by NCCL (AEGIS_RENDEZVOUS: processes without MPI)\n"
    "  --threads N        all cores unless given\n"
    "  --checkpoint DIR   leave the state of the run there every --checkpoint-interval seconds (60)\n"
    "  --resume           go on from the checkpoint in DIR, if there is one\n"
    "  --json             result and errors as JSON on standard output\n"
    "  --help             this text\n";

struct Arguments {
  RunJob job;
  bool json = false, help = false;
};

struct UsageError {
  std::string message;
};

std::atomic<bool> interrupted{false};

// A second Ctrl-C does not wait for the kernel at work. _exit leaves a temporary file behind at worst.
// A launcher of MPI ends the other processes with SIGTERM when one has failed: each says where it was, and
// stays until the others have, too.
extern "C" void onSignal(int signal) {
  if (signal == SIGTERM && writePendingCollective(STDERR_FILENO)) {
    poll(nullptr, 0, kLingerMs);
    _exit(kInterrupted);
  }
  if (interrupted.exchange(true)) _exit(kInterrupted);
}

uint32_t parseCount(const std::string& option, const std::string& text, uint32_t least, uint32_t most) {
  char* end = nullptr;
  const unsigned long value = std::strtoul(text.c_str(), &end, 10);
  if (text.empty() || text[0] < '0' || text[0] > '9' || *end != '\0' || value < least || value > most)
    throw UsageError{option + " takes a number from " + std::to_string(least) + " to " +
                     std::to_string(most)};
  return uint32_t(value);
}

void checkArguments(const RunJob& job) {
  if (job.plan.empty()) throw UsageError{"the plan is missing"};
  if (job.keys.empty()) throw UsageError{"--keys is missing"};
  if (job.in.empty()) throw UsageError{"--in is missing"};
  if (job.out.empty()) throw UsageError{"-o is missing"};
  if (job.resume && job.checkpoint.empty()) throw UsageError{"--resume needs --checkpoint"};
}

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  RunJob& job = arguments.job;
  std::string threads, interval;
  const std::pair<const char*, std::string*> options[] = {
      {"--keys", &job.keys},       {"--in", &job.in},           {"-o", &job.out},
      {"--output", &job.out},      {"--weights", &job.weights}, {"--backend", &job.backend},
      {"--channel", &job.channel}, {"--threads", &threads},     {"--checkpoint", &job.checkpoint},
      {"--checkpoint-interval", &interval},
  };
  for (int i = 1; i < argc; i++) {
    const std::string argument = argv[i];
    const size_t equals = argument.rfind("--", 0) == 0 ? argument.find('=') : std::string::npos;
    const std::string name = argument.substr(0, equals);
    if (argument == "--json") {
      arguments.json = true;
    } else if (argument == "--resume") {
      job.resume = true;
    } else if (argument == "--help" || argument == "-h") {
      arguments.help = true;
    } else if (argument.empty() || argument[0] != '-') {
      if (!job.plan.empty()) throw UsageError{"more than one plan: " + argument};
      job.plan = argument;
    } else {
      std::string* value = nullptr;
      for (const auto& [option, place] : options)
        if (name == option) value = place;
      if (value == nullptr) throw UsageError{"unknown option " + name};
      if (equals == std::string::npos && i + 1 >= argc) throw UsageError{name + " needs a value"};
      *value = equals == std::string::npos ? argv[++i] : argument.substr(equals + 1);
    }
  }
  if (arguments.help) return arguments;
  checkArguments(job);
  if (!threads.empty()) job.threads = parseCount("--threads", threads, 1, kMaxThreads);
  if (!interval.empty())
    job.checkpointSeconds = parseCount("--checkpoint-interval", interval, 0, kMaxIntervalSeconds);
  return arguments;
}

nlohmann::ordered_json reportJson(const RunReport& report) {
  nlohmann::ordered_json ranks = nlohmann::ordered_json::array(), opcodes = nlohmann::ordered_json::array();
  for (const RankReport& rank : report.ranks) {
    nlohmann::ordered_json collectives = nlohmann::ordered_json::array();
    for (const CollectiveReport& c : rank.collectives)
      collectives.push_back({{"id", c.id}, {"node", c.node}, {"kind", c.kind}, {"executions", c.executions},
                             {"predictedBytes", c.predictedBytes}, {"receivedBytes", c.receivedBytes},
                             {"waitSeconds", c.waitSeconds}});
    ranks.push_back({{"rank", rank.rank}, {"peakBytes", rank.peakBytes}, {"staticBytes", rank.staticBytes},
                     {"collectives", collectives}, {"seconds", rank.seconds},
                     {"computeSeconds", rank.computeSeconds}, {"waitSeconds", rank.waitSeconds}});
  }
  for (const NamedSeconds& op : report.opcodes)
    opcodes.push_back(
        {{"op", op.name}, {"seconds", op.seconds}, {"launches", op.launches}, {"rowBytes", op.rowBytes}});
  nlohmann::ordered_json result = {
      {"outputSha256", report.outputSha256}, {"seconds", report.seconds}, {"ranks", ranks},
      {"insecure", report.insecure}, {"loadSeconds", report.loadSeconds},
      {"processPeakBytes", report.processPeakBytes}, {"opcodes", opcodes}};  // NaN becomes null
  if (const auto& c = report.checkpoint)
    result["checkpoint"] = {{"written", c->written}, {"bytes", c->bytes}, {"seconds", c->seconds},
                            {"resumedAt", c->resumedAt}};
  return result;
}

// Invalid UTF-8 of file names is replaced, not thrown at the user.
std::string dump(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

int reportError(const Arguments& arguments, const Error& error, int status) {
  std::vector<Error> all = {error};
  all.insert(all.end(), error.others().begin(), error.others().end());
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Error& one : all) {
    list.push_back({{"code", one.code()}, {"message", one.what()}});
    if (!one.help().empty()) list.back()["help"] = one.help();
    if (arguments.json) continue;
    std::fprintf(stderr, "error[%s]: %s\n", one.code().c_str(), one.what());
    if (!one.help().empty()) std::fprintf(stderr, "  help: %s\n", one.help().c_str());
  }
  if (arguments.json) std::printf("%s\n", dump({{"errors", list}}).c_str());
  return interrupted ? kInterrupted : status;
}

Progress progressOnTerminal() {
  Progress progress;
  progress.cancelled = &interrupted;
  progress.warn = [](const std::string& code, const std::string& message) {
    std::fprintf(stderr, "%swarning[%s]: %s\n", isatty(STDERR_FILENO) ? "\r\033[K" : "", code.c_str(),
                 message.c_str());
  };
  if (!isatty(STDERR_FILENO)) return progress;
  progress.report = [](const std::string& detail, uint64_t done, uint64_t total) {
    std::fprintf(stderr, "\r%3d %% %-60.60s%s", total == 0 ? 100 : int(100.0 * double(done) / double(total)),
                 detail.c_str(), done >= total ? "\r\033[K" : "");
  };
  return progress;
}

int runArguments(Arguments& arguments) {
  struct sigaction action {};
  action.sa_handler = onSignal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGXFSZ, SIG_IGN);  // a file above the limit is an error of write
  arguments.job.progress = progressOnTerminal();
  try {
    const RunReport report = runJob(arguments.job);
    if (!report.root) return 0;
    if (arguments.json) {
      std::printf("%s\n", dump(reportJson(report)).c_str());
    } else {
      uint64_t peak = 0;
      for (const RankReport& rank : report.ranks) peak = std::max(peak, rank.peakBytes);
      std::printf("%s: %.3f s, %zu ranks, at most %.1f MiB each\nsha256 %s\n", arguments.job.out.c_str(),
                  report.seconds, report.ranks.size(), double(peak) / (1 << 20), report.outputSha256.c_str());
      if (const auto& c = report.checkpoint)
        std::printf("%llu checkpoints of at most %.1f MiB in %.1f s; %.0f %% was done before\n",
                    static_cast<unsigned long long>(c->written), double(c->bytes) / (1 << 20), c->seconds,
                    100 * c->resumedAt);
      if (report.insecure) std::printf("INSECURE: this plan is below 128 bits, for tests only\n");
    }
    return 0;
  } catch (const Error& error) {
    return reportError(arguments, error, kUserError);
  } catch (const std::bad_alloc&) {
    return reportError(arguments, Error("R501", "the machine has too little memory"), kUserError);
  } catch (const std::exception& error) {
    return reportError(arguments, Error("R500", error.what(), "this is a bug in aegis: please report it"),
                       kInternal);
  }
}

int run(int argc, char** argv) {
  Arguments arguments;
  try {
    arguments = parse(argc, argv);
  } catch (const UsageError& error) {
    for (int i = 1; i < argc; i++) arguments.json |= std::strcmp(argv[i], "--json") == 0;
    return reportError(arguments, Error("C101", error.message, "aegis-exec --help"), kUsage);
  }
  if (arguments.help) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  const int status = runArguments(arguments);
  std::fflush(stdout);
  if (status != 0) abortMpiJob(status);
  // A rank that hangs keeps its thread: no destructors under it.
  std::_Exit(status);
}

}  // namespace
}  // namespace aegis

int main(int argc, char** argv) { return aegis::run(argc, argv); }

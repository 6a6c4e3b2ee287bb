// aegis-exec: `aegis run` without Node. Exit codes 0 ok, 1 user error, 2 usage, 70 internal, 130 interrupted.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <nlohmann/json.hpp>
#include <string>
#include <unistd.h>

#include "exec/run_job.h"
#include "support/error.h"

namespace aegis {
namespace {

constexpr int kUserError = 1, kUsage = 2, kInternal = 70, kInterrupted = 130;
constexpr uint32_t kMaxThreads = 4096;

constexpr const char* kHelp =
    "aegis-exec PLAN --keys eval.keys --in REQUEST.ct -o RESPONSE.ct [options]\n"
    "\n"
    "Runs a plan on an encrypted request; needs no secret.\n"
    "\n"
    "  --keys FILE        evaluation keys of aegis keygen\n"
    "  --in FILE          request of aegis encrypt\n"
    "  -o, --output FILE  response to write\n"
    "  --weights FILE     weights file, PLAN.weights unless given\n"
    "  --backend NAME     cpu (default)\n"
    "  --channel NAME     local (default)\n"
    "  --threads N        all cores unless given\n"
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
extern "C" void onSignal(int) {
  if (interrupted.exchange(true)) _exit(kInterrupted);
}

uint32_t parseThreads(const std::string& text) {
  char* end = nullptr;
  const unsigned long value = std::strtoul(text.c_str(), &end, 10);
  if (text.empty() || text[0] < '0' || text[0] > '9' || *end != '\0' || value == 0 || value > kMaxThreads)
    throw UsageError{"--threads takes a number from 1 to " + std::to_string(kMaxThreads)};
  return uint32_t(value);
}

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  RunJob& job = arguments.job;
  std::string threads;
  const std::pair<const char*, std::string*> options[] = {
      {"--keys", &job.keys},       {"--in", &job.in},           {"-o", &job.out},
      {"--output", &job.out},      {"--weights", &job.weights}, {"--backend", &job.backend},
      {"--channel", &job.channel}, {"--threads", &threads},
  };
  for (int i = 1; i < argc; i++) {
    const std::string argument = argv[i];
    const size_t equals = argument.rfind("--", 0) == 0 ? argument.find('=') : std::string::npos;
    const std::string name = argument.substr(0, equals);
    if (argument == "--json") {
      arguments.json = true;
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
  if (job.plan.empty()) throw UsageError{"the plan is missing"};
  if (job.keys.empty()) throw UsageError{"--keys is missing"};
  if (job.in.empty()) throw UsageError{"--in is missing"};
  if (job.out.empty()) throw UsageError{"-o is missing"};
  if (!threads.empty()) job.threads = parseThreads(threads);
  return arguments;
}

nlohmann::ordered_json reportJson(const RunReport& report) {
  nlohmann::ordered_json ranks = nlohmann::ordered_json::array(), opcodes = nlohmann::ordered_json::array();
  for (const RankReport& rank : report.ranks)
    ranks.push_back({{"rank", rank.rank}, {"peakBytes", rank.peakBytes}, {"staticBytes", rank.staticBytes},
                     {"collectives", nlohmann::ordered_json::array()}});
  for (const NamedSeconds& op : report.opcodes)
    opcodes.push_back(
        {{"op", op.name}, {"seconds", op.seconds}, {"launches", op.launches}, {"rowBytes", op.rowBytes}});
  return {{"outputSha256", report.outputSha256}, {"seconds", report.seconds}, {"ranks", ranks},
          {"insecure", report.insecure}, {"loadSeconds", report.loadSeconds}, {"opcodes", opcodes}};
}

// Invalid UTF-8 of file names is replaced, not thrown at the user.
std::string dump(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

int reportError(const Arguments& arguments, const std::string& code, const std::string& message,
                const std::string& help, int status) {
  if (arguments.json) {
    nlohmann::ordered_json error = {{"code", code}, {"message", message}};
    if (!help.empty()) error["help"] = help;
    std::printf("%s\n", dump({{"errors", nlohmann::ordered_json::array({error})}}).c_str());
  } else {
    std::fprintf(stderr, "error[%s]: %s\n", code.c_str(), message.c_str());
    if (!help.empty()) std::fprintf(stderr, "  help: %s\n", help.c_str());
  }
  return interrupted ? kInterrupted : status;
}

Progress progressOnTerminal() {
  Progress progress;
  progress.cancelled = &interrupted;
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
  arguments.job.progress = progressOnTerminal();
  try {
    const RunReport report = runJob(arguments.job);
    if (arguments.json) {
      std::printf("%s\n", dump(reportJson(report)).c_str());
    } else {
      std::printf("%s: %.3f s, at most %.1f MiB\nsha256 %s\n", arguments.job.out.c_str(), report.seconds,
                  double(report.ranks[0].peakBytes) / (1 << 20), report.outputSha256.c_str());
      if (report.insecure) std::printf("INSECURE: this plan is below 128 bits, for tests only\n");
    }
    return 0;
  } catch (const Error& error) {
    return reportError(arguments, error.code(), error.what(), error.help(), kUserError);
  } catch (const std::bad_alloc&) {
    return reportError(arguments, "R501", "the machine has too little memory", "", kUserError);
  } catch (const std::exception& error) {
    return reportError(arguments, "R500", error.what(), "this is a bug in aegis: please report it",
                       kInternal);
  }
}

int run(int argc, char** argv) {
  Arguments arguments;
  try {
    arguments = parse(argc, argv);
  } catch (const UsageError& error) {
    for (int i = 1; i < argc; i++) arguments.json |= std::strcmp(argv[i], "--json") == 0;
    const int status = reportError(arguments, "C101", error.message, "aegis-exec --help", kUsage);
    return status;
  }
  if (arguments.help) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  return runArguments(arguments);
}

}  // namespace
}  // namespace aegis

int main(int argc, char** argv) { return aegis::run(argc, argv); }

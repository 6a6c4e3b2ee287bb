// Times of commands and CKKS operations on any backend, and of whole plans.
// aegis-bench [--json] [--backend B] [--threads n] [--logn l] [--limbs n] [--specials n] [--dnum n]
//             [--rotations n] [--profile P.json] [--plan NAME PLAN KEYS REQUEST]...
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "bench/composites.h"
#include "bench/machines.h"
#include "bench/multiply.h"
#include "exec/run_job.h"
#include "plan/plan_file.h"
#include "support/error.h"

namespace aegis {
namespace {

struct PlanRun {
  std::string name, plan, keys, request;
};

struct Options {
  BenchShape shape;
  std::string backend = "cpu", profile;
  uint32_t threads = 1;
  bool json = false;
  std::vector<PlanRun> plans;
};

// Peak rates of a device profile (src/target/profile.ts); 0: not given.
struct Peaks {
  double operations = 0, bytes = 0;  // a second
};

Peaks readPeaks(const std::string& path) {
  if (path.empty()) return {};
  std::ifstream file(path);
  const auto json = nlohmann::json::parse(file, nullptr, false);
  const auto rate = [&](const char* field) {
    const auto found = json.is_object() ? json.find(field) : json.end();
    return json.is_object() && found != json.end() && found->is_number() ? found->get<double>() : 0;
  };
  const Peaks peaks = {rate("modularRate"), rate("memoryBandwidth")};
  if (!(peaks.operations > 0) || !(peaks.bytes > 0))
    fail("R101", path + " is no device profile: modularRate and memoryBandwidth are positive numbers",
         "use one of src/target/profiles, or measure one with aegis profile");
  return peaks;
}

double operationsPerSecond(const BenchRow& row) { return row.floors.operations / row.timing.medianUs * 1e6; }

nlohmann::ordered_json rowOf(const Options& options, const Machine& machine, const BenchRow& row,
                             const Peaks& peaks) {
  const auto rounded = [](double us) { return double(int64_t(us * 100 + 0.5)) / 100; };
  nlohmann::ordered_json json = {{"name", row.name},
                                 {"backend", machine.backend()},
                                 {"logN", options.shape.logN},
                                 {"limbs", row.limbs},
                                 {"specialLimbs", row.specials},
                                 {"dnum", row.dnum},
                                 {"threads", options.backend == "cuda" ? 1 : options.threads},
                                 {"medianUs", rounded(row.timing.medianUs)},
                                 {"minUs", rounded(row.timing.minUs)},
                                 {"operations", row.floors.operations},
                                 {"bytes", row.floors.bytes}};
  if (!machine.timed()) json["emulated"] = true;
  else if (row.rate) json["operationsPerSecond"] = operationsPerSecond(row);
  if (peaks.bytes == 0) return json;
  const double operationsUs = row.floors.operations / peaks.operations * 1e6;
  const double bytesUs = row.floors.bytes / peaks.bytes * 1e6;
  json["floorOperationsUs"] = rounded(operationsUs);
  json["floorBytesUs"] = rounded(bytesUs);
  const double floorUs = std::max(operationsUs, bytesUs);
  if (machine.timed()) json["fractionOfFloor"] = rounded(floorUs / row.timing.medianUs);
  return json;
}

void printText(const Options& options, const Machine& machine, const std::vector<BenchRow>& rows,
               const Peaks& peaks) {
  const BenchShape& s = options.shape;
  std::printf("%s%s, N = 2^%u, %u + %u limbs, dnum %u, %u threads\n", machine.backend(),
              machine.timed() ? "" : " (EMULATED: times mean nothing)", s.logN, s.limbs, s.specials, s.dnum,
              options.threads);
  for (const BenchRow& row : rows) {
    std::printf("  %-22s %12.1f us  (least %.1f)", row.name.c_str(), row.timing.medianUs, row.timing.minUs);
    if (peaks.bytes != 0)
      std::printf("  floors: operations %.1f, bytes %.1f us", row.floors.operations / peaks.operations * 1e6,
                  row.floors.bytes / peaks.bytes * 1e6);
    if (row.rate && machine.timed()) std::printf("  %.4g operations a second", operationsPerSecond(row));
    std::printf("\n");
  }
}

// Three runs of a plan, after the loading of its files.
nlohmann::ordered_json runPlan(const Options& options, const PlanRun& plan, std::vector<double>& us) {
  RunJob job;
  job.plan = plan.plan;
  job.keys = plan.keys;
  job.in = plan.request;
  const auto folder = std::filesystem::temp_directory_path() / ("aegis-bench-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  job.out = (folder / "response.ct").string();
  job.backend = options.backend;
  job.threads = options.threads;
  std::string hash;
  for (int i = 0; i < 3; i++) {
    const RunReport report = runJob(job);
    us.push_back(report.seconds * 1e6);
    hash = report.outputSha256;
  }
  std::filesystem::remove_all(folder);
  std::sort(us.begin(), us.end());
  const PlanFile file = PlanFile::open(plan.plan, {kNoMemoryLimit});
  const plan::Parameters& p = *file.plan().parameters();
  uint32_t dnum = 0;  // of the keys that reach the top level
  for (const plan::KeyClass* c : *p.key_classes())
    if (c->level() == p.max_level()) dnum = keyDigitCount(*c, p.max_level());
  return {{"name", plan.name},
          {"backend", options.backend},
          {"logN", p.log_n()},
          {"limbs", uint32_t(p.max_level()) + 1},
          {"specialLimbs", p.specials()},
          {"dnum", dnum},
          {"threads", options.threads},
          {"medianUs", us[1]},
          {"minUs", us[0]},
          {"outputSha256", hash}};
}

int run(const Options& options) {
  const Peaks peaks = readPeaks(options.profile);
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  if (options.plans.empty()) {
    const auto machine = makeMachine(options.backend, options.threads);
    std::vector<BenchRow> rows = Composites(*machine, options.shape).run();
    for (BenchRow& row : multiplyRows(*machine)) rows.push_back(std::move(row));
    if (!options.json) printText(options, *machine, rows, peaks);
    for (const BenchRow& row : rows) json.push_back(rowOf(options, *machine, row, peaks));
  }
  for (const PlanRun& plan : options.plans) {
    std::vector<double> us;
    json.push_back(runPlan(options, plan, us));
    if (!options.json)
      std::printf("  %-22s %12.1f us  (least %.1f)\n", plan.name.c_str(), us[1], us[0]);
  }
  if (options.json) std::printf("%s\n", json.dump(1).c_str());
  return 0;
}

int usage(const std::string& what) {
  std::fprintf(stderr,
               "aegis-bench: %s\nusage: aegis-bench [--json] [--backend cpu|cuda|cuda-emulated] "
               "[--threads n] [--logn 10..17] [--limbs 2..60] [--specials 1..30] "
               "[--dnum 1..limbs] [--rotations 1..16] "
               "[--profile P.json] [--plan NAME PLAN KEYS REQUEST]...\n",
               what.c_str());
  return 2;
}

const char* problemOf(const Options& options) {
  const BenchShape& s = options.shape;
  if (options.backend != "cpu" && options.backend != "cuda" && options.backend != "cuda-emulated")
    return "backend must be cpu, cuda or cuda-emulated";
  if (options.backend == "cuda-emulated" && !options.plans.empty()) return "plans run on cpu or cuda";
  if (options.threads < 1 || options.threads > 1024) return "threads must be 1..1024";
  if (s.logN < 10 || s.logN > 17) return "logn must be 10..17";
  if (s.limbs < 2 || s.limbs > 60 || s.specials < 1 || s.specials > 30)
    return "limbs must be 2..60, specials 1..30";
  if (s.rotations < 1 || s.rotations > 16) return "rotations must be 1..16";
  const uint32_t digitLimbs = s.dnum == 0 ? 0 : (s.limbs + s.dnum - 1) / s.dnum;
  if (s.dnum < 1 || s.dnum > s.limbs || (s.dnum - 1) * digitLimbs >= s.limbs)
    return "dnum digits of equal length must cover the limbs";
  return nullptr;
}

int main(int argc, char** argv) {
  Options options;
  BenchShape& s = options.shape;
  const std::map<std::string, uint32_t*> numbers = {
      {"--threads", &options.threads}, {"--logn", &s.logN}, {"--limbs", &s.limbs},
      {"--specials", &s.specials},     {"--dnum", &s.dnum}, {"--rotations", &s.rotations}};
  for (int i = 1; i < argc; i++) {
    const std::string flag = argv[i];
    if (flag == "--json") {
      options.json = true;
      continue;
    }
    const int values = flag == "--plan" ? 4 : 1;
    if (i + values >= argc) return usage("a value is missing");
    const auto number = numbers.find(flag);
    if (number != numbers.end()) *number->second = uint32_t(std::strtoul(argv[i + 1], nullptr, 10));
    else if (flag == "--backend") options.backend = argv[i + 1];
    else if (flag == "--profile") options.profile = argv[i + 1];
    else if (flag == "--plan") options.plans.push_back({argv[i + 1], argv[i + 2], argv[i + 3], argv[i + 4]});
    else return usage("unknown option " + flag);
    i += values;
  }
  if (const char* problem = problemOf(options)) return usage(problem);
  try {
    return run(options);
  } catch (const Error& error) {
    std::fprintf(stderr, "error[%s]: %s\n", error.code().c_str(), error.what());
    return 1;
  }
}

}  // namespace
}  // namespace aegis

int main(int argc, char** argv) { return aegis::main(argc, argv); }

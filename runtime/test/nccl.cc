// The nccl channel over the emulated CUDA module and the fake NCCL: the bits of one rank on the CPU, ranks
// that fail or hang, and what happens where NCCL does not work. aegis_nccl_test
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "channels/folder/folder.h"
#include "channels/local/local.h"
#include "channels/nccl/nccl.h"
#include "support/module_path.h"
#include "test/client_check.h"
#include "test/toy_setting.h"

namespace aegis::test {
namespace {

using Clock = std::chrono::steady_clock;

// Variables of the environment that are as they were before in the end.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) { setenv(name, value.c_str(), 1); }
  ~Environment() { unsetenv(name_); }

 private:
  const char* name_;
};

struct Job {
  explicit Job(uint32_t ranks) : setting(ranks) {
    const TransportJob job = transportJob(*setting.plan);
    session = std::make_unique<Session>(setting.plan, WeightMap(), setting.wholeKeys(), 1, RunOptions{},
                                        makeNcclTransport(job, makeLocalTransport(job)), "cuda");
  }
  RanksSetting setting;
  std::unique_ptr<Session> session;
};

RunResult onOneCpu() {
  const RanksSetting one(1);
  Session session(one.plan, WeightMap(), one.wholeKeys(), 1);
  return session.run(one.inputs);
}

bool sameOutputs(const RunResult& a, const RunResult& b) {
  bool same = a.outputs.size() == b.outputs.size() && !a.outputs.empty();
  for (size_t i = 0; same && i < a.outputs.size(); i++) same = a.outputs[i].data == b.outputs[i].data;
  return same;
}

bool countsAsPredicted(const RunResult& result) {
  bool good = !result.ranks.empty();
  for (const RankStatistics& rank : result.ranks)
    for (const CollectiveStatistics& c : rank.collectives) good &= c.receivedBytes == c.predictedBytes;
  return good;
}

void checkSameBits(Checker& checker, const RunResult& expected) {
  for (uint32_t ranks = 1; ranks <= 5; ranks++) {
    for (const char* devices : {"devices=5,jitter=1", "devices=2,peers=0,jitter=1"}) {
      const Environment settings("AEGIS_EMULATED_CUDA", devices);
      Job job(ranks);
      bool same = true, counts = true;
      for (int again = 0; again < 2; again++) {
        const RunResult result = job.session->run(job.setting.inputs);
        same &= sameOutputs(result, expected);
        counts &= countsAsPredicted(result);
      }
      const std::string name = std::to_string(ranks) + " ranks, " + devices;
      checker.check(same, name + ": the bits of one rank on the CPU");
      checker.check(counts, name + ": received bytes are the predicted ones");
      for (const std::string& warning : job.session->warnings())
        checker.check(warning.find("NCCL") == std::string::npos, name + ": no detour", warning);
    }
  }
}

// Where NCCL fails, rows go by the local channel, and the user is told.
void checkDetour(Checker& checker, const RunResult& expected) {
  const Environment settings("AEGIS_EMULATED_CUDA", "devices=3");
  for (const char* fault : {"no-init", "wrong-sums"}) {
    const Environment faulty("AEGIS_FAKE_NCCL", fault);
    Job job(3);
    bool same = true;
    for (int again = 0; again < 2; again++)
      same &= sameOutputs(job.session->run(job.setting.inputs), expected);
    const std::vector<std::string> warnings = job.session->warnings();
    checker.check(same, std::string(fault) + ": the same bits by another channel");
    const bool told = warnings.size() == 3 && warnings[0].find("channel local") != std::string::npos;
    checker.check(told, std::string(fault) + ": every rank says so", warnings.empty() ? "" : warnings[0]);
  }
}

struct Failure {
  std::string code;
  std::vector<std::string> messages;
  double seconds = 0;
};

Failure failureOf(Job& job) {
  Failure failure;
  const auto start = Clock::now();
  try {
    job.session->run(job.setting.inputs);
  } catch (const Error& error) {
    failure.code = error.code();
    failure.messages.push_back(error.what());
    for (const Error& other : error.others()) failure.messages.push_back(other.what());
  }
  failure.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return failure;
}

void checkFaults(Checker& checker, const RunResult& expected) {
  const Environment settings("AEGIS_EMULATED_CUDA", "devices=3"), timeout("AEGIS_CHANNEL_TIMEOUT", "2");
  for (const char* kind : {"fail", "hang"}) {
    std::unique_ptr<Job> job;
    {
      const Environment fault("AEGIS_FAULT", std::string("rank=1,collective=2,kind=") + kind);
      job = std::make_unique<Job>(3);
    }
    const Failure failure = failureOf(*job);
    const bool hang = std::strcmp(kind, "hang") == 0;
    bool good =
        failure.code == (hang ? "R405" : "R407") && failure.messages.size() == 3 && failure.seconds < 8;
    for (const std::string& message : failure.messages) good &= message.find("rank 1") != std::string::npos;
    checker.check(good, std::string("a rank that ") + kind + "s",
                  failure.code + " " + (failure.messages.empty() ? "" : failure.messages[0]));
  }
  std::atomic<bool> cancelled{true};
  Job job(3);
  RunOptions options;
  options.cancel = &cancelled;
  std::string code;
  try {
    job.session->run(job.setting.inputs, options);
  } catch (const Error& error) {
    code = error.code();
  }
  checker.check(code == "R401", "a run that is cancelled", code);
  try {
    const RunResult again = job.session->run(job.setting.inputs);
    checker.check(sameOutputs(again, expected), "the session goes on after it");
  } catch (const Error& error) {
    std::string all = error.what();
    for (const Error& other : error.others()) all += "; " + std::string(other.what());
    checker.check(false, "the session goes on after it", all);
  }
}

// A process for each rank, which meet in a folder.
void checkFolder(Checker& checker, const std::string& folder) {
  const Environment rendezvous("AEGIS_RENDEZVOUS", folder);
  checker.refuses("R406", "a process that does not know its rank", [] { rendezvousOfProcess(2); });
  const Environment own("AEGIS_RANK", "2");
  checker.refuses("R406", "a rank that the plan does not have", [] { rendezvousOfProcess(2); });
  std::vector<Collective> collectives;
  const RanksSetting setting(1);
  const TransportJob job{&setting.plan->ring(), &collectives, 2};
  const pid_t child = fork();
  if (child == 0) {
    const auto second = makeFolderTransport(job, {folder, 1});
    second->beat();
    uint64_t word = 0;
    second->receive(0, &word, sizeof word);
    word++;
    second->send(0, &word, sizeof word);
    second->close();
    _exit(0);
  }
  uint64_t word = 41;
  {
    while (std::filesystem::is_empty(folder)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const auto first = makeFolderTransport(job, {folder, 0});
    checker.refuses("R406", "a folder that is in use", [&] {
      first->beat();
      makeFolderTransport(job, {folder, 0});
    });
    first->send(1, &word, sizeof word);
    first->receive(1, &word, sizeof word);
    first->close();
  }
  int status = 1;
  waitpid(child, &status, 0);
  checker.check(word == 42 && status == 0, "messages of two processes by a folder");
  checker.check(std::filesystem::is_empty(folder), "the folder is empty after the job");
}

}  // namespace
}  // namespace aegis::test

int main() {
  using namespace aegis::test;
  setenv("AEGIS_CUDA_MODULE", aegis::modulePath("AEGIS_CUDA_EMULATED", "aegis_cuda_emulated.so").c_str(), 1);
  setenv("AEGIS_NCCL_LIBRARY", aegis::modulePath("AEGIS_NCCL_FAKE", "aegis_fake_nccl.so").c_str(), 1);
  Checker checker;
  char folder[] = "/tmp/aegis-nccl-test-XXXXXX";
  checker.check(mkdtemp(folder) != nullptr, "a folder for the test");
  checkFolder(checker, folder);
  rmdir(folder);
  const aegis::RunResult expected = onOneCpu();
  checkSameBits(checker, expected);
  checkDetour(checker, expected);
  checkFaults(checker, expected);
  return checker.finish();
}

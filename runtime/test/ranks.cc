// Plans for several ranks with the local channel: the same bits for any number of ranks, and faults.
// aegis_ranks_test [--seeds n]
#include <chrono>
#include <cstring>
#include <random>

#include "test/client_check.h"
#include "test/toy_setting.h"

namespace aegis::test {
namespace {

using Clock = std::chrono::steady_clock;

using Setting = RanksSetting;

// A key of which only the rows of one rank are held.
struct CutKey {
  std::vector<uint64_t> words;
  std::vector<uint16_t> places;
  uint32_t held = 0;

  CutKey(const Setting& setting, uint32_t rank) {
    const size_t n = setting.plan->ring().degree(), whole = setting.plan->keyRowCount(1);
    const std::vector<uint16_t> rows = setting.plan->keyRowsOf({rank})[1];
    places.assign(whole, kAbsentKeyRow);
    for (size_t i = 0; i < rows.size(); i++) places[rows[i]] = uint16_t(i);
    held = uint32_t(rows.size());
    for (size_t block = 0; block < 6; block++)
      for (const uint16_t row : rows) {
        const auto from = setting.key.begin() + ptrdiff_t((block * whole + row) * n);
        words.insert(words.end(), from, from + ptrdiff_t(n));
      }
  }
  KeySource source() const {
    return {[this](uint32_t) { return KeyView{words.data(), 3, held, places.data()}; }, words.size() * 8};
  }
};

void checkStatistics(Checker& checker, const Setting& setting, const RunResult& result, uint32_t ranks) {
  bool bytes = result.ranks.size() == ranks, memory = bytes, times = bytes;
  for (const RankStatistics& rank : result.ranks) {
    const RankMemorySpec& predicted = setting.plan->programs()[rank.rank].memory;
    memory &= rank.peakBytes() == predicted.total() && rank.staticBytes == predicted.keys;
    bytes &= rank.collectives.size() == 6;
    for (const CollectiveStatistics& c : rank.collectives)
      bytes &=
          c.receivedBytes == c.predictedBytes && c.executions == setting.plan->collectives()[c.id].executions;
    times &= rank.waitSeconds > 0 && rank.computeSeconds > 0 &&
             rank.waitSeconds + rank.computeSeconds <= rank.seconds;
  }
  const std::string name = " of " + std::to_string(ranks) + " ranks";
  checker.check(bytes, "received bytes" + name + " are the predicted ones");
  checker.check(memory, "peak bytes" + name + " are the predicted ones");
  checker.check(times, "waiting and computing" + name + " are apart");
}

RunResult checkSameBits(Checker& checker) {
  const Setting one(1);
  Session session(one.plan, WeightMap(), one.wholeKeys(), 1);
  const RunResult reference = session.run(one.inputs);
  bool doubled = true;
  for (size_t i = 0; i < one.inputs[0].data.size(); i += 37) {
    const uint64_t q = one.plan->ring().modulus(uint32_t(i / one.plan->ring().degree() % (kToyLevels + 1)));
    doubled &= reference.outputs[0].data[i] == one.inputs[0].data[i] * 2 % q;
  }
  checker.check(doubled, "one rank doubles its input");
  for (uint32_t ranks = 1; ranks <= 5; ranks++) {
    const Setting setting(ranks);
    for (const uint32_t threads : {1u, 2 * ranks}) {
      uint64_t last = 0, total = 0;
      RunOptions options;
      options.progress = [&](uint64_t done, uint64_t all, std::string_view) { last = done, total = all; };
      Session many(setting.plan, WeightMap(), setting.wholeKeys(), threads);
      for (int again = 0; again < 2; again++) {
        const RunResult result = many.run(setting.inputs, options);
        bool same = result.outputs.size() == reference.outputs.size();
        for (size_t i = 0; same && i < result.outputs.size(); i++)
          same = result.outputs[i].data == reference.outputs[i].data;
        checker.check(same && last == total, "the bits of one rank from " + std::to_string(ranks) + " on " +
                                                 std::to_string(threads) + " threads");
        if (again == 1 && threads > 1) checkStatistics(checker, setting, result, ranks);
      }
    }
  }
  return reference;
}

// The rows of a key that one rank holds are enough for it.
void checkCutKeys(Checker& checker) {
  const Setting setting(2), one(1);
  Session session(one.plan, WeightMap(), one.wholeKeys(), 1);
  const CutKey first(setting, 0), second(setting, 1);
  checker.check(first.held + second.held == kToyLevels + 1, "two ranks share the rows of a key");
  checker.refuses("R303", "a key without the rows of the second rank",
                  [&] { Session(setting.plan, WeightMap(), first.source(), 1); });
  const CutKey whole(one, 0);
  Session cut(one.plan, WeightMap(), whole.source(), 1);
  checker.check(cut.run(one.inputs).outputs[3].data == session.run(one.inputs).outputs[3].data,
                "rows of a key without the special primes' give the same bits");
}

// Every message of the error, the ranks' errors first to last.
std::vector<std::string> failureOf(const Setting& setting, const std::string& fault, double& seconds,
                                   std::string& code) {
  setenv("AEGIS_FAULT", fault.c_str(), 1);
  const auto start = Clock::now();
  std::vector<std::string> messages;
  try {
    Session session(setting.plan, WeightMap(), setting.wholeKeys(), 1);
    session.run(setting.inputs);
  } catch (const Error& error) {
    code = error.code();
    messages.push_back(error.what());
    for (const Error& other : error.others()) messages.push_back(other.what());
  }
  seconds = std::chrono::duration<double>(Clock::now() - start).count();
  unsetenv("AEGIS_FAULT");
  return messages;
}

bool names(const std::string& message) {
  return message.find("rank ") != std::string::npos && message.find("collective ") != std::string::npos &&
         message.find("node \"") != std::string::npos;
}

void checkFaults(Checker& checker, uint32_t seeds) {
  setenv("AEGIS_CHANNEL_TIMEOUT", "2", 1);
  std::mt19937_64 engine(29);
  for (uint32_t seed = 0; seed < seeds; seed++) {
    const uint32_t ranks = 2 + uint32_t(engine() % 4), rank = uint32_t(engine() % ranks);
    const bool hang = engine() % 2 == 0;
    // Not the broadcast at the end: whoever has received it is done.
    const Setting setting(ranks);
    const std::string fault = "rank=" + std::to_string(rank) + ",collective=" + std::to_string(engine() % 6) +
                              ",kind=" + (hang ? "hang" : "fail");
    double seconds = 0;
    std::string code;
    const std::vector<std::string> messages = failureOf(setting, fault, seconds, code);
    bool good = messages.size() == ranks && code == (hang ? "R405" : "R407") && seconds < 8;
    const std::string culprit = "rank " + std::to_string(rank);
    for (const std::string& message : messages)
      good &= (names(message) && message.find(culprit) != std::string::npos) ||
              message == culprit + " did not stop";
    checker.check(
        good, std::to_string(ranks) + " ranks, " + fault,
        code + " " + (messages.empty() ? "" : messages[0]) + " after " + std::to_string(seconds) + " s");
  }
  const Setting slow(3);
  setenv("AEGIS_FAULT", "rank=1,collective=3,kind=slow", 1);
  Session session(slow.plan, WeightMap(), slow.wholeKeys(), 1);
  checker.check(session.run(slow.inputs).ranks[0].waitSeconds > 2, "a rank that is slow is waited for");
  unsetenv("AEGIS_CHANNEL_TIMEOUT");
  const Setting setting(2);
  setenv("AEGIS_FAULT", "rank=0,collective=0,kind=what", 1);
  checker.refuses("R407", "an unknown fault",
                  [&] { Session(setting.plan, WeightMap(), setting.wholeKeys(), 1); });
  unsetenv("AEGIS_FAULT");
}

void checkCancel(Checker& checker) {
  const Setting setting(3);
  Session session(setting.plan, WeightMap(), setting.wholeKeys(), 1);
  std::atomic<bool> cancelled{true};
  RunOptions options;
  options.cancel = &cancelled;
  uint32_t refused = 0;
  std::string code;
  try {
    session.run(setting.inputs, options);
  } catch (const Error& error) {
    code = error.code();
    refused++;
  }
  // Short runs may end before the cancellation is seen.
  checker.check(refused == 0 || code == "R401", "a cancelled run of three ranks ends or is cancelled", code);
  checker.check(session.run(setting.inputs).outputs.size() == 4, "the session survives it");
}

}  // namespace
}  // namespace aegis::test

int main(int argc, char** argv) {
  using namespace aegis::test;
  uint32_t seeds = 8;
  for (int i = 1; i + 1 < argc; i++)
    if (std::strcmp(argv[i], "--seeds") == 0) seeds = uint32_t(std::atoi(argv[i + 1]));
  Checker checker;
  checkSameBits(checker);
  checkCutKeys(checker);
  checkCancel(checker);
  checkFaults(checker, seeds);
  return checker.finish();
}

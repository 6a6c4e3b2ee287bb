#include "channels/folder/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "channels/stall.h"
#include "support/error.h"

namespace aegis {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kBeatPeriod = std::chrono::milliseconds(200), kPoll = std::chrono::milliseconds(20);
// How long the others may take to start, and rank 0 to write the results.
constexpr double kStartSeconds = 120, kCloseFactor = 15;
constexpr const char* kPrefix = "aegis-";
constexpr size_t kMaxReasonBytes = 512;

// One job's files.
class Folder {
 public:
  Folder(const Rendezvous& rendezvous, uint32_t size)
      : rank_(rendezvous.rank), size_(size), path_(rendezvous.folder), heard_(size, 0),
        sent_(size, 0), received_(size, 0) {
    std::error_code error;
    std::filesystem::create_directories(path_, error);
    if (error)
      fail("R406", "the folder " + path_ + " of AEGIS_RENDEZVOUS cannot be made: " + error.message(),
           "name a folder that all processes can write to");
    if (rank_ != 0) return;
    for (const std::string& name : names())
      if (!isSignOfOther(name))
        fail("R406", "the folder " + path_ + " of AEGIS_RENDEZVOUS holds files of a job",
             "wait for that job to end, or remove them if it was killed; every job needs its own folder");
  }
  ~Folder() {
    unlink(at("rank-" + std::to_string(rank_)).c_str());
    if (rank_ != 0) return;
    for (const std::string& name : names()) unlink((path_ + "/" + name).c_str());
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  void beat() {
    if (Clock::now() - lastBeat_ < kBeatPeriod) return;
    lastBeat_ = Clock::now();
    beats_++;
    write("rank-" + std::to_string(rank_), &beats_, sizeof beats_);
    for (uint32_t other = 0; other < size_; other++)
      if (other != rank_) read("rank-" + std::to_string(other), &heard_[other], sizeof heard_[other]);
    char reason[kMaxReasonBytes] = {};
    if (failure_.empty() && read("failed", reason, sizeof reason))
      failure_.assign(reason, strnlen(reason, sizeof reason));  // others' bytes need not end
  }

  void refuseIfFailed(const std::string& place) const {
    if (!failure_.empty())
      fail("R405", "rank " + std::to_string(rank_) + " stopped " + place + ": " + failure_);
  }

  // The first reason stays.
  void tellFailure(const std::string& reason) {
    if (!failure_.empty() || access(at("failed").c_str(), F_OK) == 0) return;
    char text[kMaxReasonBytes] = {};
    reason.copy(text, sizeof text - 1);
    write("failed", text, sizeof text);
    failure_ = reason;
  }

  // True if rank `other` has been silent for so long, as this watch saw it.
  bool silent(StallWatch& watch, uint32_t other, double seconds) const {
    // Before its first sign of life a rank may still be starting.
    if (heard_[other] == 0) seconds = std::max(seconds, kStartSeconds);
    return watch.stalled(other, heard_[other], seconds);
  }

  void send(uint32_t to, const void* data, uint64_t bytes) {
    write(message(rank_, to, sent_[to]++), data, bytes);
  }

  void receive(uint32_t from, void* data, uint64_t bytes, double seconds) {
    const std::string name = message(from, rank_, received_[from]++);
    StallWatch watch;
    while (!read(name, data, bytes)) {
      beat();
      refuseIfFailed("after the last collective");
      if (silent(watch, from, seconds)) refuse("while it waited for a message", from, seconds);
      std::this_thread::sleep_for(kPoll);
    }
    unlink(at(name).c_str());
  }

  [[noreturn]] void refuse(const std::string& place, uint32_t other, double seconds) {
    char text[32];
    std::snprintf(text, sizeof text, "%g s", seconds);
    fail("R405",
         "rank " + std::to_string(rank_) + " gave up " + place + ": rank " + std::to_string(other) +
             " has made no progress for " + text,
         "AEGIS_CHANNEL_TIMEOUT sets the seconds to wait");
  }

  uint32_t rank() const { return rank_; }

 private:
  std::string at(const std::string& name) const { return path_ + "/" + kPrefix + name; }
  static std::string message(uint32_t from, uint32_t to, uint64_t count) {
    return "message-" + std::to_string(from) + "-" + std::to_string(to) + "-" + std::to_string(count);
  }

  // Whole or not at all.
  void write(const std::string& name, const void* data, uint64_t bytes) const {
    const std::string path = at(name), temporary = path + ".part" + std::to_string(rank_);
    std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
    file.write(static_cast<const char*>(data), std::streamsize(bytes));
    file.close();
    if (!file || std::rename(temporary.c_str(), path.c_str()) != 0) {
      const std::string why = std::strerror(errno);
      unlink(temporary.c_str());
      fail("R405", "rank " + std::to_string(rank_) + " cannot write to the folder " + path_ + ": " + why);
    }
  }

  // False if there is no such file yet.
  bool read(const std::string& name, void* data, uint64_t bytes) const {
    std::ifstream file(at(name), std::ios::binary | std::ios::ate);
    if (!file) return false;
    if (uint64_t(file.tellg()) != bytes)
      fail("R405", at(name) + " has " + std::to_string(uint64_t(file.tellg())) + " bytes, not " +
                       std::to_string(bytes), "every job needs a folder of its own");
    file.seekg(0);
    file.read(static_cast<char*>(data), std::streamsize(bytes));
    return bool(file);
  }

  // Ranks that started before rank 0 have left theirs.
  static bool isSignOfOther(const std::string& name) {
    const std::string sign = std::string(kPrefix) + "rank-";
    return name.rfind(sign, 0) == 0 && name.rfind(sign + "0", 0) != 0;
  }

  std::vector<std::string> names() const {
    std::vector<std::string> found;
    DIR* folder = opendir(path_.c_str());
    if (folder == nullptr) return found;
    while (const dirent* entry = readdir(folder))
      if (std::string(entry->d_name).rfind(kPrefix, 0) == 0) found.push_back(entry->d_name);
    closedir(folder);
    return found;
  }

  const uint32_t rank_, size_;
  const std::string path_;
  std::vector<uint64_t> heard_;  // signs of life of every rank
  std::vector<uint64_t> sent_, received_;
  uint64_t beats_ = 0;
  Clock::time_point lastBeat_;
  std::string failure_;
};

class FolderChannel final : public Channel {
 public:
  FolderChannel(const TransportJob& job, std::shared_ptr<Folder> folder, double seconds)
      : job_(job), folder_(std::move(folder)), seconds_(seconds) {}

  void start(uint32_t, const uint64_t*, uint64_t*) override { AEGIS_INVARIANT(!"a folder moves no rows"); }
  void wait(uint32_t) override { AEGIS_INVARIANT(!"a folder moves no rows"); }
  void beat() override {
    folder_->beat();
    folder_->refuseIfFailed(place_);
  }
  void watch(uint32_t collective) override {
    const Collective& c = (*job_.collectives)[collective];
    if (watched_ != collective) {
      watch_.restart();
      watched_ = collective;
      place_ = "in " + c.describe();
    }
    beat();
    for (const uint32_t other : c.group)
      if (other != folder_->rank() && folder_->silent(watch_, other, seconds_))
        folder_->refuse(place_, other, seconds_);
  }
  void abort(const std::string& reason) noexcept override {
    try {
      folder_->tellFailure(reason);
    } catch (const std::exception&) {  // they will see that this rank is silent
    }
  }
  uint64_t receivedBytes(uint32_t) const override { return 0; }
  uint64_t executions(uint32_t) const override { return 0; }
  void resetCounts() override {
    watched_ = ~0u;
    place_ = "before its first collective";
  }

 private:
  const TransportJob job_;
  const std::shared_ptr<Folder> folder_;
  const double seconds_;
  StallWatch watch_;
  uint32_t watched_ = ~0u;
  std::string place_ = "before its first collective";
};

class FolderTransport final : public Transport {
 public:
  FolderTransport(const TransportJob& job, const Rendezvous& rendezvous)
      : job_(job), folder_(std::make_shared<Folder>(rendezvous, job.rankCount)),
        seconds_(channelTimeoutSeconds()), ranks_{rendezvous.rank} {}
  const char* name() const override { return "folder"; }
  bool movesRows() const override { return false; }
  const std::vector<uint32_t>& ranks() const override { return ranks_; }
  std::unique_ptr<Channel> open(uint32_t, Device&) override {
    return std::make_unique<FolderChannel>(job_, folder_, seconds_);
  }
  void begin() override {}
  void send(uint32_t to, const void* data, uint64_t bytes) override { folder_->send(to, data, bytes); }
  void receive(uint32_t from, void* data, uint64_t bytes) override {
    folder_->receive(from, data, bytes, seconds_);
  }
  void beat() override { folder_->beat(); }
  // Rank 0 removes the files once nobody looks for any of them.
  void close() override {
    uint8_t byte = 0;
    for (uint32_t other = 1; other < job_.rankCount; other++) {
      if (folder_->rank() == 0) folder_->send(other, &byte, 1);
      if (folder_->rank() == other) folder_->receive(0, &byte, 1, kCloseFactor * seconds_);
    }
    for (uint32_t other = 1; other < job_.rankCount; other++) {
      if (folder_->rank() == other) folder_->send(0, &byte, 1);
      if (folder_->rank() == 0) folder_->receive(other, &byte, 1, seconds_);
    }
  }

 private:
  const TransportJob job_;
  const std::shared_ptr<Folder> folder_;
  const double seconds_;
  const std::vector<uint32_t> ranks_;
};

}  // namespace

Rendezvous rendezvousOfProcess(uint32_t rankCount) {
  const char* folder = std::getenv("AEGIS_RENDEZVOUS");
  if (folder == nullptr || *folder == '\0') return {};
  for (const char* name : {"AEGIS_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "RANK"}) {
    const char* text = std::getenv(name);
    if (text == nullptr) continue;
    char* end = nullptr;
    const unsigned long rank = std::strtoul(text, &end, 10);
    if (end == text || *end != '\0' || rank >= rankCount)
      fail("R406",
           std::string(name) + " is \"" + text + "\", but the plan has the ranks 0 to " +
               std::to_string(rankCount - 1),
           "start one process for each rank");
    return {folder, uint32_t(rank)};
  }
  fail("R406", "AEGIS_RENDEZVOUS is set, but nothing says which rank this process is",
       "set AEGIS_RANK, or start the processes with srun or mpirun");
}

std::shared_ptr<Transport> makeFolderTransport(const TransportJob& job, const Rendezvous& rendezvous) {
  return std::make_shared<FolderTransport>(job, rendezvous);
}

}  // namespace aegis

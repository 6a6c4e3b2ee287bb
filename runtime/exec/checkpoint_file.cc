#include "exec/checkpoint_file.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "client/key_files.h"
#include "client/randomness.h"
#include "support/error.h"

namespace aegis {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char* kFormat = "aegis-checkpoint";
const std::string kVersion = "1";
constexpr const char* kSum = "sum";
constexpr uint32_t kSlots = 2;
constexpr uint64_t kMaxPosition = 4096;  // indices
constexpr size_t kChunkBytes = size_t(1) << 24;
constexpr size_t kSumBytes = 32;

class Sum {
 public:
  Sum() { crypto_generichash_init(&state_, nullptr, 0, kSumBytes); }
  void add(const void* data, size_t bytes) {
    crypto_generichash_update(&state_, static_cast<const uint8_t*>(data), bytes);
  }
  // Length first, so that no two lists of texts add the same bytes.
  void add(const std::string& text) {
    const uint64_t size = text.size();
    add(&size, sizeof size);
    add(text.data(), text.size());
  }
  std::vector<uint8_t> value() {
    std::vector<uint8_t> out(kSumBytes);
    crypto_generichash_final(&state_, out.data(), out.size());
    return out;
  }

 private:
  crypto_generichash_state state_;
};

// The rows of all ranks come last.
std::string tensorName(const char* what, uint32_t rank) {
  static_assert(kMaxRanks <= 100);  // two digits keep them in order
  std::string name = what;
  name += '.';
  name += char('0' + rank / 10);
  name += char('0' + rank % 10);
  return name;
}

[[noreturn]] void refuseDamaged(const std::string& path, const std::string& why) {
  fail("R412", path + " is not a whole checkpoint of this plan: " + why,
       "remove it, or start again without --resume in another folder");
}

uint64_t rowCount(const std::vector<RowRange>& ranges) {
  uint64_t rows = 0;
  for (const RowRange& range : ranges) rows += range.count;
  return rows;
}

std::map<std::string, std::string> metadataOf(const PlanFile& plan, const RunIdentity& identity,
                                              uint64_t sequence) {
  std::map<std::string, std::string> metadata = identity;
  metadata["format"] = kFormat;
  metadata["version"] = kVersion;
  metadata["sequence"] = std::to_string(sequence);
  metadata["insecure"] = plan.insecure() ? "true" : "false";
  if (plan.insecure()) metadata["warning"] = "INSECURE: made for a plan below 128 bits, for tests only";
  return metadata;
}

uint64_t sequenceOf(const SafeTensors& file) {
  const std::string text = file.meta("sequence");
  if (text.empty() || text.size() > 18 || text.find_first_not_of("0123456789") != std::string::npos)
    refuseDamaged(file.name(), "its number is missing");
  return std::stoull(text);
}

SafeTensors parse(std::unique_ptr<ByteSource> source) {
  const std::string name = source->name();
  try {
    return SafeTensors::parse(std::move(source));
  } catch (const Error& error) {
    refuseDamaged(name, error.what());
  }
}

}  // namespace

RunIdentity runIdentity(const PlanFile& plan, const std::string& keysPath,
                        const std::vector<CiphertextArray>& inputs) {
  const SafeTensors keys = SafeTensors::open(keysPath);
  uint64_t header = keys.source().size();
  for (const auto& [_, tensor] : keys.tensors()) header = std::min(header, tensor.offset);
  std::vector<uint8_t> bytes(std::min(header, kMaxHeaderBytes));
  keys.source().read(0, bytes.data(), bytes.size());
  Sum request;
  for (const CiphertextArray& input : inputs) {
    const uint64_t words = input.data.size();
    request.add(&words, sizeof words);
    request.add(input.data.data(), words * sizeof(uint64_t));
  }
  const std::vector<uint8_t> sum = request.value();
  return {{"plan", sha256Hex(plan.bytes().data(), plan.bytes().size())},
          {"weights", plan.plan().weights_hash()->str()},
          {"keys", sha256Hex(bytes.data(), bytes.size())},
          {"request", toHex(sum.data(), sum.size())}};
}

CheckpointFile::CheckpointFile(std::unique_ptr<ByteSource> source, const PlanFile& plan,
                               const RunIdentity& identity)
    : plan_(plan), file_(parse(std::move(source))) {
  if (file_.meta("format") != kFormat) refuseDamaged(file_.name(), "it is another kind of file");
  if (file_.meta("version") != kVersion)
    refuseDamaged(file_.name(), "it has version \"" + file_.meta("version").substr(0, 20) +
                                    "\", this program reads " + kVersion);
  for (const auto& [what, hash] : identity)
    if (file_.meta(what) != hash)
      fail("R411", file_.name() + " is a checkpoint of a run with another " + what + " file",
           "resume with the files of that run, or give this one a folder of its own");
  sequence_ = sequenceOf(file_);
  const size_t ranks = plan.programs().size();
  if (file_.tensors().size() != 3 * ranks + 1) refuseDamaged(file_.name(), "it is for other ranks");
  try {
    readPositions();
    if (!canStopAt(plan, positions_)) refuseDamaged(file_.name(), "the plan has no such position");
    readCounts();
    checkRows();
    checkSum();
  } catch (const Error& error) {
    if (error.code() == "R412") throw;
    refuseDamaged(file_.name(), error.what());
  }
}

void CheckpointFile::readPositions() {
  for (uint32_t rank = 0; rank < plan_.programs().size(); rank++) {
    const std::string name = tensorName("position", rank);
    const TensorInfo* info = file_.find(name);
    if (info == nullptr || info->elements() > kMaxPosition)
      refuseDamaged(file_.name(), "it has no position of rank " + std::to_string(rank));
    Position& position = positions_.emplace_back();
    for (const uint64_t index :
         file_.readAll<uint64_t>(file_.require(name, Dtype::kU64, {info->elements()}))) {
      if (index > ~uint32_t(0)) refuseDamaged(file_.name(), "the plan has no such position");
      position.push_back(uint32_t(index));
    }
  }
}

void CheckpointFile::readCounts() {
  for (uint32_t rank = 0; rank < plan_.programs().size(); rank++)
    counts_.push_back(file_.readAll<uint64_t>(file_.require(tensorName("collectives", rank), Dtype::kU64,
                                                            {plan_.collectives().size(), 2})));
}

void CheckpointFile::checkRows() const {
  for (uint32_t rank = 0; rank < plan_.programs().size(); rank++)
    file_.require(tensorName("rows", rank), Dtype::kU64,
                  {rowCount(liveRows(plan_.programs()[rank], positions_[rank])), plan_.ring().degree()});
}

void CheckpointFile::checkSum() const {
  const TensorInfo& expected = file_.require(kSum, Dtype::kU8, {kSumBytes});
  Sum sum;
  for (const auto& [key, value] : file_.metadata()) {
    sum.add(key);
    sum.add(value);
  }
  std::vector<uint8_t> chunk;
  for (const auto& [name, tensor] : file_.tensors()) {
    if (name == kSum) continue;
    for (uint64_t at = 0; at < tensor.bytes; at += chunk.size()) {
      chunk.resize(std::min<uint64_t>(kChunkBytes, tensor.bytes - at));
      file_.read(tensor, at, chunk.data(), chunk.size());
      sum.add(chunk.data(), chunk.size());
    }
  }
  if (file_.readAll<uint8_t>(expected) != sum.value()) refuseDamaged(file_.name(), "its sum is wrong");
}

uint64_t CheckpointFile::executions(uint32_t rank, uint32_t collective) const {
  return counts_[rank][2 * size_t(collective)];
}

uint64_t CheckpointFile::receivedBytes(uint32_t rank, uint32_t collective) const {
  return counts_[rank][2 * size_t(collective) + 1];
}

void CheckpointFile::readRows(uint32_t rank, uint64_t first, uint64_t count, uint64_t* out) const {
  const uint64_t row = plan_.ring().degree() * sizeof(uint64_t);
  file_.read(*file_.find(tensorName("rows", rank)), first * row, out, count * row);
}

CheckpointFolder::CheckpointFolder(const std::string& folder, const PlanFile& plan, const Progress& progress)
    : folder_(folder), plan_(plan), progress_(progress) {
  makeDirectory(folder);
  const std::string path = folder + "/lock";
  lock_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (lock_ < 0) fail("R102", "cannot create " + path + ": " + std::strerror(errno));
  if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    close(lock_);
    fail("R415", "another run keeps its checkpoints in " + folder + ": " + std::strerror(reason),
         "give every run a folder of its own");
  }
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(".checkpoint-", 0) == 0 && name.size() > 4 && name.substr(name.size() - 4) == ".tmp")
      fs::remove(entry.path(), ignored);
  }
}

CheckpointFolder::~CheckpointFolder() { close(lock_); }

std::string CheckpointFolder::slot(uint32_t index) const {
  return folder_ + "/checkpoint-" + std::to_string(index) + ".aegis";
}

bool CheckpointFolder::holdsAny() const {
  for (uint32_t i = 0; i < kSlots; i++)
    if (fs::exists(slot(i))) return true;
  return false;
}

std::unique_ptr<CheckpointFile> CheckpointFolder::newest() {
  std::unique_ptr<CheckpointFile> best;
  std::optional<Error> damaged;
  for (uint32_t i = 0; i < kSlots; i++) {
    if (!fs::exists(slot(i))) continue;
    try {
      auto file = std::make_unique<CheckpointFile>(ByteSource::openFile(slot(i)), plan_, identity_);
      if (best != nullptr && best->sequence() > file->sequence()) continue;
      best = std::move(file);
      next_ = (i + 1) % kSlots;
    } catch (const Error& error) {
      if (error.code() == "R411") throw;
      damaged = error;
    }
  }
  if (best == nullptr && damaged.has_value()) throw *damaged;
  if (best != nullptr && damaged.has_value()) progress_.warning("R412", damaged->what());
  if (best != nullptr) sequence_ = best->sequence();
  return best;
}

void CheckpointFolder::save(const std::vector<RankSnapshot>& ranks, const std::function<void()>& beat) {
  const auto start = Clock::now();
  const std::string path = slot(next_);
  std::error_code ignored;
  fs::remove(path, ignored);  // the older one; gives its room to the new one
  try {
    write(path, ranks, beat);
    sequence_++;
    next_ = (next_ + 1) % kSlots;
    statistics_.written++;
  } catch (const Error& error) {
    if (error.code() != "R102") throw;
    progress_.warning("R414", std::string("no checkpoint was written: ") + error.what());
  }
  statistics_.seconds += std::chrono::duration<double>(Clock::now() - start).count();
}

void CheckpointFolder::write(const std::string& path, const std::vector<RankSnapshot>& ranks,
                             const std::function<void()>& beat) {
  const uint64_t n = plan_.ring().degree();
  const auto metadata = metadataOf(plan_, identity_, sequence_ + 1);
  std::vector<TensorSpec> specs = {{kSum, Dtype::kU8, {kSumBytes}}};
  for (const RankSnapshot& rank : ranks) {
    uint64_t rows = 0;
    for (const RankSnapshot::Piece& piece : rank.live) rows += piece.rows;
    specs.push_back({tensorName("collectives", rank.rank), Dtype::kU64, {rank.executions.size(), 2}});
    specs.push_back({tensorName("position", rank.rank), Dtype::kU64, {rank.position.size()}});
    specs.push_back({tensorName("rows", rank.rank), Dtype::kU64, {rows, n}});
  }
  SafeTensorsWriter writer(path, FileMode::kPublic, metadata, specs);
  Sum sum;
  for (const auto& [key, value] : metadata) {
    sum.add(key);
    sum.add(value);
  }
  const auto put = [&](const std::string& tensor, const void* data, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += kChunkBytes) {
      beat();
      const auto* from = static_cast<const uint8_t*>(data) + at;
      const uint64_t size = std::min<uint64_t>(kChunkBytes, bytes - at);
      sum.add(from, size);
      writer.write(tensor, from, size);
    }
  };
  for (const RankSnapshot& rank : ranks) {
    std::vector<uint64_t> counts;
    for (size_t i = 0; i < rank.executions.size(); i++)
      counts.insert(counts.end(), {rank.executions[i], rank.receivedBytes[i]});
    put(tensorName("collectives", rank.rank), counts.data(), counts.size() * sizeof(uint64_t));
  }
  for (const RankSnapshot& rank : ranks) {
    const std::vector<uint64_t> position(rank.position.begin(), rank.position.end());
    put(tensorName("position", rank.rank), position.data(), position.size() * sizeof(uint64_t));
  }
  for (const RankSnapshot& rank : ranks)
    for (const RankSnapshot::Piece& piece : rank.live)
      put(tensorName("rows", rank.rank), piece.data, piece.rows * n * sizeof(uint64_t));
  const std::vector<uint8_t> value = sum.value();
  writer.write(kSum, value.data(), value.size());
  writer.commit();
  statistics_.bytes = std::max(statistics_.bytes, writer.totalBytes());
}

void CheckpointFolder::removeAll() {
  std::error_code ignored;
  for (uint32_t i = 0; i < kSlots; i++) fs::remove(slot(i), ignored);
}

}  // namespace aegis

#include "plan/plan_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <numeric>

#include "plan/checks.h"

namespace aegis {
namespace {

// The whole file in memory of our own: a mapped file may change or shrink after it was checked.
std::vector<uint8_t> readFile(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat info;
  if (file < 0 || fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) {
    const std::string reason = file < 0 ? std::strerror(errno) : "not a regular file";
    if (file >= 0) close(file);
    fail("R101", "cannot read " + path + ": " + reason);
  }
  if (info.st_size >= off_t(FLATBUFFERS_MAX_BUFFER_SIZE)) {
    close(file);
    fail("R210", path + " is not a plan: it has 2 GiB or more");
  }
  std::vector<uint8_t> bytes(static_cast<size_t>(info.st_size));
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::read(file, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    done += size_t(count);
  }
  close(file);
  if (done < bytes.size()) fail("R101", "cannot read " + path + " to its end");
  return bytes;
}

// The version field alone: a plan of another major version need not have this one's structure.
uint16_t majorVersion(const std::vector<uint8_t>& bytes) {
  flatbuffers::Verifier verifier(bytes.data(), bytes.size());
  const size_t root = verifier.VerifyOffset(0);
  if (root == 0) return kPlanFormatMajor;
  const auto* table = reinterpret_cast<const flatbuffers::Table*>(bytes.data() + root);
  if (!table->VerifyTableStart(verifier) ||
      !table->VerifyField<uint16_t>(verifier, plan::Plan::VT_FORMAT_MAJOR, sizeof(uint16_t)))
    return kPlanFormatMajor;
  return table->GetField<uint16_t>(plan::Plan::VT_FORMAT_MAJOR, 0);
}

void checkFormat(const std::vector<uint8_t>& bytes) {
  if (bytes.size() < 8 + sizeof(flatbuffers::uoffset_t) || bytes.size() >= FLATBUFFERS_MAX_BUFFER_SIZE ||
      !plan::PlanBufferHasIdentifier(bytes.data()))
    fail("R210", "this is not a plan file", "plans are made by `aegis compile MODEL -o PLAN`");
  const uint16_t major = majorVersion(bytes);
  if (major != kPlanFormatMajor)
    fail("R211",
         "the plan has format version " + std::to_string(major) + " but this runtime reads version " +
             std::to_string(kPlanFormatMajor),
         "compile the model again with this version of aegis");
  flatbuffers::Verifier::Options options;
  options.max_depth = 64;
  options.max_tables = 4000000;
  flatbuffers::Verifier verifier(bytes.data(), bytes.size(), options);
  if (!plan::VerifyPlanBuffer(verifier))
    fail("R212", "the plan file is damaged", "compile the model again, or copy the file again");
}

void checkMesh(const plan::Plan& plan) {
  uint64_t ranks = 1;
  for (const plan::MeshAxis* axis : *plan.mesh()) {
    if (axis->size() == 0 || axis->size() > kMaxRanks || (ranks *= axis->size()) > kMaxRanks)
      fail("R217", "mesh axis " + axis->name()->str() + " has size " + std::to_string(axis->size()));
  }
  if (plan.programs()->size() != ranks)
    fail("R217", "the mesh has " + std::to_string(ranks) + " ranks but the plan has " +
                     std::to_string(plan.programs()->size()) + " programs");
}

}  // namespace

PlanFile PlanFile::open(const std::string& path, const PlanOptions& options) {
  return fromBytes(readFile(path), options);
}

PlanFile PlanFile::fromBytes(std::vector<uint8_t> bytes, const PlanOptions& options) {
  checkFormat(bytes);
  PlanFile file;
  file.bytes_ = std::move(bytes);
  const plan::Plan& plan = file.plan();
  file.ring_ = checkParameters(*plan.parameters());
  checkMesh(plan);
  CheckBudget budget;
  CheckContext context{plan, *file.ring_, budget, file.collectives_};
  checkKeys(context);
  checkPlaintexts(context);
  file.collectives_ = decodeCollectives(context);
  for (uint32_t rank = 0; rank < plan.programs()->size(); rank++)
    file.programs_.push_back(decodeProgram(context, *plan.programs()->Get(rank), rank));
  checkPorts(context, file.programs_);
  checkCollectiveOrder(context, file.programs_);
  std::vector<uint32_t> ranks(file.programs_.size());
  std::iota(ranks.begin(), ranks.end(), 0u);
  file.memory_ = file.memoryOf(ranks);
  file.requireMemory(options.memoryLimitBytes);
  return file;
}

uint32_t keyDigitCount(const plan::KeyClass& keyClass, uint32_t level) {
  uint32_t count = 0;
  for (const plan::DigitRange* digit : *keyClass.digits()) count += digit->first() <= level;
  return count;
}

const plan::KeyClass& PlanFile::keyClass(uint32_t key) const {
  return *plan().parameters()->key_classes()->Get(plan().keys()->Get(key)->key_class());
}

uint32_t PlanFile::keyRowCount(uint32_t key) const {
  return uint32_t(plan().keys()->Get(key)->level()) + 1 + keyClass(key).specials();
}

std::vector<std::vector<uint16_t>> PlanFile::keyRowsOf(const std::vector<uint32_t>& ranks) const {
  std::vector<std::vector<uint16_t>> result(plan().keys()->size());
  for (const uint32_t rank : ranks) {
    for (const KeyPartSpec& part : programs_[rank].keys) {
      std::vector<uint16_t> merged;
      std::set_union(result[part.key].begin(), result[part.key].end(), part.rows.begin(), part.rows.end(),
                     std::back_inserter(merged));
      result[part.key] = std::move(merged);
    }
  }
  return result;
}

uint32_t PlanFile::keyDigitCount(uint32_t key) const {
  return aegis::keyDigitCount(keyClass(key), plan().keys()->Get(key)->level());
}

}  // namespace aegis

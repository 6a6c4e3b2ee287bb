#include "io/safetensors.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/safetensors_header.h"
#include "support/error.h"

namespace aegis {
namespace {

struct DtypeEntry {
  Dtype dtype;
  const char* name;
  uint32_t bytes;
};
constexpr std::array<DtypeEntry, 5> kDtypes = {{
    {Dtype::kF32, "F32", 4}, {Dtype::kF64, "F64", 8}, {Dtype::kU64, "U64", 8}, {Dtype::kI32, "I32", 4},
    {Dtype::kU8, "U8", 1},
}};

constexpr const char* kMetadataKey = "__metadata__";
constexpr uint64_t kLengthBytes = 8;

// False on overflow.
bool byteCount(const Shape& shape, Dtype dtype, uint64_t& bytes) {
  bytes = dtypeBytes(dtype);
  bool empty = false;
  for (uint64_t size : shape) {
    empty |= size == 0;
    if (size != 0 && __builtin_mul_overflow(bytes, size, &bytes)) return false;
  }
  if (empty) bytes = 0;
  return true;
}

}  // namespace

const char* dtypeName(Dtype dtype) { return kDtypes[size_t(dtype)].name; }
uint32_t dtypeBytes(Dtype dtype) { return kDtypes[size_t(dtype)].bytes; }

std::string printShape(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); i++) {
    if (i > 0) text += ',';
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

SafeTensors SafeTensors::open(const std::string& path) { return parse(ByteSource::openFile(path)); }

SafeTensors SafeTensors::parse(std::unique_ptr<ByteSource> source) {
  SafeTensors file;
  file.source_ = std::move(source);
  const std::string& name = file.name();
  const uint64_t size = file.source_->size();
  if (size < kLengthBytes + 2)
    fail("R103", name + " is too short for a safetensors file: " + std::to_string(size) + " bytes");
  uint64_t length = 0;
  file.source_->read(0, &length, kLengthBytes);
  if (length > kMaxHeaderBytes || length > size - kLengthBytes)
    fail("R103", name + " is not a safetensors file: header of " + std::to_string(length)
                     + " bytes in a file of " + std::to_string(size));
  std::string header(length, '\0');
  file.source_->read(kLengthBytes, header.data(), length);
  file.parseHeader(header, kLengthBytes + length);
  file.checkLayout(kLengthBytes + length);
  return file;
}

void SafeTensors::parseHeader(const std::string& header, uint64_t dataOffset) {
  SafeTensorsHeader parsed = parseSafeTensorsHeader(header, name());
  metadata_ = std::move(parsed.metadata);
  const uint64_t dataBytes = source_->size() - dataOffset;
  for (auto& [tensor, entry] : parsed.tensors) {
    const auto known = std::find_if(kDtypes.begin(), kDtypes.end(),
                                    [&, text = entry.dtype](const DtypeEntry& e) { return text == e.name; });
    const std::string where = "tensor \"" + tensor + "\" of " + name();
    if (known == kDtypes.end())
      fail("R105", where + " has dtype " + entry.dtype + "; known are F32, F64, U64, I32 and U8");
    uint64_t bytes = 0;
    const bool fits = byteCount(entry.shape, known->dtype, bytes);
    if (!fits || entry.begin > entry.end || entry.end > dataBytes || entry.end - entry.begin != bytes)
      fail("R106", where + " has shape " + printShape(entry.shape) + " " + entry.dtype + " but bytes "
                       + std::to_string(entry.begin) + ".." + std::to_string(entry.end) + " of "
                       + std::to_string(dataBytes));
    tensors_[tensor] = TensorInfo{known->dtype, std::move(entry.shape), dataOffset + entry.begin, bytes};
  }
}

// Tensors cover the data exactly: neither overlap nor bytes that nobody reads.
void SafeTensors::checkLayout(uint64_t dataOffset) const {
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (const auto& [_, tensor] : tensors_)
    if (tensor.bytes > 0) ranges.emplace_back(tensor.offset, tensor.offset + tensor.bytes);
  std::sort(ranges.begin(), ranges.end());
  uint64_t end = dataOffset;
  for (const auto& [begin, next] : ranges) {
    if (begin != end)
      fail("R107", "tensors of " + name() + " overlap or leave a hole at byte " + std::to_string(begin));
    end = next;
  }
  if (end != source_->size())
    fail("R107", name() + " has " + std::to_string(source_->size() - end) + " bytes after its last tensor");
}

const TensorInfo* SafeTensors::find(const std::string& tensor) const {
  const auto found = tensors_.find(tensor);
  return found == tensors_.end() ? nullptr : &found->second;
}

const TensorInfo& SafeTensors::require(const std::string& tensor, Dtype dtype, const Shape& shape) const {
  const TensorInfo* found = find(tensor);
  const std::string expected = std::string(dtypeName(dtype)) + printShape(shape);
  if (found == nullptr) fail("R109", name() + " has no tensor \"" + tensor + "\" (" + expected + ")");
  if (found->dtype != dtype || found->shape != shape)
    fail("R109", "tensor \"" + tensor + "\" of " + name() + " is " + dtypeName(found->dtype)
                     + printShape(found->shape) + " but must be " + expected);
  return *found;
}

std::string SafeTensors::meta(const std::string& key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? "" : found->second;
}

void SafeTensors::read(const TensorInfo& tensor, uint64_t begin, void* out, uint64_t bytes) const {
  AEGIS_INVARIANT(begin <= tensor.bytes && bytes <= tensor.bytes - begin);
  source_->read(tensor.offset + begin, out, bytes);
}

void SafeTensors::checkWidth(const TensorInfo& tensor, size_t bytes) {
  AEGIS_INVARIANT(dtypeBytes(tensor.dtype) == bytes);
}

SafeTensorsWriter::SafeTensorsWriter(const std::string& path, FileMode mode,
                                     const std::map<std::string, std::string>& metadata,
                                     const std::vector<TensorSpec>& tensors)
    : file_(path, mode) {
  std::map<std::string, const TensorSpec*> sorted;
  for (const TensorSpec& tensor : tensors) {
    const bool fresh = sorted.emplace(tensor.name, &tensor).second;
    AEGIS_INVARIANT(fresh && tensor.name != kMetadataKey);
  }
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header[kMetadataKey] = metadata;
  uint64_t offset = 0;
  for (const auto& [name, tensor] : sorted) {
    uint64_t bytes = 0;
    AEGIS_INVARIANT(byteCount(tensor->shape, tensor->dtype, bytes));
    header[name] = {{"dtype", dtypeName(tensor->dtype)}, {"shape", tensor->shape},
                    {"data_offsets", {offset, offset + bytes}}};
    pending_.push_back({name, bytes});
    offset += bytes;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // data starts at a multiple of 8
  const uint64_t length = text.size();
  file_.write(&length, kLengthBytes);
  file_.write(text.data(), text.size());
  total_ = kLengthBytes + length + offset;
}

void SafeTensorsWriter::write(const std::string& tensor, const void* data, uint64_t bytes) {
  while (current_ < pending_.size() && pending_[current_].bytes == 0) current_++;
  AEGIS_INVARIANT(current_ < pending_.size() && pending_[current_].name == tensor);
  AEGIS_INVARIANT(bytes <= pending_[current_].bytes);
  file_.write(data, bytes);
  pending_[current_].bytes -= bytes;
}

void SafeTensorsWriter::commit() {
  for (const Pending& tensor : pending_) AEGIS_INVARIANT(tensor.bytes == 0);
  file_.commit();
}

}  // namespace aegis

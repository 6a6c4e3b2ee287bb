// safetensors files: 8 bytes header length (little endian), a JSON header, then the tensors' bytes.
//   {"__metadata__": {string: string}, NAME: {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}}
// The reader takes what others write (any order of tensors, any alignment) and refuses everything
// inconsistent; the writer sorts names, so that equal content gives equal bytes.
// https://github.com/huggingface/safetensors, "Format".
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/files.h"

namespace aegis {

enum class Dtype : uint8_t { kF32, kF64, kU64, kI32, kU8 };

const char* dtypeName(Dtype dtype);
uint32_t dtypeBytes(Dtype dtype);

using Shape = std::vector<uint64_t>;
std::string printShape(const Shape& shape);

struct TensorInfo {
  Dtype dtype = Dtype::kU8;
  Shape shape;
  uint64_t offset = 0;  // from the start of the file
  uint64_t bytes = 0;
  uint64_t elements() const { return bytes / dtypeBytes(dtype); }
};

constexpr uint64_t kMaxHeaderBytes = uint64_t(64) << 20;

class SafeTensors {
 public:
  // R101 unreadable; R103 not a safetensors file; R104 header is not the JSON it should be; R105 unknown
  // dtype; R106 shape and offsets disagree or lie outside of the file; R107 tensors overlap or leave a hole;
  // R108 a name twice.
  static SafeTensors open(const std::string& path);
  static SafeTensors parse(std::unique_ptr<ByteSource> source);

  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& name() const { return source_->name(); }
  const ByteSource& source() const { return *source_; }

  const TensorInfo* find(const std::string& tensor) const;
  // R109: no such tensor, or of another dtype or shape.
  const TensorInfo& require(const std::string& tensor, Dtype dtype, const Shape& shape) const;
  // "" if absent.
  std::string meta(const std::string& key) const;

  // Copies bytes [begin, begin + bytes) of a tensor. Words are little endian, as this machine's.
  void read(const TensorInfo& tensor, uint64_t begin, void* out, uint64_t bytes) const;

  // The whole tensor; T must be as wide as its dtype.
  template <class T, class Vector = std::vector<T>>
  Vector readAll(const TensorInfo& tensor) const {
    checkWidth(tensor, sizeof(T));
    Vector values(tensor.elements());
    read(tensor, 0, values.data(), tensor.bytes);
    return values;
  }

 private:
  void parseHeader(const std::string& header, uint64_t dataOffset);
  void checkLayout(uint64_t dataOffset) const;
  static void checkWidth(const TensorInfo& tensor, size_t bytes);

  std::unique_ptr<ByteSource> source_;
  std::map<std::string, TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

struct TensorSpec {
  std::string name;
  Dtype dtype = Dtype::kU8;
  Shape shape;
};

// Streams a file: the header first, then the tensors' bytes in order of their names, in pieces of any size.
class SafeTensorsWriter {
 public:
  SafeTensorsWriter(const std::string& path, FileMode mode,
                    const std::map<std::string, std::string>& metadata,
                    const std::vector<TensorSpec>& tensors);
  void write(const std::string& tensor, const void* data, uint64_t bytes);
  void commit();  // all tensors must be complete
  uint64_t totalBytes() const { return total_; }

 private:
  struct Pending {
    std::string name;
    uint64_t bytes;
  };
  AtomicFile file_;
  std::vector<Pending> pending_;
  size_t current_ = 0;
  uint64_t total_ = 0;
};

}  // namespace aegis

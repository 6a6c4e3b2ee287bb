// Output files that appear whole or not at all, and bounded random access to input files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace aegis {

enum class FileMode { kPublic, kSecret };  // kSecret: 0600 from the first byte on; kPublic: what umask allows

// Writes a temporary file beside `path`; commit() makes it durable and renames it. Without commit nothing
// remains. R102: the file cannot be written.
class AtomicFile {
 public:
  AtomicFile(std::string path, FileMode mode);
  ~AtomicFile();
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void commit();
  const std::string& path() const { return path_; }

 private:
  void refuse(const char* what) const;

  std::string path_, temporary_;
  int file_ = -1;
};

// Random access to bytes of known size. Files are read with pread and not mapped: a file that shrinks under
// us is then a coded error and not a SIGBUS, and large keys are read straight to where they stay.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual uint64_t size() const = 0;
  virtual void read(uint64_t offset, void* out, size_t bytes) const = 0;  // the range lies inside the file
  virtual const std::string& name() const = 0;

  // R101: missing, not a regular file, unreadable.
  static std::unique_ptr<ByteSource> openFile(const std::string& path);
  // Borrows the bytes (fuzzing, tests).
  static std::unique_ptr<ByteSource> fromMemory(const uint8_t* data, size_t bytes);
};

// Creates a directory and its parents, 0700 for the last one if it is new. R102.
void makeDirectory(const std::string& path);

}  // namespace aegis

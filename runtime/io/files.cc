#include "io/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "support/error.h"

namespace aegis {
namespace {

// One system call moves at most about 2 GiB on Linux.
constexpr size_t kMaxTransferBytes = size_t(1) << 30;

std::string directoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string temporaryName(const std::string& path) {
  static std::atomic<uint32_t> counter{0};
  const size_t slash = path.rfind('/');
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  return directoryOf(path) + "/." + name + "." + std::to_string(getpid()) + "-" + std::to_string(counter++)
         + ".tmp";
}

class FileSource final : public ByteSource {
 public:
  explicit FileSource(const std::string& path) : path_(path) {
    // Non-blocking, so that a named pipe is refused below instead of waited for.
    file_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file_ < 0) fail("R101", "cannot open " + path + ": " + std::strerror(errno));
    struct stat status;
    if (fstat(file_, &status) != 0 || !S_ISREG(status.st_mode)) {
      close(file_);
      fail("R101", path + " is not a regular file");
    }
    size_ = uint64_t(status.st_size);
  }
  ~FileSource() override { close(file_); }

  uint64_t size() const override { return size_; }
  const std::string& name() const override { return path_; }

  void read(uint64_t offset, void* out, size_t bytes) const override {
    AEGIS_INVARIANT(offset <= size_ && bytes <= size_ - offset);
    for (auto* to = static_cast<uint8_t*>(out); bytes > 0;) {
      const ssize_t got = pread(file_, to, std::min(bytes, kMaxTransferBytes), off_t(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail("R101", "cannot read " + path_ + ": " + std::strerror(errno));
      if (got == 0) fail("R101", path_ + " became shorter while it was read");
      to += got;
      offset += uint64_t(got);
      bytes -= size_t(got);
    }
  }

 private:
  std::string path_;
  int file_ = -1;
  uint64_t size_ = 0;
};

class MemorySource final : public ByteSource {
 public:
  MemorySource(const uint8_t* data, size_t bytes) : data_(data), bytes_(bytes) {}
  uint64_t size() const override { return bytes_; }
  const std::string& name() const override { return name_; }
  void read(uint64_t offset, void* out, size_t bytes) const override {
    AEGIS_INVARIANT(offset <= bytes_ && bytes <= bytes_ - offset);
    if (bytes > 0) std::memcpy(out, data_ + offset, bytes);
  }

 private:
  const uint8_t* data_;
  size_t bytes_;
  std::string name_ = "buffer";
};

}  // namespace

AtomicFile::AtomicFile(std::string path, FileMode mode) : path_(std::move(path)) {
  struct stat status;
  if (stat(path_.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
    fail("R102", path_ + " exists and is not a regular file");
  temporary_ = temporaryName(path_);
  const mode_t bits = mode == FileMode::kSecret ? 0600 : 0666;
  file_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, bits);
  if (file_ < 0) refuse("create");
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      file_(std::exchange(other.file_, -1)) {}

AtomicFile::~AtomicFile() {
  if (file_ < 0) return;
  close(file_);
  unlink(temporary_.c_str());
}

void AtomicFile::refuse(const char* what) const {
  fail("R102", std::string("cannot ") + what + " " + path_ + ": " + std::strerror(errno),
       "check that the directory exists, may be written and has room");
}

void AtomicFile::write(const void* data, size_t bytes) {
  AEGIS_INVARIANT(file_ >= 0);
  for (const auto* from = static_cast<const uint8_t*>(data); bytes > 0;) {
    const ssize_t put = ::write(file_, from, std::min(bytes, kMaxTransferBytes));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) refuse("write");
    from += put;
    bytes -= size_t(put);
  }
}

void AtomicFile::commit() {
  AEGIS_INVARIANT(file_ >= 0);
  if (fsync(file_) != 0 && errno != EINVAL) refuse("write");
  if (rename(temporary_.c_str(), path_.c_str()) != 0) refuse("rename");
  close(file_);
  file_ = -1;
  // The new name, too, is to outlast a loss of power; file systems that cannot sync folders keep it anyway.
  const int folder = open(directoryOf(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;
  fsync(folder);
  close(folder);
}

std::unique_ptr<ByteSource> ByteSource::openFile(const std::string& path) {
  return std::make_unique<FileSource>(path);
}

std::unique_ptr<ByteSource> ByteSource::fromMemory(const uint8_t* data, size_t bytes) {
  return std::make_unique<MemorySource>(data, bytes);
}

void makeDirectory(const std::string& path) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1))
    if (mkdir(path.substr(0, slash).c_str(), 0777) != 0 && errno != EEXIST) break;  // the last mkdir reports
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    fail("R102", "cannot create directory " + path + ": " + std::strerror(errno));
  struct stat status;
  if (stat(path.c_str(), &status) != 0 || !S_ISDIR(status.st_mode))
    fail("R102", path + " is not a directory");
}

}  // namespace aegis

#include "client_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "io/safetensors.h"

namespace aegis::test {
namespace {

namespace fs = std::filesystem;

std::vector<uint8_t> fileOf(const std::string& header, size_t dataBytes) {
  const uint64_t length = header.size();
  std::vector<uint8_t> bytes(8 + header.size() + dataBytes);
  std::memcpy(bytes.data(), &length, 8);
  std::memcpy(bytes.data() + 8, header.data(), header.size());
  return bytes;
}

void refusesHeader(Checker& c, const char* code, const std::string& header, size_t dataBytes) {
  const std::vector<uint8_t> bytes = fileOf(header, dataBytes);
  c.refuses(code, header.substr(0, 60),
            [&] { SafeTensors::parse(ByteSource::fromMemory(bytes.data(), bytes.size())); });
}

void testHeaders(Checker& c) {
  const std::string good = R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})";
  const std::vector<uint8_t> bytes = fileOf(good, 2);
  c.check(SafeTensors::parse(ByteSource::fromMemory(bytes.data(), bytes.size())).tensors().size() == 1,
          "a small file");
  const auto cut = [&](size_t size) { SafeTensors::parse(ByteSource::fromMemory(bytes.data(), size)); };
  c.refuses("R103", "an empty file", [&] { cut(0); });
  c.refuses("R103", "a file cut in its header", [&] { cut(20); });
  c.refuses("R106", "a file cut in its data", [&] { cut(bytes.size() - 1); });
  const auto entry = [](const std::string& fields) { return "{\"a\":{" + fields + "}}"; };
  refusesHeader(c, "R104", "[]", 0);
  refusesHeader(c, "R104", "{ ", 0);
  refusesHeader(c, "R104", std::string(100000, '['), 0);
  refusesHeader(c, "R104", R"({"a":{"a":{}}})", 0);
  refusesHeader(c, "R104", R"({"__metadata__":{"a":1}})", 0);
  refusesHeader(c, "R104", R"({"a":1})", 0);
  refusesHeader(c, "R104", entry(R"("dtype":"U8","shape":[1])"), 1);
  refusesHeader(c, "R104", entry(R"("dtype":"U8","shape":[-1],"data_offsets":[0,1])"), 1);
  refusesHeader(c, "R104", entry(R"("dtype":"U8","shape":[1.5],"data_offsets":[0,1])"), 1);
  refusesHeader(c, "R104", entry(R"("dtype":"U8","shape":[1],"data_offsets":[0,1,2])"), 1);
  refusesHeader(c, "R104", entry(R"("dtype":"U8","shape":[[1]],"data_offsets":[0,1])"), 1);
  refusesHeader(c, "R105", entry(R"("dtype":"F16","shape":[1],"data_offsets":[0,2])"), 2);
  refusesHeader(c, "R106", entry(R"("dtype":"U8","shape":[3],"data_offsets":[0,2])"), 2);
  refusesHeader(c, "R106", entry(R"("dtype":"U8","shape":[2],"data_offsets":[2,0])"), 2);
  refusesHeader(c, "R106", entry(R"("dtype":"U64","shape":[4294967296,4294967296],"data_offsets":[0,0])"), 0);
  refusesHeader(c, "R107", good, 3);
  refusesHeader(c, "R107", entry(R"("dtype":"U8","shape":[1],"data_offsets":[1,2])"), 2);
  refusesHeader(c, "R107", R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                           R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", 3);
  refusesHeader(c, "R108", R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                           R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0);
  refusesHeader(c, "R108", R"({"__metadata__":{"x":"1","x":"2"}})", 0);
  std::vector<uint8_t> huge = bytes;
  const uint64_t length = kMaxHeaderBytes + 1;
  std::memcpy(huge.data(), &length, 8);
  huge.resize(huge.size() + length);
  c.refuses("R103", "a header above 64 MiB",
            [&] { SafeTensors::parse(ByteSource::fromMemory(huge.data(), huge.size())); });
}

size_t filesIn(const std::string& directory) {
  return size_t(std::distance(fs::directory_iterator(directory), fs::directory_iterator()));
}

void testAtomicFiles(Checker& c, const std::string& directory) {
  fs::create_directories(directory);
  const std::string path = directory + "/file";
  {
    AtomicFile file(path, FileMode::kPublic);
    file.write("half", 4);
    c.check(!fs::exists(path), "nothing appears before commit");
  }
  c.check(filesIn(directory) == 0, "a file that is not committed leaves nothing behind");
  AtomicFile secret(path, FileMode::kSecret);
  struct stat status {};
  for (const auto& entry : fs::directory_iterator(directory)) stat(entry.path().c_str(), &status);
  c.check((status.st_mode & 0777) == 0600, "a secret is 0600 before it is complete");
  secret.write("whole", 5);
  secret.commit();
  c.check(fs::file_size(path) == 5 && filesIn(directory) == 1, "commit renames");
  c.refuses("R102", "a directory as output", [&] { AtomicFile(directory, FileMode::kPublic); });
  c.refuses("R102", "a missing directory", [&] { AtomicFile(directory + "/no/file", FileMode::kPublic); });
  c.refuses("R101", "a missing input", [&] { SafeTensors::open(directory + "/no"); });
  c.refuses("R101", "a directory as input", [&] { SafeTensors::open(directory); });
  const std::string shrinking = directory + "/shrinking";
  SafeTensorsWriter writer(shrinking, FileMode::kPublic, {{"k", "v"}}, {{"t", Dtype::kU64, {4}}});
  const uint64_t words[4] = {1, 2, 3, 4};
  writer.write("t", words, sizeof words);
  writer.commit();
  const SafeTensors file = SafeTensors::open(shrinking);
  c.check(file.readAll<uint64_t>(file.require("t", Dtype::kU64, {4}))[3] == 4, "what was written is read");
  c.refuses("R109", "another shape", [&] { file.require("t", Dtype::kU64, {5}); });
  c.check(truncate(shrinking.c_str(), 30) == 0, "truncate");
  c.refuses("R101", "a file that shrinks after it was opened",
            [&] { file.readAll<uint64_t>(*file.find("t")); });
}

void testVanishing(Checker& c, const std::string& directory) {
  const std::string path = directory + "/vanishing";
  SafeTensorsWriter writer(path, FileMode::kPublic, {}, {{"x", Dtype::kU8, {1 << 16}}});
  const std::vector<uint8_t> bytes(1 << 16, 7);
  writer.write("x", bytes.data(), bytes.size());
  writer.commit();
  const SafeTensors file = SafeTensors::open(path);
  fs::remove(path);
  c.check(file.readAll<uint8_t>(*file.find("x")) == bytes, "a file that vanished is read to its end");
}

}  // namespace

void testFiles(Checker& checker, const std::string& directory) {
  testHeaders(checker);
  testAtomicFiles(checker, directory + "/files");
  testVanishing(checker, directory);
}

}  // namespace aegis::test

// Coded errors. Codes are stable and documented in docs/runtime.md: R1xx file formats, R2xx plan, R3xx keys
// and
// ciphertexts, R4xx execution, R5xx machine.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace aegis {

class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message, std::string help = "")
      : std::runtime_error(message), code_(std::move(code)), help_(std::move(help)) {}
  const std::string& code() const { return code_; }
  const std::string& help() const { return help_; }
  // What else went wrong because of it: the errors of the ranks that stopped, one after another.
  const std::vector<Error>& others() const { return others_; }
  void add(Error other) { others_.push_back(std::move(other)); }

 private:
  std::string code_, help_;
  std::vector<Error> others_;
};

[[noreturn]] inline void fail(const char* code, const std::string& message, const std::string& help = "") {
  throw Error(code, message, help);
}

// Our own bugs, never the user's: aborts with the place.
#define AEGIS_INVARIANT(condition)                                                              \
  do {                                                                                          \
    if (!(condition)) ::aegis::invariantFailed(#condition, __FILE__, __LINE__);                 \
  } while (0)
[[noreturn]] inline void invariantFailed(const char* condition, const char* file, int line) {
  throw std::logic_error(std::string("internal error: ") + condition + " at " + file + ":" +
                         std::to_string(line));
}

}  // namespace aegis

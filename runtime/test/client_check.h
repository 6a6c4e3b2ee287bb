// Counts and prints the checks of one test program.
#pragma once

#include <cstdio>
#include <functional>
#include <string>

#include "support/error.h"

namespace aegis::test {

class Checker {
 public:
  void check(bool good, const std::string& name, const std::string& detail = "") {
    (good ? passed_ : failed_)++;
    std::printf("%s %s%s%s\n", good ? "ok  " : "FAIL", name.c_str(), detail.empty() ? "" : ": ",
                detail.c_str());
  }
  void near(double value, double expected, double tolerance, const std::string& name) {
    check(value >= expected - tolerance && value <= expected + tolerance, name,
          std::to_string(value) + ", expected " + std::to_string(expected) + " +- "
              + std::to_string(tolerance));
  }
  // `call` must throw Error with this code.
  void refuses(const char* code, const std::string& name, const std::function<void()>& call) {
    std::string found = "nothing was thrown";
    try {
      call();
    } catch (const Error& error) {
      found = error.code() + " " + error.what();
    }
    check(found.rfind(code, 0) == 0, name + " is refused with " + code, found);
  }
  int finish() const {
    std::printf("%u passed, %u failed\n", passed_, failed_);
    return failed_ == 0 ? 0 : 1;
  }

 private:
  unsigned passed_ = 0, failed_ = 0;
};

}  // namespace aegis::test

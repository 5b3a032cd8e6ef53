#pragma once

#include <stdexcept>
#include <string>

namespace cspedge {

// Exit codes, the same as cspedge's own.
enum class Code { wrong = 1, usage = 2, input = 3, missing = 4 };

// One sentence for the user and the exit code that goes with it.
class Failure : public std::runtime_error {
 public:
  Failure(Code code, const std::string& sentence) : std::runtime_error(sentence), code_(code) {}
  int code() const { return static_cast<int>(code_); }

 private:
  Code code_;
};

}  // namespace cspedge

#include "process.h"

#include <sys/resource.h>

#include <fstream>
#include <string>

namespace cspedge {

long peak_rss_bytes() {
  // not getrusage on Linux: what it tells survives exec, so that a small process started by a large one looks large
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) {
      return std::stol(line.substr(6)) * 1024;
    }
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  return usage.ru_maxrss;
#else
  return usage.ru_maxrss * 1024;
#endif
}

}  // namespace cspedge

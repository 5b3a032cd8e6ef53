#pragma once

namespace cspedge {

// The largest resident set of this process, in bytes; 0 where the system does not tell.
long peak_rss_bytes();

}  // namespace cspedge

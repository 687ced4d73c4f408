// What every daemon's main does: wait for the signal to stop, and check what it may listen on.
#pragma once

#include <string>

#include "base/error.hpp"
#include "runtime/network.hpp"

namespace pf::tools {

// Blocks SIGTERM and SIGINT in this thread and those it starts. Call before starting any.
void block_stop_signals();
// Tells systemd that the daemon serves; returns, having told it that too, when one of them arrives.
void serve_until_stopped();
// Waits at most this long; true if one arrived.
[[nodiscard]] bool stop_requested(unsigned milliseconds);
// From now on the process ends after this time, even if stopping hangs: what was acked is durable.
void limit_stop_time(unsigned seconds);

// Only loopback without --insecure-listen, as long as there is no authentication.
[[nodiscard]] Status check_listen(const std::string& host, bool insecure_listen);

}  // namespace pf::tools

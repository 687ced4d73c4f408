// The first message of an accepted connection, received where the port is listened on; what it says
// decides which reactor serves the connection.
#pragma once

#include "runtime/reactor.hpp"
#include "wire/message.hpp"

namespace pf::net {

inline constexpr runtime::Nanos hello_timeout = 5 * runtime::seconds;

// Receives exactly the hello, no byte behind it. A hello that cannot be served is answered before
// its error is returned, unless the peer speaks another protocol. Errors: timed_out, disconnected,
// protocol, unsupported_version, and those of the connection.
[[nodiscard]] runtime::Task<Result<wire::Hello>> receive_hello(runtime::Connection& connection);

}  // namespace pf::net

// Where the conductor is, from what a person gave: outside the seam, because it asks the resolver
// and may block. For mains and the C API.
#pragma once

#include "base/error.hpp"
#include "runtime/network.hpp"

namespace pf::client {

// `given` is HOST:PORT of the conductor's HTTP port; nullptr or empty: PF_CONDUCTOR, then the
// default. Gives the numeric address of its RPC port, which follows from the HTTP port.
[[nodiscard]] Result<runtime::Address> conductor_address(const char* given);

}  // namespace pf::client

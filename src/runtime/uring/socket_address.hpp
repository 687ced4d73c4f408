// Addresses of the seam as the kernel wants them, and the options every socket gets.
#pragma once

#include <sys/socket.h>

#include "base/error.hpp"
#include "runtime/network.hpp"

namespace pf::runtime {

struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t length = sizeof(sockaddr_storage);

    [[nodiscard]] sockaddr* raw() { return reinterpret_cast<sockaddr*>(&storage); }
    [[nodiscard]] const sockaddr* raw() const {
        return reinterpret_cast<const sockaddr*>(&storage);
    }
    [[nodiscard]] int family() const { return storage.ss_family; }
};

// IP literals, `localhost` and Unix socket paths; never asks a name server, which would block.
[[nodiscard]] Result<SocketAddress> to_socket_address(const Address& address);
[[nodiscard]] Address from_socket_address(const SocketAddress& address);

// No delay, and a dead peer is noticed within about half a minute.
void set_stream_options(int fd, int family);
// How long what was sent may stay unacknowledged. Nothing happens on a Unix socket.
void set_unacknowledged_limit(int fd, Nanos limit);

}  // namespace pf::runtime

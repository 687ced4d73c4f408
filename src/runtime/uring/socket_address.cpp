#include "runtime/uring/socket_address.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>

#include <cstring>

namespace pf::runtime {

namespace {

Result<SocketAddress> to_unix_address(const std::string& path) {
    SocketAddress result;
    sockaddr_un unix_address{};
    unix_address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(unix_address.sun_path)) {
        return fail(Errc::invalid_argument, fmt::format("socket path '{}' is longer than {} bytes",
                                                        path, sizeof(unix_address.sun_path) - 1));
    }
    std::memcpy(unix_address.sun_path, path.c_str(), path.size() + 1);
    std::memcpy(&result.storage, &unix_address, sizeof(unix_address));
    result.length = sizeof(unix_address);
    return result;
}

}  // namespace

Result<SocketAddress> to_socket_address(const Address& address) {
    if (address.host.starts_with('/')) return to_unix_address(address.host);
    const std::string host = address.host == "localhost" ? "127.0.0.1" : address.host;
    SocketAddress result;
    sockaddr_in v4{};
    sockaddr_in6 v6{};
    if (::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
        v4.sin_family = AF_INET;
        v4.sin_port = htons(address.port);
        std::memcpy(&result.storage, &v4, sizeof(v4));
        result.length = sizeof(v4);
        return result;
    }
    if (::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1) {
        v6.sin6_family = AF_INET6;
        v6.sin6_port = htons(address.port);
        std::memcpy(&result.storage, &v6, sizeof(v6));
        result.length = sizeof(v6);
        return result;
    }
    return fail(Errc::invalid_argument,
                fmt::format("'{}' is not an IP address, 'localhost' or a socket path", host));
}

Address from_socket_address(const SocketAddress& address) {
    std::array<char, INET6_ADDRSTRLEN> text{};
    if (address.family() == AF_INET) {
        sockaddr_in v4{};
        std::memcpy(&v4, &address.storage, sizeof(v4));
        ::inet_ntop(AF_INET, &v4.sin_addr, text.data(), text.size());
        return {text.data(), ntohs(v4.sin_port)};
    }
    if (address.family() == AF_INET6) {
        sockaddr_in6 v6{};
        std::memcpy(&v6, &address.storage, sizeof(v6));
        ::inet_ntop(AF_INET6, &v6.sin6_addr, text.data(), text.size());
        return {text.data(), ntohs(v6.sin6_port)};
    }
    sockaddr_un unix_address{};
    std::memcpy(&unix_address, &address.storage, sizeof(unix_address));
    // A connecting client has no path of its own.
    return {unix_address.sun_path[0] != 0 ? unix_address.sun_path : "/", 0};
}

void set_stream_options(int fd, int family) {
    if (family == AF_UNIX) return;
    const auto set = [fd](int level, int name, int value) {
        // An option this kernel refuses costs latency or a slower failure, never correctness.
        (void)::setsockopt(fd, level, name, &value, sizeof(value));
    };
    set(IPPROTO_TCP, TCP_NODELAY, 1);
    set(SOL_SOCKET, SO_KEEPALIVE, 1);
    set(IPPROTO_TCP, TCP_KEEPIDLE, 10);
    set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
    set(IPPROTO_TCP, TCP_KEEPCNT, 4);
    set_unacknowledged_limit(fd, 30 * seconds);
}

void set_unacknowledged_limit(int fd, Nanos limit) {
    const auto limit_ms = static_cast<unsigned>(limit / milliseconds);
    (void)::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, sizeof(limit_ms));
}

}  // namespace pf::runtime

#include "runtime/uring/uring_listener.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "runtime/uring/socket_call.hpp"
#include "runtime/uring/uring_connection.hpp"

namespace pf::runtime {

namespace {

constexpr int backlog = 1024;

struct SocketCloser {
    int fd;
    ~SocketCloser() {
        if (fd >= 0) ::close(fd);
    }
    int release() { return std::exchange(fd, -1); }
};

std::unexpected<Error> fail_at(const char* verb, const Address& address, int error_number) {
    return fail(from_errno(error_number),
                fmt::format("cannot {} {}: {}", verb, address.text(), std::strerror(error_number)));
}

// A socket file that nobody listens on is left over from a killed process.
void remove_stale_socket(const SocketAddress& address, const std::string& path) {
    struct stat info{};
    if (::stat(path.c_str(), &info) != 0 || !S_ISSOCK(info.st_mode)) return;
    const SocketCloser probe{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (probe.fd < 0) return;
    if (::connect(probe.fd, address.raw(), address.length) != 0 && errno == ECONNREFUSED) {
        ::unlink(path.c_str());
    }
}

// Where nobody listens on a port that is also given to those who connect, TCP connects a socket to
// itself sooner or later.
bool is_connected_to_itself(int fd) {
    SocketAddress own;
    SocketAddress peer;
    return ::getsockname(fd, own.raw(), &own.length) == 0 &&
           ::getpeername(fd, peer.raw(), &peer.length) == 0 && own.family() != AF_UNIX &&
           from_socket_address(own) == from_socket_address(peer);
}

std::optional<SocketFile> find_socket_file(const std::string& path) {
    struct stat info{};
    if (::lstat(path.c_str(), &info) != 0) return std::nullopt;
    return SocketFile{info.st_dev, info.st_ino};
}

}  // namespace

Result<std::unique_ptr<Listener>> UringListener::create(Ring& ring, const Address& address) {
    PF_TRY_ASSIGN(SocketAddress to, to_socket_address(address));
    SocketCloser socket{::socket(to.family(), SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (socket.fd < 0) return fail_at("listen on", address, errno);
    if (to.family() == AF_UNIX) {
        remove_stale_socket(to, address.host);
    } else {
        const int on = 1;
        (void)::setsockopt(socket.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    }
    if (::bind(socket.fd, to.raw(), to.length) != 0) return fail_at("listen on", address, errno);
    // At once: until listen() our file looks stale to others. One that replaces it between bind()
    // and here is taken for ours.
    std::optional<SocketFile> file;
    if (to.family() == AF_UNIX) file = find_socket_file(address.host);
    if (::listen(socket.fd, backlog) != 0) return fail_at("listen on", address, errno);
    Address local = address;
    if (to.family() != AF_UNIX) {
        SocketAddress bound;
        if (::getsockname(socket.fd, bound.raw(), &bound.length) != 0) {
            return fail_at("listen on", address, errno);
        }
        local = from_socket_address(bound);
    }
    return std::make_unique<UringListener>(ring, socket.release(), std::move(local), file);
}

UringListener::~UringListener() {
    if (!shut_) remove_socket_file();
    ::close(fd_);
}

void UringListener::shut_down() {
    if (shut_) return;
    shut_ = true;
    // While connecting to it still works, so that no successor has taken the path yet.
    remove_socket_file();
    (void)::shutdown(fd_, SHUT_RDWR);  // ends the accepts in flight
}

void UringListener::remove_socket_file() const {
    // Someone may have removed our file and another taken the path. Who takes it between these two
    // calls still loses its file.
    if (file_ && find_socket_file(local_.host) == file_) ::unlink(local_.host.c_str());
}

Task<Result<std::unique_ptr<Connection>>> UringListener::accept() {
    constexpr int max_aborted = 64;  // peers that left before they were accepted
    int32_t fd = -ECONNABORTED;
    for (int i = 0; i < max_aborted && fd == -ECONNABORTED; ++i) {
        if (shut_) co_return fail(Errc::cancelled);
        SocketCallAwaiter call(ring_, std::make_unique<SocketCall>(fd_), never);
        fd = co_await call;
    }
    SocketCloser socket{fd};
    if (shut_) co_return fail(Errc::cancelled);
    if (fd < 0) co_return fail_at("accept on", local_, -fd);
    SocketAddress from;
    Address peer{"unknown", 0};
    if (::getpeername(fd, from.raw(), &from.length) == 0) peer = from_socket_address(from);
    set_stream_options(fd, from.family());
    co_return std::make_unique<UringConnection>(ring_, socket.release(), std::move(peer));
}

Task<Result<std::unique_ptr<Connection>>> connect_stream(Ring& ring, Address address,
                                                         Nanos timeout) {
    auto to = to_socket_address(address);
    if (!to) co_return std::unexpected<Error>(std::move(to).error());
    SocketCloser socket{::socket(to->family(), SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (socket.fd < 0) co_return fail_at("connect to", address, errno);
    set_stream_options(socket.fd, to->family());
    // What is left of our connections must not keep a server from its port.
    const int yes = 1;
    (void)::setsockopt(socket.fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    SocketCallAwaiter call(ring, std::make_unique<SocketCall>(socket.fd, *to), timeout);
    const int32_t result = co_await call;
    if (result == -ETIME) {
        co_return fail(Errc::timed_out, fmt::format("no answer from {} within {} ms",
                                                    address.text(), timeout / milliseconds));
    }
    if (result < 0) co_return fail_at("connect to", address, -result);
    if (is_connected_to_itself(socket.fd)) {
        // Ended so that nothing is left of it for a minute, on the port of the server.
        const linger at_once{1, 0};
        (void)::setsockopt(socket.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
        co_return fail_at("connect to", address, ECONNREFUSED);
    }
    co_return std::make_unique<UringConnection>(ring, socket.release(), std::move(address));
}

}  // namespace pf::runtime

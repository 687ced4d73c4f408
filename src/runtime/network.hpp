// The network side of the runtime seam: ordered byte streams between addresses.
//
// A connection has at most one receive and one send in flight; the layer above (net) frames
// messages and batches sends. There are no timeouts here; use timers and `shut_down`.
//
// Thread rule: used only on the reactor that made it, or that it was handed to (`leave`, `enter`).
// Buffers stay valid until the operation completes. Before a Connection is destroyed, `shut_down`
// it and wait for its operations to complete.
#pragma once

#include <sys/uio.h>

#include <coroutine>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "base/list.hpp"
#include "runtime/task.hpp"
#include "runtime/timer.hpp"

namespace pf::runtime {

// "127.0.0.1:49162", "[::1]:49162". Host names are resolved outside the seam; in the simulator the
// host is a node's name. A path beginning with '/' is a Unix socket (port 0).
struct Address {
    std::string host;
    uint16_t port = 0;

    auto operator<=>(const Address&) const = default;
    [[nodiscard]] std::string text() const;
    // Accepts HOST:PORT, [V6]:PORT and /unix/path.
    [[nodiscard]] static Result<Address> parse(std::string_view text);
};

struct StreamOp : ListHook {
    const iovec* iov = nullptr;
    uint32_t iov_count = 0;  // for a send: 1..max_iovecs
    iovec single{};
    // Of a receive, a hint: no need to complete with fewer bytes than this, so that a large payload
    // costs few wakes. Never more than the operation asks for.
    uint32_t low_water = 1;
    int64_t result = 0;  // bytes, or a negative errno
    void (*complete)(StreamOp&) = nullptr;
    uint64_t progress = 0;  // scratch for the implementation
    void* backend = nullptr;

    static constexpr uint32_t max_iovecs = 1024;
};

class ReceiveAwaiter;
class Reactor;
class SendAwaiter;

class Connection {
  public:
    virtual ~Connection() = default;

    // Completes with 1..n bytes, 0 at end of stream, or an error.
    virtual void submit_receive(StreamOp& op) = 0;
    // Completes when every byte was handed to the peer's stream, or with an error.
    virtual void submit_send(StreamOp& op) = 0;
    // Ends both directions; operations in flight complete soon with an error. May be called twice.
    virtual void shut_down() = 0;
    [[nodiscard]] virtual const Address& peer() const = 0;
    // How long a peer may leave what was sent to it untaken before the network gives it up: about
    // 30 s unless told otherwise. Of Unix sockets and in the simulator there is no such limit.
    virtual void limit_unacknowledged(Nanos limit) { static_cast<void>(limit); }

    // Handing it to another reactor of the process: `leave` on the old one with nothing in flight,
    // then `enter` on the new one; both may be the same. Where a process has one reactor there is
    // nothing to do.
    virtual void leave() {}
    virtual void enter(Reactor& reactor) { static_cast<void>(reactor); }

    [[nodiscard]] ReceiveAwaiter receive(MutableBytes to,
                                         uint32_t low_water = 1);  // Result<size_t>
    [[nodiscard]] SendAwaiter send(Bytes from);                    // Status
    [[nodiscard]] SendAwaiter send(const iovec* iov, uint32_t count);
};

class ReceiveAwaiter : public StreamOp {
  public:
    ReceiveAwaiter(Connection& connection, MutableBytes to, uint32_t low_water_bytes)
        : connection_(connection) {
        single = {to.data(), to.size()};
        low_water = low_water_bytes;
    }
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter);
    [[nodiscard]] Result<size_t> await_resume() const;

  private:
    Connection& connection_;
    std::coroutine_handle<> waiter_;
};

class SendAwaiter : public StreamOp {
  public:
    SendAwaiter(Connection& connection, const iovec* vectors, uint32_t count)
        : connection_(connection) {
        iov = vectors;
        iov_count = count;
    }
    SendAwaiter(Connection& connection, Bytes from) : connection_(connection) {
        single = {const_cast<std::byte*>(from.data()), from.size()};
    }
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter);
    [[nodiscard]] Status await_resume() const;

  private:
    Connection& connection_;
    std::coroutine_handle<> waiter_;
};

class Listener {
  public:
    virtual ~Listener() = default;
    // The next connection; Errc::cancelled after `shut_down`.
    [[nodiscard]] virtual Task<Result<std::unique_ptr<Connection>>> accept() = 0;
    // The address is free from here on: a Unix socket's file is removed now, and never later.
    virtual void shut_down() = 0;
    // With the port that was bound when 0 was asked for.
    [[nodiscard]] virtual const Address& local() const = 0;
};

}  // namespace pf::runtime

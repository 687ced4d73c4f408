// accept and connect as awaitables. Their state is on the heap and outlives an awaiting coroutine
// that is destroyed, because the kernel may still complete them.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <coroutine>
#include <memory>

#include "runtime/reactor.hpp"
#include "runtime/uring/ring.hpp"
#include "runtime/uring/socket_address.hpp"

namespace pf::runtime {

struct SocketCall : RingOp {
    explicit SocketCall(int socket) : RingOp(&prepare_accept, &finish), fd(socket) {}
    SocketCall(int socket, const SocketAddress& to)
        : RingOp(&prepare_connect, &finish), fd(socket), address(to) {}

    int fd;
    SocketAddress address;
    int32_t result = 0;
    bool orphaned = false;
    std::coroutine_handle<> waiter;

  private:
    static void prepare_accept(RingOp& base, io_uring_sqe& sqe) {
        io_uring_prep_accept(&sqe, static_cast<SocketCall&>(base).fd, nullptr, nullptr,
                             SOCK_CLOEXEC);
    }
    static void prepare_connect(RingOp& base, io_uring_sqe& sqe) {
        auto& call = static_cast<SocketCall&>(base);
        io_uring_prep_connect(&sqe, call.fd, call.address.raw(), call.address.length);
    }
    static void finish(RingOp& base, int32_t result, uint32_t /*cqe_flags*/) {
        auto& call = static_cast<SocketCall&>(base);
        call.result = result;
        if (!call.orphaned) {
            schedule(call.waiter);
            return;
        }
        if (call.prepare == &prepare_accept && result >= 0) ::close(result);
        delete &call;
    }
};

// Gives the kernel's result; -ETIME when `timeout` passed first.
class SocketCallAwaiter : public Timer {
  public:
    SocketCallAwaiter(Ring& ring, std::unique_ptr<SocketCall> call, Nanos timeout)
        : Timer(&SocketCallAwaiter::give_up),
          ring_(ring),
          call_(std::move(call)),
          timeout_(timeout) {}
    ~SocketCallAwaiter() {
        if (!call_->in_flight) return;
        if (call_->linked()) {  // never reached the kernel
            call_->unlink();
            return;
        }
        call_->orphaned = true;
        ring_.cancel(*call_);
        (void)call_.release();
    }
    SocketCallAwaiter(const SocketCallAwaiter&) = delete;
    SocketCallAwaiter& operator=(const SocketCallAwaiter&) = delete;

    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) {
        call_->waiter = waiter;
        ring_.start(*call_);
        Reactor& reactor = Reactor::current();
        const Nanos now = reactor.now();
        if (timeout_ < never - now) reactor.timers().arm(*this, now + timeout_);
    }
    [[nodiscard]] int32_t await_resume() {
        disarm();
        return gave_up_ && call_->result < 0 ? -ETIME : call_->result;
    }

  private:
    static void give_up(Timer& timer) {
        auto& awaiter = static_cast<SocketCallAwaiter&>(timer);
        awaiter.gave_up_ = true;
        if (awaiter.ring_.cancel(*awaiter.call_)) return;
        Reactor& reactor = Reactor::current();
        reactor.timers().arm(timer, reactor.now() + milliseconds);
    }

    Ring& ring_;
    std::unique_ptr<SocketCall> call_;
    Nanos timeout_;
    bool gave_up_ = false;
};

}  // namespace pf::runtime

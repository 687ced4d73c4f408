#include "runtime/uring/uring_reactor.hpp"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "runtime/uring/uring_disk.hpp"
#include "runtime/uring/uring_listener.hpp"

namespace pf::runtime {

namespace {

// Neither can fail in a way that matters: the counter is never near its limit, and a counter that
// is zero already needs no clearing.
void signal(int event_fd) {
    const uint64_t one = 1;
    (void)!::write(event_fd, &one, sizeof(one));
}
void clear_signal(int event_fd) {
    uint64_t count = 0;
    (void)!::read(event_fd, &count, sizeof(count));
}

}  // namespace

Result<std::unique_ptr<UringReactor>> UringReactor::create(const UringOptions& options) {
    std::unique_ptr<UringReactor> reactor(new UringReactor(options));
    PF_TRY_ASSIGN(reactor->ring_, Ring::create(options.ring_entries));
    reactor->wake_op_.event_fd = ::eventfd(0, EFD_CLOEXEC);
    if (reactor->wake_op_.event_fd < 0) {
        return fail(from_errno(errno),
                    fmt::format("cannot make an eventfd: {}", std::strerror(errno)));
    }
    PF_TRY_ASSIGN(auto buffers, BufferPool::create(options.buffer_arena_bytes));
    reactor->set_buffers(std::move(buffers));
    if (options.register_arena) {
        reactor->arena_registered_ = reactor->ring_->register_arena(reactor->buffers().arena());
    }
    reactor->ring_->start(reactor->wake_op_);
    return reactor;
}

UringReactor::UringReactor(const UringOptions& options) : Reactor(options.seed), options_(options) {
    wake_op_.reactor = this;
}

UringReactor::~UringReactor() {
    if (ring_ != nullptr) {
        Enter enter(*this);
        // First the kernel lets go of all memory, then the coroutines that own it may end.
        ring_->drain();
        destroy_detached();
    }
    if (wake_op_.event_fd >= 0) ::close(wake_op_.event_fd);
    if (pollable_fd_ >= 0) ::close(pollable_fd_);
}

Nanos UringReactor::fresh_now() const {
    return monotonic_now();
}

void UringReactor::bind_to_thread() {
    ring_->enable();
}

void UringReactor::run() {
    bind_to_thread();
    Enter enter(*this);
    while (!stopping_.load(std::memory_order_acquire)) {
        in_turn_ = true;
        const bool more = run_turn();
        wait(never, more || options_.busy_poll);
        ring_->reap();
        in_turn_ = false;
    }
    stopping_.store(false, std::memory_order_release);
}

void UringReactor::stop() {
    stopping_.store(true, std::memory_order_seq_cst);
    wake();
}

bool UringReactor::run_turn() {
    ++turns_;
    now_ = fresh_now();
    run_posted();
    timers().fire_due(now_);
    return run_ready();
}

void UringReactor::wait(Nanos max_wait, bool more) {
    const Nanos deadline = timers().next_deadline();
    Nanos bound = more || deadline <= now_ ? 0 : std::min(max_wait, deadline - now_);
    if (deadline == never) bound = more ? 0 : max_wait;
    if (bound == 0) {
        ring_->enter(0);
        return;
    }
    // Either a poster sees that the loop sleeps and wakes it, or the loop sees what was posted.
    asleep_.store(true, std::memory_order_seq_cst);
    if (has_posted() || stopping_.load(std::memory_order_seq_cst)) bound = 0;
    ring_->enter(bound);
    asleep_.store(false, std::memory_order_relaxed);
}

void UringReactor::poll(Nanos max_wait, const std::function<bool()>& done) {
    bind_to_thread();
    Enter enter(*this);
    in_turn_ = true;
    if (pollable_fd_ >= 0) clear_signal(pollable_fd_);
    bool more = run_turn();
    wait(done && done() ? 0 : max_wait, more);
    if (ring_->reap() > 0 || has_posted() || timers().next_deadline() != never) more = run_turn();
    if (pollable_fd_ >= 0) arm_for_pollers(more);
    in_turn_ = false;
}

// An eventfd that the kernel signals per completion: the ring's own descriptor does not wake
// pollers for completions that are still deferred to the next enter.
Result<int> UringReactor::pollable_fd() {
    if (pollable_fd_ >= 0) return pollable_fd_;
    const int fd = ::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return fail(from_errno(errno), "cannot make an eventfd to poll on");
    if (const int registered = ring_->register_event_fd(fd); registered < 0) {
        ::close(fd);
        return fail(from_errno(-registered), "cannot register the eventfd to poll on");
    }
    pollable_fd_ = fd;
    return fd;
}

void UringReactor::arm_for_pollers(bool more) {
    const Nanos deadline = timers().next_deadline();
    if (deadline != never && (!alarm_op_.in_flight || deadline < alarm_op_.deadline)) {
        // An alarm set for later is ended; when it completes, the next poll sets the right one.
        if (alarm_op_.in_flight) {
            ring_->cancel(alarm_op_);
        } else {
            alarm_op_.deadline = deadline;
            ring_->start(alarm_op_);
        }
    }
    asleep_.store(true, std::memory_order_seq_cst);
    ring_->submit();
    if (more || has_posted()) signal(pollable_fd_);
}

void UringReactor::post(PostedCall& call) {
    PostedCall* newest = posted_.load(std::memory_order_relaxed);
    do {
        call.next = newest;
    } while (!posted_.compare_exchange_weak(newest, &call, std::memory_order_seq_cst,
                                            std::memory_order_relaxed));
    // Only the poster that finds the queue empty needs to look: the others came after it.
    if (newest == nullptr) wake();
}

void UringReactor::wake() {
    if (!asleep_.load(std::memory_order_seq_cst)) return;
    if (!asleep_.exchange(false, std::memory_order_seq_cst)) return;
    signal(wake_op_.event_fd);
}

void UringReactor::run_posted() {
    if (posted_.load(std::memory_order_relaxed) == nullptr) return;
    PostedCall* newest = posted_.exchange(nullptr, std::memory_order_acquire);
    PostedCall* oldest = nullptr;
    while (newest != nullptr) {
        PostedCall* next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != nullptr) {
        PostedCall* call = oldest;
        oldest = oldest->next;
        call->run(*call);  // may end the call's life
    }
}

Task<Result<std::unique_ptr<Disk>>> UringReactor::open_disk(std::string path, DiskOptions options) {
    auto opened = open_file(path, options);
    if (!opened) co_return std::unexpected<Error>(std::move(opened).error());
    co_return std::make_unique<UringDisk>(*ring_, std::move(path), *opened);
}

Result<std::unique_ptr<Listener>> UringReactor::listen(const Address& address) {
    return UringListener::create(*ring_, address);
}

Task<Result<std::unique_ptr<Connection>>> UringReactor::connect(Address address, Nanos timeout) {
    return connect_stream(*ring_, std::move(address), timeout);
}

UringReactor::WakeOp::WakeOp() : RingOp(&WakeOp::prepare_read, &WakeOp::finish) {}

void UringReactor::WakeOp::prepare_read(RingOp& base, io_uring_sqe& sqe) {
    auto& op = static_cast<WakeOp&>(base);
    io_uring_prep_read(&sqe, op.event_fd, &op.value, sizeof(op.value), 0);
}

void UringReactor::WakeOp::finish(RingOp& base, int32_t /*result*/, uint32_t /*cqe_flags*/) {
    auto& op = static_cast<WakeOp&>(base);
    op.reactor->ring_->start(op);
}

UringReactor::AlarmOp::AlarmOp() : RingOp(&AlarmOp::prepare_timeout, &AlarmOp::finish) {}

void UringReactor::AlarmOp::prepare_timeout(RingOp& base, io_uring_sqe& sqe) {
    auto& op = static_cast<AlarmOp&>(base);
    op.at.tv_sec = static_cast<int64_t>(op.deadline / seconds);
    op.at.tv_nsec = static_cast<int64_t>(op.deadline % seconds);
    io_uring_prep_timeout(&sqe, &op.at, 0, IORING_TIMEOUT_ABS);
}

void UringReactor::AlarmOp::finish(RingOp& base, int32_t /*result*/, uint32_t /*cqe_flags*/) {
    static_cast<AlarmOp&>(base).deadline = never;
}

}  // namespace pf::runtime

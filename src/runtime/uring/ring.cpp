#include "runtime/uring/ring.hpp"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "base/assert.hpp"

namespace pf::runtime {

namespace {

// Asked for on every poll, where a system call would be felt.
int this_thread() {
    thread_local const int id = ::gettid();
    return id;
}

std::string kernel_release() {
    utsname name{};
    return ::uname(&name) == 0 ? name.release : "unknown";
}

Error explain_setup_failure(int error_number) {
    switch (error_number) {
        case ENOSYS:
            return {Errc::unsupported,
                    fmt::format("this kernel ({}) has no io_uring; Linux 6.1 or newer is needed",
                                kernel_release())};
        case EPERM:
        case EACCES:
            return {Errc::unsupported,
                    "io_uring is forbidden here: set the sysctl kernel.io_uring_disabled to 0, or "
                    "allow io_uring in the container's seccomp profile"};
        case EINVAL:
            return {Errc::unsupported,
                    fmt::format("io_uring of this kernel ({}) lacks deferred task run; Linux 6.1 "
                                "or newer is needed",
                                kernel_release())};
        case ENOMEM:
            return {Errc::resource_exhausted,
                    "no memory to set up io_uring: raise the locked memory limit (ulimit -l)"};
        default:
            return {from_errno(error_number),
                    fmt::format("cannot set up io_uring: {}", std::strerror(error_number))};
    }
}

constexpr int needed_operations[] = {
    IORING_OP_NOP,     IORING_OP_READV,       IORING_OP_WRITEV, IORING_OP_READ_FIXED,
    IORING_OP_FSYNC,   IORING_OP_FALLOCATE,   IORING_OP_RECV,   IORING_OP_SENDMSG,
    IORING_OP_SEND,    IORING_OP_ACCEPT,      IORING_OP_READ,   IORING_OP_CONNECT,
    IORING_OP_TIMEOUT, IORING_OP_ASYNC_CANCEL};

}  // namespace

Nanos monotonic_now() {
    timespec time{};
    ::clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<Nanos>(time.tv_sec) * seconds + static_cast<Nanos>(time.tv_nsec);
}

Result<std::unique_ptr<Ring>> Ring::create(uint32_t entries) {
    std::unique_ptr<Ring> ring(new Ring);
    io_uring_params params{};
    params.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
                   IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                   IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE;
    entries = std::clamp(entries, 8u, max_entries);
    params.cq_entries = entries * completions_per_entry;
    const int made = io_uring_queue_init_params(entries, &ring->ring_, &params);
    if (made < 0) return std::unexpected<Error>(explain_setup_failure(-made));
    ring->ring_made_ = true;
    ring->completion_entries_ = params.cq_entries;

    io_uring_probe* probe = io_uring_get_probe_ring(&ring->ring_);
    bool complete = probe != nullptr && (params.features & IORING_FEAT_EXT_ARG) != 0 &&
                    (params.features & IORING_FEAT_NODROP) != 0;
    for (const int operation : needed_operations) {
        complete = complete && io_uring_opcode_supported(probe, operation) != 0;
    }
    io_uring_free_probe(probe);
    if (!complete) return std::unexpected<Error>(explain_setup_failure(EINVAL));

    // Entry i of the index array always names request i.
    if (ring->ring_.sq.array != nullptr) {
        for (unsigned i = 0; i < params.sq_entries; ++i) ring->ring_.sq.array[i] = i;
    }
    ring->create_file_table();
    return ring;
}

Ring::~Ring() {
    while (RingOp* op = waiting_.pop_front()) op->in_flight = false;
    if (ring_made_) io_uring_queue_exit(&ring_);
}

void Ring::create_file_table() {
    rlimit limit{};
    uint32_t count = file_slots;
    if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        count = static_cast<uint32_t>(std::min<uint64_t>(count, limit.rlim_cur));
    }
    if (io_uring_register_files_sparse(&ring_, count) < 0) return;
    free_slots_.resize(count);
    for (uint32_t i = 0; i < count; ++i) free_slots_[i] = static_cast<int>(count - 1 - i);
}

void Ring::enable() {
    const int thread = this_thread();
    if (enabled()) {
        PF_ASSERT(owner_thread_ == thread);  // a reactor runs on one thread only
        return;
    }
    // The wrapper io_uring_enable_rings is missing from the shared liburing 2.3.
    const auto ring_fd = static_cast<unsigned>(ring_.ring_fd);
    PF_ASSERT(io_uring_register(ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0) == 0);
    owner_thread_ = thread;
    if (io_uring_register_ring_fd(&ring_) == 1) enter_flags_ = IORING_ENTER_REGISTERED_RING;
}

io_uring_sqe* Ring::take_sqe() {
    if (in_kernel_ >= completion_entries_) return nullptr;
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr && enabled()) {
        submit();
        sqe = io_uring_get_sqe(&ring_);
    }
    return sqe;
}

void Ring::fill(RingOp& op, io_uring_sqe& sqe) {
    op.prepare(op, sqe);
    io_uring_sqe_set_data(&sqe, &op);
    ++in_kernel_;
}

void Ring::start(RingOp& op) {
    PF_ASSERT(!op.in_flight);
    op.in_flight = true;
    io_uring_sqe* sqe = waiting_.empty() && !draining_ ? take_sqe() : nullptr;
    if (sqe == nullptr) {
        waiting_.push_back(op);
        return;
    }
    fill(op, *sqe);
}

void Ring::start_waiting() {
    while (RingOp* op = waiting_.front()) {
        io_uring_sqe* sqe = take_sqe();
        if (sqe == nullptr) return;
        op->unlink();
        fill(*op, *sqe);
    }
}

bool Ring::cancel(RingOp& op) {
    if (!op.in_flight) return true;
    // Still queued here: let it start, so that it ends the one way that every operation ends.
    if (op.linked()) start_waiting();
    io_uring_sqe* sqe = op.linked() ? nullptr : take_sqe();
    if (sqe == nullptr) return false;
    io_uring_prep_cancel(sqe, &op, 0);
    io_uring_sqe_set_data(sqe, nullptr);
    ++in_kernel_;
    return true;
}

void Ring::publish() {
    io_uring_smp_store_release(ring_.sq.ktail, ring_.sq.sqe_tail);
}

int Ring::enter_kernel(uint32_t wait_for, uint32_t flags, const void* arg, size_t arg_bytes) {
    publish();
    // liburing's own wait helper sleeps its timeout twice when it also submitted, hence this call.
    const int entered = io_uring_enter2(static_cast<unsigned>(ring_.enter_ring_fd),
                                        io_uring_sq_ready(&ring_), wait_for, flags | enter_flags_,
                                        static_cast<sigset_t*>(const_cast<void*>(arg)), arg_bytes);
    if (entered < 0 && entered != -ETIME && entered != -EINTR && entered != -EAGAIN &&
        entered != -EBUSY) {
        std::fprintf(stderr, "io_uring_enter: %s\n", std::strerror(-entered));
        const bool io_uring_enter_works = false;
        PF_ASSERT(io_uring_enter_works);
    }
    return entered;
}

void Ring::submit() {
    if (has_unsubmitted()) enter_kernel(0, 0, nullptr, 0);
}

void Ring::enter(Nanos wait) {
    if (!waiting_.empty()) start_waiting();
    if (wait == 0 || (quick_ > 0 && watch(wait))) {
        enter_kernel(0, IORING_ENTER_GETEVENTS, nullptr, 0);
        return;
    }
    __kernel_timespec timeout{};
    io_uring_getevents_arg arg{};
    if (wait != never) {
        timeout.tv_sec = static_cast<int64_t>(wait / seconds);
        timeout.tv_nsec = static_cast<int64_t>(wait % seconds);
        arg.ts = reinterpret_cast<uintptr_t>(&timeout);
    }
    enter_kernel(1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &arg, sizeof(arg));
}

bool Ring::watch(Nanos wait) {
    constexpr Nanos longest_watch = 20 * microseconds;
    constexpr uint32_t most_skipped = 64;
    if (watches_to_skip_ > 0) {
        --watches_to_skip_;
        return false;
    }
    submit();
    const Nanos end = monotonic_now() + std::min(wait, longest_watch);
    do {
        // With deferred task work a completion shows as a flag first.
        const unsigned flags = __atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED);
        if ((flags & IORING_SQ_TASKRUN) != 0 || io_uring_cq_ready(&ring_) > 0) {
            skip_after_failure_ = 0;
            return true;
        }
        __builtin_ia32_pause();
    } while (monotonic_now() < end);
    skip_after_failure_ = std::clamp(2 * skip_after_failure_, 1u, most_skipped);
    watches_to_skip_ = skip_after_failure_;
    return false;
}

size_t Ring::reap() {
    size_t total = 0;
    while (true) {
        io_uring_cqe* cqe = nullptr;
        unsigned head = 0;
        unsigned count = 0;
        io_uring_for_each_cqe(&ring_, head, cqe) {
            ++count;
            // The slot counts as taken until the queue is advanced below, so that operations
            // started by `done` cannot outrun the completion queue.
            auto* op = static_cast<RingOp*>(io_uring_cqe_get_data(cqe));
            if (op == nullptr) continue;
            op->in_flight = false;
            op->done(*op, cqe->res, cqe->flags);
        }
        if (count == 0) return total;
        io_uring_cq_advance(&ring_, count);
        in_kernel_ -= count;
        total += count;
        if (!waiting_.empty() && !draining_) start_waiting();
    }
}

void Ring::drain() {
    constexpr int max_rounds = 600;
    constexpr Nanos round = 100 * milliseconds;
    draining_ = true;
    if (!enabled()) return;
    if (in_kernel_ == 0) return;
    PF_ASSERT(owner_thread_ == this_thread());
    submit();
    if (io_uring_sqe* sqe = io_uring_get_sqe(&ring_)) {
        io_uring_prep_cancel(sqe, nullptr, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
        io_uring_sqe_set_data(sqe, nullptr);
        ++in_kernel_;
    }
    for (int i = 0; i < max_rounds && in_kernel_ > 0; ++i) {
        __kernel_timespec timeout{0, static_cast<long long>(round)};
        io_uring_getevents_arg arg{};
        arg.ts = reinterpret_cast<uintptr_t>(&timeout);
        enter_kernel(1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &arg, sizeof(arg));
        reap();
    }
    // Going on would free memory that a device may still write to.
    PF_ASSERT(in_kernel_ == 0);
}

bool Ring::register_arena(MutableBytes arena) {
    std::vector<iovec> pieces;
    for (uint64_t at = 0; at < arena.size(); at += max_registered_bytes) {
        pieces.push_back(
            {arena.data() + at, std::min<uint64_t>(arena.size() - at, max_registered_bytes)});
    }
    if (io_uring_register_buffers(&ring_, pieces.data(), static_cast<unsigned>(pieces.size())) <
        0) {
        return false;
    }
    arena_ = arena;
    return true;
}

RingFile Ring::register_file(int fd) {
    if (free_slots_.empty()) return {fd, -1};
    const int slot = free_slots_.back();
    if (io_uring_register_files_update(&ring_, static_cast<unsigned>(slot), &fd, 1) != 1) {
        return {fd, -1};
    }
    free_slots_.pop_back();
    return {fd, slot};
}

void Ring::unregister_file(const RingFile& file) {
    if (file.slot < 0) return;
    const int none = -1;
    // A slot that cannot be cleared keeps its file open until the ring ends; it is not reused.
    if (io_uring_register_files_update(&ring_, static_cast<unsigned>(file.slot), &none, 1) == 1) {
        free_slots_.push_back(file.slot);
    }
}

}  // namespace pf::runtime

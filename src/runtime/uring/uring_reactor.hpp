// The production reactor: one io_uring, one thread. Disk and network completions, timers and calls
// posted by other threads all arrive in the same loop, and one system call per turn submits
// everything that the turn queued and, when nothing is ready, sleeps.
//
// It is driven either by run(), or by a caller's own loop through poll() and pollable_fd().
//
// Thread rule: the first of run() and poll() binds the reactor to its thread; it is also destroyed
// there. Before that it may be prepared (listen, spawn) on another thread. Only post() and stop()
// may be called from anywhere. What was opened on the reactor is destroyed before it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "runtime/reactor.hpp"
#include "runtime/uring/ring.hpp"

namespace pf::runtime {

struct UringOptions {
    uint32_t ring_entries = 1024;
    size_t buffer_arena_bytes = size_t{64} << 20;
    // Registering pins the whole arena: transfers cost less, memory use is all of it at once.
    bool register_arena = true;
    uint64_t seed = 1;
    bool busy_poll = false;
};

class UringReactor final : public Reactor {
  public:
    [[nodiscard]] static Result<std::unique_ptr<UringReactor>> create(const UringOptions& options);
    ~UringReactor() override;

    // Runs until stop(). Can be run again.
    void run();
    void stop();

    // One turn on the caller's thread: runs what is ready and then, unless `done()` says that the
    // caller has what it waits for, waits at most `max_wait` for more. Operations queued by what
    // then ran go out with the next poll(), or at once if pollable_fd() is in use.
    void poll(Nanos max_wait, const std::function<bool()>& done = nullptr);
    // Becomes readable when poll(0) would get something done: completions, due timers, posted
    // calls. After starting work outside poll(), call poll(0) once.
    [[nodiscard]] Result<int> pollable_fd();
    [[nodiscard]] Nanos next_deadline() { return timers().next_deadline(); }

    [[nodiscard]] Nanos now() const override { return in_turn_ ? now_ : fresh_now(); }
    [[nodiscard]] Nanos fresh_now() const override;
    [[nodiscard]] Task<Result<std::unique_ptr<Disk>>> open_disk(std::string path,
                                                                DiskOptions options) override;
    [[nodiscard]] Result<std::unique_ptr<Listener>> listen(const Address& address) override;
    [[nodiscard]] Task<Result<std::unique_ptr<Connection>>> connect(Address address,
                                                                    Nanos timeout) override;
    void post(PostedCall& call) override;

    // Turns of the loop so far: an idle reactor makes none.
    [[nodiscard]] uint64_t turns() const { return turns_; }
    // For what this reactor opens, and connections that are handed to it.
    [[nodiscard]] Ring& ring() { return *ring_; }
    [[nodiscard]] bool arena_registered() const { return arena_registered_; }

  private:
    // Wakes a sleeping loop: a read of an eventfd that is always in flight.
    struct WakeOp : RingOp {
        WakeOp();
        static void prepare_read(RingOp& base, io_uring_sqe& sqe);
        static void finish(RingOp& base, int32_t result, uint32_t cqe_flags);
        UringReactor* reactor = nullptr;
        int event_fd = -1;
        uint64_t value = 0;
    };
    // Makes pollable_fd() readable when the next timer is due.
    struct AlarmOp : RingOp {
        AlarmOp();
        static void prepare_timeout(RingOp& base, io_uring_sqe& sqe);
        static void finish(RingOp& base, int32_t result, uint32_t cqe_flags);
        Nanos deadline = never;
        __kernel_timespec at{};
    };
    explicit UringReactor(const UringOptions& options);
    void bind_to_thread();
    // Runs what is ready now; returns whether more is.
    bool run_turn();
    void wait(Nanos max_wait, bool more);
    void wake();
    void run_posted();
    [[nodiscard]] bool has_posted() const {
        return posted_.load(std::memory_order_seq_cst) != nullptr;
    }
    void arm_for_pollers(bool more);

    UringOptions options_;
    std::unique_ptr<Ring> ring_;
    WakeOp wake_op_;
    AlarmOp alarm_op_;
    int pollable_fd_ = -1;
    bool arena_registered_ = false;
    bool in_turn_ = false;
    Nanos now_ = 0;
    uint64_t turns_ = 0;

    // Written by posters, on a line of their own.
    alignas(64) std::atomic<PostedCall*> posted_{nullptr};  // newest first
    std::atomic<bool> asleep_{false};
    std::atomic<bool> stopping_{false};
};

}  // namespace pf::runtime

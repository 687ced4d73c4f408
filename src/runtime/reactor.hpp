// The seam between logic and the world. All logic runs as coroutines on one single-threaded Reactor
// and reaches clock, timers, randomness, disks and the network only through it. Two implementations
// exist: uring (production) and sim (deterministic, virtual time, faults).
//
// This base class owns what both share: the ready queue, the end-of-turn queue, timers and the
// detached tasks. An implementation drives it: run_ready() until nothing is ready, then submit and
// wait.
//
// Thread rule: everything is called on the reactor's own thread, except post().
#pragma once

#include <coroutine>
#include <cstdint>
#include <memory>
#include <string>

#include "base/error.hpp"
#include "base/list.hpp"
#include "base/rng.hpp"
#include "runtime/buffer_pool.hpp"
#include "runtime/disk.hpp"
#include "runtime/network.hpp"
#include "runtime/ready_queue.hpp"
#include "runtime/task.hpp"
#include "runtime/timer.hpp"

namespace pf::runtime {

// A call handed from another thread (or another reactor) to this one. The poster keeps it alive
// until `run` was called on the target's thread. Embedded in its owner: posting allocates nothing.
struct PostedCall {
    void (*run)(PostedCall&) = nullptr;
    PostedCall* next = nullptr;  // for the queue
};

class Reactor {
  public:
    explicit Reactor(uint64_t seed) : rng_(seed) {}
    Reactor(const Reactor&) = delete;
    Reactor& operator=(const Reactor&) = delete;
    virtual ~Reactor();

    // The reactor whose loop is running on this thread. Asserts that there is one.
    [[nodiscard]] static Reactor& current();

    // Monotonic time. The uring reactor reads the clock once per turn of its loop; use `fresh_now`
    // where a pause in between must be seen (leases, R12).
    [[nodiscard]] virtual Nanos now() const = 0;
    [[nodiscard]] virtual Nanos fresh_now() const = 0;

    [[nodiscard]] Rng& rng() { return rng_; }
    [[nodiscard]] BufferPool& buffers() { return *buffers_; }
    [[nodiscard]] TimerQueue& timers() { return timers_; }

    // Runs `task` detached, starting it at once until its first suspension. It is destroyed when it
    // finishes, or suspended as it is when the reactor ends.
    void spawn(Task<void> task);

    void schedule(std::coroutine_handle<> handle) { ready_.push(handle); }
    // Resumed once nothing else is ready in this turn, just before the loop submits and waits:
    // where sends, log blocks and flushes of one turn are gathered into one.
    void schedule_at_end_of_turn(std::coroutine_handle<> handle) { end_of_turn_.push(handle); }

    // Disks and the network.
    [[nodiscard]] virtual Task<Result<std::unique_ptr<Disk>>> open_disk(std::string path,
                                                                        DiskOptions options) = 0;
    [[nodiscard]] virtual Result<std::unique_ptr<Listener>> listen(const Address& address) = 0;
    [[nodiscard]] virtual Task<Result<std::unique_ptr<Connection>>> connect(Address address,
                                                                            Nanos timeout) = 0;

    // Thread-safe. Never fails: the queue is linked through the calls themselves, and each poster
    // bounds how many it has outstanding.
    virtual void post(PostedCall& call) = 0;

    // Makes `reactor` current for a scope: implementations around a turn, and a caller that drives
    // a reactor itself around what it starts between turns.
    class Enter {
      public:
        explicit Enter(Reactor& reactor);
        Enter(const Enter&) = delete;
        Enter& operator=(const Enter&) = delete;
        ~Enter();

      private:
        Reactor* previous_;
    };

  protected:
    // Runs ready and end-of-turn coroutines until none is left. Bounded per call, so that
    // completions are looked at even when coroutines keep each other busy; returns whether work is
    // left.
    bool run_ready();
    // Ends everything detached; called by implementations before their own parts go away.
    void destroy_detached();
    void set_buffers(std::unique_ptr<BufferPool> pool) { buffers_ = std::move(pool); }
    // For the next process on the same simulated node: making an arena costs more than a crash
    // state.
    [[nodiscard]] std::unique_ptr<BufferPool> take_buffers() { return std::move(buffers_); }

    ReadyQueue ready_;
    ReadyQueue end_of_turn_;

  private:
    friend struct DetachedTask;

    TimerQueue timers_;
    Rng rng_;
    std::unique_ptr<BufferPool> buffers_;
    List<struct DetachedHook> detached_;
};

// Links a detached coroutine to its reactor.
struct DetachedHook : ListHook {
    std::coroutine_handle<> handle;
};

// co_await yield(): lets everything else that is ready run first.
struct YieldAwaiter {
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) const { schedule(handle); }
    void await_resume() const noexcept {}
};
[[nodiscard]] inline YieldAwaiter yield() {
    return {};
}

// co_await end_of_turn(): see Reactor::schedule_at_end_of_turn.
struct EndOfTurnAwaiter {
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) const {
        Reactor::current().schedule_at_end_of_turn(handle);
    }
    void await_resume() const noexcept {}
};
[[nodiscard]] inline EndOfTurnAwaiter end_of_turn() {
    return {};
}

// co_await sleep_for(10 * milliseconds).
class SleepAwaiter : public Timer {
  public:
    explicit SleepAwaiter(Nanos duration) : Timer(&SleepAwaiter::wake), duration_(duration) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle);
    void await_resume() const noexcept {}

  private:
    static void wake(Timer& timer);
    Nanos duration_;
    std::coroutine_handle<> waiter_;
};
[[nodiscard]] inline SleepAwaiter sleep_for(Nanos duration) {
    return SleepAwaiter(duration);
}

}  // namespace pf::runtime

// Waiting between coroutines of one reactor. Waiters are woken in the order they came, through the
// ready queue; nothing here allocates, and a waiter that is destroyed leaves its queue.
#pragma once

#include <coroutine>
#include <cstdint>
#include <utility>

#include "base/list.hpp"
#include "runtime/task.hpp"

namespace pf::runtime {

class WaitQueue {
  public:
    class Awaiter : public ListHook {
      public:
        explicit Awaiter(WaitQueue& queue) : queue_(queue) {}
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> handle) {
            handle_ = handle;
            queue_.waiters_.push_back(*this);
        }
        void await_resume() const noexcept {}

      private:
        friend class WaitQueue;
        WaitQueue& queue_;
        std::coroutine_handle<> handle_;
    };

    // co_await wait(): until the next wake. Check the condition again afterwards.
    [[nodiscard]] Awaiter wait() { return Awaiter(*this); }
    bool wake_one() {
        Awaiter* waiter = waiters_.pop_front();
        if (waiter == nullptr) return false;
        schedule(waiter->handle_);
        return true;
    }
    void wake_all() {
        while (wake_one()) {
        }
    }
    [[nodiscard]] bool empty() const { return waiters_.empty(); }

  private:
    List<Awaiter> waiters_;
};

// Set once; who waits afterwards does not wait.
class Event {
  public:
    void set() {
        set_ = true;
        queue_.wake_all();
    }
    void reset() { set_ = false; }
    [[nodiscard]] bool is_set() const { return set_; }
    [[nodiscard]] Task<void> wait() {
        while (!set_) co_await queue_.wait();
    }

  private:
    bool set_ = false;
    WaitQueue queue_;
};

// Counts work in flight; wait() returns when it is zero.
class WaitGroup {
  public:
    void add(uint64_t count = 1) { count_ += count; }
    void done() {
        PF_ASSERT(count_ > 0);
        if (--count_ == 0) queue_.wake_all();
    }
    [[nodiscard]] uint64_t count() const { return count_; }
    [[nodiscard]] Task<void> wait() {
        while (count_ > 0) co_await queue_.wait();
    }

  private:
    uint64_t count_ = 0;
    WaitQueue queue_;
};

// A mutex across suspensions. Everybody gets it in the order of asking.
class Mutex {
  public:
    [[nodiscard]] Task<void> lock() {
        if (std::exchange(locked_, true)) co_await queue_.wait();
    }
    void unlock() {
        PF_ASSERT(locked_);
        // Handed over: free in between, it would go to whoever asks before the woken one has run.
        locked_ = queue_.wake_one();
    }

  private:
    bool locked_ = false;
    WaitQueue queue_;
};

}  // namespace pf::runtime

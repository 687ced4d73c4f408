// A sleep that can be cut short, for loops that must end when their owner stops.
#pragma once

#include <coroutine>
#include <utility>

#include "runtime/reactor.hpp"

namespace pf::pfs {

class Pause : public runtime::Timer {
  public:
    Pause() : Timer([](Timer& timer) { static_cast<Pause&>(timer).wake(); }) {}

    struct Awaiter {
        Pause& pause;
        runtime::Nanos duration;
        bool await_ready() const noexcept { return pause.ended_; }
        void await_suspend(std::coroutine_handle<> waiter) const {
            runtime::Reactor& reactor = runtime::Reactor::current();
            pause.waiter_ = waiter;
            reactor.timers().arm(pause, reactor.now() + duration);
        }
        void await_resume() const noexcept {}
    };
    // One waiter at a time.
    [[nodiscard]] Awaiter wait(runtime::Nanos duration) { return {*this, duration}; }
    void cut_short() {
        disarm();
        wake();
    }
    // Wakes the waiter; later waits do not wait.
    void end() {
        ended_ = true;
        cut_short();
    }
    [[nodiscard]] bool ended() const { return ended_; }

  private:
    void wake() {
        if (waiter_) runtime::schedule(std::exchange(waiter_, nullptr));
    }
    bool ended_ = false;
    std::coroutine_handle<> waiter_;
};

}  // namespace pf::pfs

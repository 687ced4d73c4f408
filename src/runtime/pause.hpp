// A sleep that can be cut short, for loops that must end when their owner stops, and how long such
// loops pause.
#pragma once

#include <coroutine>
#include <utility>

#include "runtime/reactor.hpp"

namespace pf::runtime {

class Pause : public Timer {
  public:
    Pause() : Timer([](Timer& timer) { static_cast<Pause&>(timer).wake(); }) {}

    struct Awaiter {
        Pause& pause;
        Nanos duration;
        bool await_ready() const noexcept { return pause.ended_; }
        void await_suspend(std::coroutine_handle<> waiter) const {
            Reactor& reactor = Reactor::current();
            pause.waiter_ = waiter;
            reactor.timers().arm(pause, reactor.now() + duration);
        }
        void await_resume() const noexcept {}
    };
    // One waiter at a time.
    [[nodiscard]] Awaiter wait(Nanos duration) { return {*this, duration}; }
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
        if (waiter_) schedule(std::exchange(waiter_, nullptr));
    }
    bool ended_ = false;
    std::coroutine_handle<> waiter_;
};

// Exponential backoff with jitter: between half of and the whole of first * 2^failures, at most
// `longest`.
[[nodiscard]] inline Nanos backoff(Rng& rng, uint32_t failures, Nanos first, Nanos longest) {
    const uint32_t doublings = failures < 20 ? failures : 20;
    const Nanos whole = first << doublings < longest ? first << doublings : longest;
    return whole / 2 + rng.below(whole / 2 + 1);
}

}  // namespace pf::runtime

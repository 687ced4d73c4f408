// A sleep that can be ended early, for pacing retries that must not hold up a close.
#pragma once

#include "runtime/reactor.hpp"
#include "runtime/sync.hpp"

namespace pf::client {

class Pause {
  public:
    // One sleeper at a time.
    [[nodiscard]] runtime::Task<void> sleep(runtime::Nanos duration) {
        runtime::Reactor& reactor = runtime::Reactor::current();
        over_ = ended_;
        if (!over_) reactor.timers().arm(timer_, reactor.now() + duration);
        while (!over_) co_await queue_.wait();
        timer_.disarm();
    }
    // Ends the sleep under way and every later one.
    void end() {
        ended_ = over_ = true;
        queue_.wake_all();
    }

  private:
    struct OwnTimer : runtime::Timer {
        OwnTimer(Fire fire, Pause& of) : Timer(fire), pause(of) {}
        Pause& pause;
    };
    static void fire(runtime::Timer& timer) {
        Pause& pause = static_cast<OwnTimer&>(timer).pause;
        pause.over_ = true;
        pause.queue_.wake_all();
    }

    bool over_ = false;
    bool ended_ = false;
    runtime::WaitQueue queue_;
    OwnTimer timer_{&Pause::fire, *this};
};

// Exponential backoff with jitter: between half of and the whole of first * 2^failures, at most
// `longest`.
[[nodiscard]] inline runtime::Nanos backoff(Rng& rng, uint32_t failures, runtime::Nanos first,
                                            runtime::Nanos longest) {
    const uint32_t doublings = failures < 20 ? failures : 20;
    const runtime::Nanos whole = first << doublings < longest ? first << doublings : longest;
    return whole / 2 + rng.below(whole / 2 + 1);
}

}  // namespace pf::client

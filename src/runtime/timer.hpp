// Timers of one reactor: a binary heap of intrusive nodes, ordered by deadline and then by the
// order of arming, so that equal deadlines fire in a fixed order (the simulator depends on it).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pf::runtime {

// Monotonic time in nanoseconds since an arbitrary start. Never the wall clock.
using Nanos = uint64_t;
inline constexpr Nanos microseconds = 1'000;
inline constexpr Nanos milliseconds = 1'000'000;
inline constexpr Nanos seconds = 1'000'000'000;
inline constexpr Nanos never = UINT64_MAX;

class TimerQueue;

// Fires once by calling `fire(*this)` from the reactor loop. Re-arm it for a period. The destructor
// disarms. Not thread-safe; belongs to one reactor.
class Timer {
  public:
    using Fire = void (*)(Timer&);
    explicit Timer(Fire fire) : fire_(fire) {}
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;
    ~Timer();

    [[nodiscard]] bool armed() const { return queue_ != nullptr; }
    [[nodiscard]] Nanos deadline() const { return deadline_; }
    void disarm();

  private:
    friend class TimerQueue;
    Fire fire_;
    TimerQueue* queue_ = nullptr;
    Nanos deadline_ = 0;
    uint64_t order_ = 0;
    size_t index_ = 0;
};

class TimerQueue {
  public:
    TimerQueue() = default;
    TimerQueue(const TimerQueue&) = delete;
    TimerQueue& operator=(const TimerQueue&) = delete;
    ~TimerQueue();

    // Arms, or re-arms with a new deadline.
    void arm(Timer& timer, Nanos deadline);
    // The earliest deadline, or `never`.
    [[nodiscard]] Nanos next_deadline() const {
        return heap_.empty() ? never : heap_[0]->deadline_;
    }
    // Fires every timer due at `now`. Returns how many fired.
    size_t fire_due(Nanos now);

  private:
    friend class Timer;
    void remove(Timer& timer);
    void place(size_t index, Timer* timer);
    void sift_up(size_t index);
    void sift_down(size_t index);
    [[nodiscard]] static bool before(const Timer& a, const Timer& b) {
        return a.deadline_ != b.deadline_ ? a.deadline_ < b.deadline_ : a.order_ < b.order_;
    }

    std::vector<Timer*> heap_;
    uint64_t armed_so_far_ = 0;
};

}  // namespace pf::runtime

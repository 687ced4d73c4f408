// The future of a simulation: events ordered by (time, order of scheduling), so that equal times
// have one fixed order in every build.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/assert.hpp"
#include "runtime/timer.hpp"

namespace pf::runtime::sim {

// Receives its events. The token is the sink's own; a sink ignores tokens of things that are gone.
class EventSink {
  public:
    virtual void on_event(uint64_t token) = 0;

  protected:
    ~EventSink() = default;
};

struct Event {
    Nanos time;
    uint64_t order;
    EventSink* sink;
    uint64_t token;
};

class EventQueue {
  public:
    // Returns the event's order, unique over the simulation.
    uint64_t push(Nanos time, EventSink& sink, uint64_t token) {
        heap_.push_back({time, next_order_, &sink, token});
        std::push_heap(heap_.begin(), heap_.end(), after);
        return next_order_++;
    }
    [[nodiscard]] bool empty() const { return heap_.empty(); }
    [[nodiscard]] Nanos next_time() const { return heap_.empty() ? never : heap_.front().time; }
    Event pop() {
        PF_ASSERT(!heap_.empty());
        std::pop_heap(heap_.begin(), heap_.end(), after);
        const Event event = heap_.back();
        heap_.pop_back();
        return event;
    }

  private:
    static bool after(const Event& a, const Event& b) {
        return a.time != b.time ? a.time > b.time : a.order > b.order;
    }
    std::vector<Event> heap_;
    uint64_t next_order_ = 0;
};

// A running 64-bit hash over everything that happened: equal seeds give equal values in every
// build, so a difference is a source of nondeterminism.
class TraceHash {
  public:
    void add(uint64_t value) {
        value_ = (value_ ^ value) * 0x9e3779b97f4a7c15;
        value_ ^= value_ >> 32;
    }
    [[nodiscard]] uint64_t value() const { return value_; }

  private:
    uint64_t value_ = 0x5eed;
};

}  // namespace pf::runtime::sim

#include "runtime/timer.hpp"

#include "base/assert.hpp"

namespace pf::runtime {

Timer::~Timer() {
    disarm();
}

void Timer::disarm() {
    if (queue_ != nullptr) queue_->remove(*this);
}

TimerQueue::~TimerQueue() {
    for (Timer* timer : heap_) timer->queue_ = nullptr;
}

void TimerQueue::arm(Timer& timer, Nanos deadline) {
    timer.disarm();
    timer.queue_ = this;
    timer.deadline_ = deadline;
    timer.order_ = armed_so_far_++;
    heap_.push_back(&timer);
    timer.index_ = heap_.size() - 1;
    sift_up(timer.index_);
}

size_t TimerQueue::fire_due(Nanos now) {
    // A timer that re-arms itself for a past deadline fires in the next turn, not in this loop.
    const uint64_t armed_before = armed_so_far_;
    size_t fired = 0;
    while (!heap_.empty() && heap_[0]->deadline_ <= now && heap_[0]->order_ < armed_before) {
        Timer& timer = *heap_[0];
        remove(timer);
        timer.fire_(timer);
        ++fired;
    }
    return fired;
}

void TimerQueue::remove(Timer& timer) {
    PF_ASSERT(timer.queue_ == this);
    const size_t index = timer.index_;
    Timer* last = heap_.back();
    heap_.pop_back();
    timer.queue_ = nullptr;
    if (last == &timer) return;
    place(index, last);
    sift_up(index);
    sift_down(last->index_);
}

void TimerQueue::place(size_t index, Timer* timer) {
    heap_[index] = timer;
    timer->index_ = index;
}

void TimerQueue::sift_up(size_t index) {
    Timer* timer = heap_[index];
    while (index > 0) {
        const size_t parent = (index - 1) / 2;
        if (!before(*timer, *heap_[parent])) break;
        place(index, heap_[parent]);
        index = parent;
    }
    place(index, timer);
}

void TimerQueue::sift_down(size_t index) {
    Timer* timer = heap_[index];
    while (true) {
        size_t child = index * 2 + 1;
        if (child >= heap_.size()) break;
        if (child + 1 < heap_.size() && before(*heap_[child + 1], *heap_[child])) ++child;
        if (!before(*heap_[child], *timer)) break;
        place(index, heap_[child]);
        index = child;
    }
    place(index, timer);
}

}  // namespace pf::runtime

// Serialises overlapping writes of one shard while letting all others run in parallel (DESIGN
// section 4, "Visibility"). First come, first served: a range waits for every earlier range that it
// overlaps, so nobody starves. Locks are intrusive: taking one allocates nothing.
//
// A range never crosses a chunk, so ranges are kept by chunk and only neighbours are compared.
// Thread rule: one reactor. Bounded by the commands in flight.
#pragma once

#include <array>
#include <coroutine>
#include <cstdint>

#include "base/list.hpp"
#include "base/units.hpp"
#include "runtime/task.hpp"

namespace pf::pfs {

class RangeLock {
  public:
    // The blocks [first, first + count), inside one chunk. Embedded in the operation that locks.
    class Range : public ListHook {
      public:
        Range(uint32_t first, uint32_t count) : first_(first), last_(first + count - 1) {}
        [[nodiscard]] bool overlaps(const Range& other) const {
            return first_ <= other.last_ && other.first_ <= last_;
        }

      private:
        friend class RangeLock;
        uint32_t first_;
        uint32_t last_;
        uint32_t blockers_ = 0;  // earlier overlapping ranges, held or waiting
        std::coroutine_handle<> waiter_;
    };

    // co_await lock(range); the range is held until unlock().
    class LockAwaiter {
      public:
        LockAwaiter(RangeLock& lock, Range& range) : lock_(lock), range_(range) {}
        bool await_ready() { return lock_.enter(range_); }
        void await_suspend(std::coroutine_handle<> waiter) { range_.waiter_ = waiter; }
        void await_resume() const noexcept {}

      private:
        RangeLock& lock_;
        Range& range_;
    };
    [[nodiscard]] LockAwaiter lock(Range& range) { return {*this, range}; }
    void unlock(Range& range);

  private:
    static constexpr uint32_t bucket_count = 64;
    List<Range>& bucket_of(const Range& range) {
        return buckets_[range.first_ / blocks_per_chunk % bucket_count];
    }
    // Puts the range in line; true if it is held at once.
    bool enter(Range& range);

    std::array<List<Range>, bucket_count> buckets_;
};

}  // namespace pf::pfs

// The coroutines that can run now, in the order they became ready. A ring that grows to the largest
// number ever ready at once and then allocates no more.
#pragma once

#include <coroutine>
#include <cstddef>
#include <vector>

namespace pf::runtime {

class ReadyQueue {
  public:
    void push(std::coroutine_handle<> handle) {
        if (count_ == ring_.size()) grow();
        ring_[(first_ + count_) & (ring_.size() - 1)] = handle;
        ++count_;
    }
    std::coroutine_handle<> pop() {
        const auto handle = ring_[first_];
        first_ = (first_ + 1) & (ring_.size() - 1);
        --count_;
        return handle;
    }
    [[nodiscard]] bool empty() const { return count_ == 0; }
    [[nodiscard]] size_t size() const { return count_; }
    void clear() { first_ = count_ = 0; }

  private:
    void grow() {
        std::vector<std::coroutine_handle<>> larger(ring_.empty() ? 256 : ring_.size() * 2);
        for (size_t i = 0; i < count_; ++i) larger[i] = ring_[(first_ + i) & (ring_.size() - 1)];
        ring_.swap(larger);
        first_ = 0;
    }

    std::vector<std::coroutine_handle<>> ring_;
    size_t first_ = 0;
    size_t count_ = 0;
};

}  // namespace pf::runtime

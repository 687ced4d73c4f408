// How many payload bytes the connections of one NBD server hold together. Who finds too little left
// waits in line, so a large request is not overtaken for ever by small ones. A request takes all it
// needs at once: nobody holds a part while waiting for the rest, so nobody deadlocks. Small
// requests have a budget of their own, so that they never wait for a client that is slow with large
// ones.
//
// Thread rule: one reactor.
#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/sync.hpp"

namespace pf::attach::nbd {

class Budget {
  public:
    explicit Budget(uint64_t bytes) : left_bytes_(bytes), total_bytes_(bytes) {}

    // Without waiting; false when others wait or too little is left.
    [[nodiscard]] bool try_take(uint64_t bytes) {
        if (waiting_ > 0 || bytes > left_bytes_) return false;
        left_bytes_ -= bytes;
        return true;
    }
    // `bytes` is at most the whole budget.
    [[nodiscard]] runtime::Task<void> take(uint64_t bytes) {
        PF_ASSERT(bytes <= total_bytes_);
        ++waiting_;
        co_await line_.lock();
        while (bytes > left_bytes_) co_await returned_.wait();
        left_bytes_ -= bytes;
        line_.unlock();
        --waiting_;
    }
    void give_back(uint64_t bytes) {
        left_bytes_ += bytes;
        PF_ASSERT(left_bytes_ <= total_bytes_);
        returned_.wake_all();
    }
    [[nodiscard]] uint64_t total_bytes() const { return total_bytes_; }
    // What one connection may hold of it, unless it holds a single request: clients that do not
    // take their replies leave something for the others.
    [[nodiscard]] uint64_t share_bytes() const { return total_bytes_ / 4; }

  private:
    uint64_t left_bytes_;
    uint64_t total_bytes_;
    uint32_t waiting_ = 0;
    runtime::Mutex line_;
    runtime::WaitQueue returned_;
};

// What one connection holds of a budget.
struct Account {
    Budget& budget;
    uint64_t held_bytes = 0;

    [[nodiscard]] bool is_over_share(uint64_t more_bytes) const {
        return held_bytes > 0 && held_bytes + more_bytes > budget.share_bytes();
    }
};

struct Budgets {
    static constexpr uint64_t small_request_bytes = 64u << 10;

    Budget small;
    Budget large;
};

}  // namespace pf::attach::nbd

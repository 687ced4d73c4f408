// How many payload bytes the connections of one NBD server hold together. Who finds too little left
// waits in line, so a large request is not overtaken for ever by small ones. A request takes all it
// needs at once: nobody holds a part while waiting for the rest, so nobody deadlocks.
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
    [[nodiscard]] uint64_t left_bytes() const { return left_bytes_; }
    [[nodiscard]] uint64_t total_bytes() const { return total_bytes_; }

  private:
    uint64_t left_bytes_;
    uint64_t total_bytes_;
    uint32_t waiting_ = 0;
    runtime::Mutex line_;
    runtime::WaitQueue returned_;
};

}  // namespace pf::attach::nbd

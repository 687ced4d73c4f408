// The sending side of an NBD connection: replies that became ready in one turn of the loop leave in
// one send, whatever their order.
//
// Thread rule: one reactor. Bounded by the jobs of the session.
#pragma once

#include <array>

#include "attach/nbd_job.hpp"
#include "runtime/network.hpp"
#include "runtime/sync.hpp"

namespace pf::attach::nbd {

// Ends a connection that makes no progress, so that a stalled client cannot sit on memory.
class StallTimer : public runtime::Timer {
  public:
    explicit StallTimer(runtime::Connection& connection)
        : Timer(&StallTimer::fire), connection_(connection) {}
    void arm(runtime::Nanos patience);

  private:
    static void fire(runtime::Timer& timer) {
        static_cast<StallTimer&>(timer).connection_.shut_down();
    }
    runtime::Connection& connection_;
};

class Replies {
  public:
    // `sent` is called for every job once its memory is no longer needed, sent or not.
    using Sent = void (*)(Job&);
    Replies(runtime::Connection& connection, runtime::Nanos patience, Sent sent)
        : connection_(connection), stall_(connection), patience_(patience), sent_(sent) {}

    void push(Job& job) {
        ready_.push_back(job);
        wake_.wake_one();
    }
    // Runs until close() was called and everything pushed before it is gone.
    [[nodiscard]] runtime::Task<void> run();
    void close() {
        closed_ = true;
        wake_.wake_one();
    }
    [[nodiscard]] runtime::Task<void> finished() { return finished_.wait(); }
    // From now on nothing is sent: the client is gone.
    void abandon() { broken_ = true; }

  private:
    static constexpr uint32_t max_vectors = 512;
    // A batch has this, and then one reply more at most: the client's patience is for a reply, not
    // for all that it asked for.
    static constexpr uint64_t enough_bytes = 2u << 20;

    uint32_t gather(List<Job>& batch);
    void add(const void* data, size_t bytes) {
        vectors_[vector_count_++] = {const_cast<void*>(data), bytes};
    }

    runtime::Connection& connection_;
    StallTimer stall_;
    runtime::Nanos patience_;
    Sent sent_;
    bool closed_ = false;
    bool broken_ = false;
    List<Job> ready_;
    runtime::WaitQueue wake_;
    runtime::Event finished_;
    std::array<iovec, max_vectors> vectors_;
    uint32_t vector_count_ = 0;
};

}  // namespace pf::attach::nbd

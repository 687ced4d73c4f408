// The named requests of a shard that are running now, so that a second copy of one (resent on a new
// connection while the first still runs, R8) or an abort (R10) waits for it instead of running
// beside it. Intrusive: nothing is allocated per request.
//
// Thread rule: one reactor. Bounded by the commands in flight.
#pragma once

#include <array>
#include <cstdint>

#include "base/list.hpp"
#include "runtime/sync.hpp"

namespace pf::pfs {

class InFlight {
  public:
    class Entry : public ListHook {
      public:
        Entry(uint64_t entry_session, uint64_t entry_request)
            : session(entry_session), request(entry_request) {}
        const uint64_t session;
        const uint64_t request;

      private:
        friend class InFlight;
        runtime::WaitQueue waiters_;
    };

    [[nodiscard]] Entry* find(uint64_t session, uint64_t request) {
        List<Entry>& bucket = bucket_of(request);
        Entry* entry = bucket.front();
        while (entry != nullptr && (entry->request != request || entry->session != session)) {
            entry = bucket.next(*entry);
        }
        return entry;
    }
    void add(Entry& entry) { bucket_of(entry.request).push_back(entry); }
    // Whoever waited looks again from the start.
    void remove(Entry& entry) {
        entry.unlink();
        entry.waiters_.wake_all();
    }
    // co_await wait(entry): until it was removed; `entry` is gone afterwards.
    [[nodiscard]] runtime::WaitQueue::Awaiter wait(Entry& entry) { return entry.waiters_.wait(); }

  private:
    static constexpr uint32_t bucket_count = 256;
    List<Entry>& bucket_of(uint64_t request) { return buckets_[request % bucket_count]; }

    std::array<List<Entry>, bucket_count> buckets_;
};

}  // namespace pf::pfs

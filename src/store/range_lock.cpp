#include "store/range_lock.hpp"

#include "base/assert.hpp"
#include "base/planted.hpp"

namespace pf::pfs {

bool RangeLock::enter(Range& range) {
    PF_ASSERT(range.first_ / blocks_per_chunk == range.last_ / blocks_per_chunk);
    List<Range>& bucket = bucket_of(range);
    range.blockers_ = 0;
    for (Range* other = bucket.front(); other != nullptr; other = bucket.next(*other)) {
        if (range.overlaps(*other)) ++range.blockers_;
    }
    bucket.push_back(range);
    if (planted("ignore_range_lock")) range.blockers_ = 0;
    return range.blockers_ == 0;
}

void RangeLock::unlock(Range& range) {
    List<Range>& bucket = bucket_of(range);
    // Only later ranges counted this one as a blocker.
    for (Range* later = bucket.next(range); later != nullptr; later = bucket.next(*later)) {
        if (later->blockers_ == 0 || !later->overlaps(range)) continue;
        if (--later->blockers_ == 0) runtime::schedule(later->waiter_);
    }
    range.unlink();
}

}  // namespace pf::pfs

// Blocks that nothing refers to any more but that may not be allocated yet (T3): until the record
// that superseded them is confirmed by a durable log block and no read that began before is still
// running; blocks that the durable checkpoint still refers to, until the next one is durable.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/list.hpp"
#include "base/planted.hpp"
#include "tray/log_format.hpp"

namespace pf::tray {

// A read in progress: blocks that were superseded after it began are held, so what it reads is what
// its table's CRCs are about (T12). Whatever will repair a block holds it likewise, takes only
// bytes that match that CRC, and looks at the map again before it writes.
struct ReadHold : ListHook {
    uint64_t stamp = 0;
};

class HeldBlocks {
  public:
    void begin_read(ReadHold& read) {
        read.stamp = stamp_;
        readers_.push_back(read);
    }

    // Superseded by the record in log block `sequence`.
    void hold(Extent extent, uint64_t sequence) {
        waiting_.push_back({extent, sequence, ++stamp_});
        blocks_ += extent.count;
    }
    // Referred to by the durable checkpoint; free when the next one to begin is durable.
    void hold_for_next_checkpoint(Extent extent) {
        append(next_checkpoint_, extent);
        checkpoint_blocks_ += extent.count;
        collected_next_ += extent.count;
    }
    // Replaced by the checkpoint under way.
    void hold_for_this_checkpoint(Extent extent) {
        append(this_checkpoint_, extent);
        checkpoint_blocks_ += extent.count;
    }
    void begin_checkpoint() {
        this_checkpoint_.insert(this_checkpoint_.end(), next_checkpoint_.begin(),
                                next_checkpoint_.end());
        next_checkpoint_.clear();
        collected_this_ += std::exchange(collected_next_, 0);
    }
    void checkpoint_is_durable() {
        for (const Extent& extent : this_checkpoint_) {
            checkpoint_blocks_ -= extent.count;
            hold(extent, 0);  // readers may still be at them
        }
        this_checkpoint_.clear();
        collected_this_ = 0;
    }

    // Calls release(extent) for everything that may be allocated, given the confirmed watermark
    // that a durable log block carries.
    template <class Release>
    void release(uint64_t recorded, Release release) {
        const uint64_t oldest = readers_.empty() ? UINT64_MAX : readers_.front()->stamp;
        while (first_ < waiting_.size()) {
            const Waiting& first = waiting_[first_];
            if (first.sequence > recorded && !planted("reuse_block_too_early")) break;
            if (first.stamp > oldest && !planted("reuse_block_under_reader")) break;
            blocks_ -= first.extent.count;
            const Extent extent = first.extent;
            ++first_;
            release(extent);
        }
        // A queue in a vector: it keeps its memory, so that holding allocates nothing.
        if (first_ == waiting_.size() || first_ >= max_dead_prefix) {
            waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<ptrdiff_t>(first_));
            first_ = 0;
        }
    }

    [[nodiscard]] uint64_t blocks() const { return blocks_; }  // T3
    [[nodiscard]] uint64_t checkpoint_blocks() const { return checkpoint_blocks_; }
    // Of these, what is not replaced metadata: freed by deletions, or at mount.
    [[nodiscard]] uint64_t collected_blocks() const { return collected_next_ + collected_this_; }
    // What the next checkpoint will have to take over in one step.
    [[nodiscard]] size_t extents_for_next_checkpoint() const { return next_checkpoint_.size(); }

  private:
    // Blocks that were written one after the other are deleted so, too.
    static void append(std::vector<Extent>& to, Extent extent) {
        if (!to.empty() && to.back().start + to.back().count == extent.start)
            to.back().count += extent.count;
        else
            to.push_back(extent);
    }

    struct Waiting {
        Extent extent;
        uint64_t sequence;
        uint64_t stamp;
    };
    static constexpr size_t max_dead_prefix = 4096;
    std::vector<Waiting> waiting_;
    size_t first_ = 0;
    std::vector<Extent> next_checkpoint_, this_checkpoint_;
    List<ReadHold> readers_;
    uint64_t stamp_ = 0;
    uint64_t blocks_ = 0;
    uint64_t checkpoint_blocks_ = 0;
    uint64_t collected_next_ = 0;
    uint64_t collected_this_ = 0;
};

}  // namespace pf::tray

// Group commit: the records queued in a turn share one log block, submitted next to their data.
//
// An item is durable when its data, its log block and every earlier log block are on stable media;
// with a volatile cache one flush, submitted after they completed, covers all that are ready. Two
// flushes may overlap; they count in the order they began, because one that succeeds says nothing
// about what an earlier one failed to write. A lone write goes through the cache instead: one trip
// to the device, no flush. Few partly filled blocks may be on their way at once, so that under load
// blocks fill up.
//
// Watermarks (T6): `durable` - log blocks; `confirmed` - blocks whose records' data is durable too;
// `recorded` - the confirmed that a *durable* log block carries, which is what a replay will know.
// The window between `confirmed` and the head is bounded, so a mount can scan all of it.
#pragma once

#include <algorithm>
#include <vector>

#include "runtime/reactor.hpp"
#include "runtime/sync.hpp"
#include "tray/log_format.hpp"

namespace pf::tray {

// A record on its way, embedded in its owner.
struct LogItem : ListHook {
    uint32_t (*encode)(LogItem& item, MutableBytes to) = nullptr;
    // Called once, from the log: durable, or the tray has failed.
    void (*completed)(LogItem& item, bool ok) = nullptr;
    uint32_t bytes = 0;          // of the record
    bool data_done = true;       // false while the write's own data is in flight
    bool data_in_cache = false;  // done, but durable only with the next flush
    uint64_t sequence = 0;       // of its log block; 0: not in one yet
};

// Who may use the last room of a nearly full log (T8).
enum class LogRank : uint8_t { user, control, watermark, internal, marker };

class LogWriter {
  public:
    class Client {
      public:
        // Adds commit marks to a block that is being built (T5); returns the bytes used.
        virtual uint32_t append_commit_marks(MutableBytes room) = 0;
        virtual void log_advanced() = 0;  // a watermark moved
        virtual void log_failed() = 0;
        virtual void log_grew() = 0;  // a block was built: is a checkpoint due?

      protected:
        ~Client() = default;
    };

    struct Start {
        uint64_t incarnation = 0;
        uint64_t sequence = 0;  // of the first block to write
        uint32_t previous_crc = 0;
        uint64_t root_number = 0;
    };

    LogWriter(runtime::Disk& disk, const Superblock& superblock, Client& client);
    static constexpr uint32_t buffer_count = 8;  // log blocks being written at once
    // `buffers`: that many blocks. Spawns the loops.
    void start(const Start& start, runtime::Buffer buffers);
    void request_stop();
    // The loops have ended and every block has come back from the disk.
    [[nodiscard]] bool stopped() const {
        return loops_ == 0 && (!buffers_ || free_buffers_.size() == buffer_count);
    }

    // So few writes together are not worth a flush.
    static constexpr size_t lone_writes = 2;

    void submit(LogItem& item, LogRank rank);
    void data_done(LogItem& item);
    // Writes one more block soon even if there is nothing to log, to move the watermarks.
    void request_block();
    // The same, if the durable watermarks are behind.
    void request_watermarks() {
        if (recorded_ < last_records_) request_block();
    }
    // The block that names a new root (T9): it may take the last room there is.
    void request_marker();
    // For a checkpoint: a flush in the order of all. io_error: this one or one before it failed.
    runtime::Task<Status> flush();
    void fail();

    // The cut of a checkpoint (T4): items at or after next_sequence() do not complete until
    // open_gate(), while earlier ones do. Returns that sequence.
    uint64_t close_gate();
    void open_gate();

    // The root that is durable now, and the first block that it needs (T9).
    void set_root(uint64_t number, uint64_t log_start);

    [[nodiscard]] uint64_t next_sequence() const { return next_; }
    [[nodiscard]] uint64_t log_start() const { return log_start_; }
    [[nodiscard]] uint32_t last_crc() const { return last_crc_; }
    [[nodiscard]] uint64_t durable() const { return durable_; }
    [[nodiscard]] uint64_t confirmed() const { return confirmed_; }
    [[nodiscard]] uint64_t recorded() const { return recorded_; }
    [[nodiscard]] uint64_t used_blocks() const { return next_ - log_start_; }
    [[nodiscard]] uint64_t incarnation() const { return start_.incarnation; }
    [[nodiscard]] uint64_t blocks_written() const { return blocks_written_; }
    [[nodiscard]] uint64_t flushes() const { return flushes_; }
    [[nodiscard]] bool idle() const {
        return user_queue_.empty() && control_queue_.empty() && internal_queue_.empty() &&
               durable_ + 1 == next_ && confirmed_ == durable_ && flushes_ended_ == flushes_begun_;
    }
    // Bound of the window between confirmed and the head.
    [[nodiscard]] static uint32_t window_blocks(uint32_t log_blocks) {
        return std::min(max_window_blocks, log_blocks / 4);
    }

  private:
    static constexpr uint32_t max_window_blocks = 64;
    // So that the next flush is already queued when one ends.
    static constexpr uint32_t flushers = 2;
    static constexpr uint32_t max_partial_undurable = 2;  // beyond it blocks wait to fill up
    static constexpr runtime::Nanos idle_delay = 4 * runtime::milliseconds;  // T6 says within 10

    struct Group : runtime::DiskOp {
        LogWriter* log = nullptr;
        uint64_t sequence = 0;
        bool written = false;
        bool has_records = false;
        uint32_t open_items = 0;
        uint32_t buffer = 0;
        uint64_t carries_confirmed = 0;
        List<LogItem> items;  // not ready yet
    };
    struct IdleTimer : runtime::Timer {
        explicit IdleTimer(LogWriter& owner) : Timer(&IdleTimer::fired), log(owner) {}
        static void fired(Timer& timer);
        LogWriter& log;
        uint64_t armed_at_next = 0;
    };

    [[nodiscard]] Group& group(uint64_t sequence) { return groups_[sequence % groups_.size()]; }
    [[nodiscard]] bool room_for(LogRank rank) const;
    [[nodiscard]] bool can_build() const;
    [[nodiscard]] bool full_block_waits() const { return queued_bytes_ >= log_payload_bytes; }
    void build_block();
    uint32_t take_items(List<LogItem>& queue, Group& into, MutableBytes room);
    void block_written(Group& group);
    void make_ready(LogItem& item);
    [[nodiscard]] bool flush_needed() const;
    // Whether what the flusher is to make durable needs a flush.
    [[nodiscard]] bool cache_holds_any(uint64_t through, List<LogItem>& flushing);
    void durable_through(uint64_t sequence, List<LogItem>& flushing);
    void advance_confirmed();
    void arm_idle_timer();
    void fail_list(List<LogItem>& list);
    runtime::Task<void> run_builder();
    runtime::Task<void> run_flusher();
    runtime::Task<void> flush_in_order(bool needed);

    runtime::Disk& disk_;
    const Superblock& superblock_;
    const uint32_t tag_;
    Client& client_;
    Start start_;
    std::vector<Group> groups_;  // ring over the window
    runtime::Buffer buffers_;
    std::vector<uint32_t> free_buffers_;

    List<LogItem> user_queue_, control_queue_, internal_queue_;
    List<LogItem> ready_, gated_;
    uint64_t queued_bytes_ = 0;
    uint64_t gate_ = UINT64_MAX;
    bool block_wanted_ = false;
    bool marker_wanted_ = false;
    bool failed_ = false;
    bool stopping_ = false;
    uint32_t loops_ = 0;

    uint64_t next_ = 0;
    uint64_t written_ = 0;
    uint64_t durable_ = 0;
    uint64_t confirmed_ = 0;
    uint64_t recorded_ = 0;
    uint64_t last_records_ = 0;  // newest block that holds records
    uint64_t flush_wanted_through_ = 0;
    uint64_t flushing_through_ = 0;  // by the flush that began last
    uint64_t flushes_begun_ = 0;
    uint64_t flushes_ended_ = 0;
    uint64_t log_start_ = 0;
    uint64_t root_number_ = 0;
    uint32_t last_crc_ = 0;
    ShardFilter last_shards_ = ShardFilter::everything();  // of the block before the next
    uint64_t blocks_written_ = 0;
    uint64_t flushes_ = 0;

    bool build_kicked_ = false;
    bool flush_kicked_ = false;
    runtime::WaitQueue build_wake_;
    runtime::WaitQueue flush_wake_;
    runtime::WaitQueue flush_ended_;
    IdleTimer idle_timer_;

    void kick_builder() {
        build_kicked_ = true;
        build_wake_.wake_one();
    }
    void kick_flusher() {
        flush_kicked_ = true;
        flush_wake_.wake_one();
    }
};

}  // namespace pf::tray

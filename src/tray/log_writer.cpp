#include "tray/log_writer.hpp"

#include <algorithm>

#include "base/assert.hpp"
#include "base/planted.hpp"

namespace pf::tray {

using runtime::Task;

LogWriter::LogWriter(runtime::Disk& disk, const Superblock& superblock, Client& client)
    : disk_(disk),
      superblock_(superblock),
      tag_(superblock.tag()),
      client_(client),
      groups_(window_blocks(superblock.log_blocks) + 1),
      idle_timer_(*this) {}

void LogWriter::start(const Start& start, runtime::Buffer buffers) {
    start_ = start;
    next_ = start.sequence;
    written_ = durable_ = confirmed_ = recorded_ = last_records_ = start.sequence - 1;
    flushing_through_ = start.sequence - 1;
    log_start_ = start.sequence;
    last_crc_ = start.previous_crc;
    root_number_ = start.root_number;
    PF_ASSERT(buffers.size() == size_t{buffer_count} * block_bytes);
    buffers_ = std::move(buffers);
    for (uint32_t i = buffer_count; i > 0; --i) free_buffers_.push_back(i - 1);
    loops_ = 1 + flushers;
    auto& reactor = runtime::Reactor::current();
    reactor.spawn(run_builder());
    for (uint32_t i = 0; i < flushers; ++i) reactor.spawn(run_flusher());
}

void LogWriter::request_stop() {
    stopping_ = true;
    idle_timer_.disarm();
    kick_builder();
    flush_wake_.wake_all();
}

void LogWriter::submit(LogItem& item, LogRank rank) {
    PF_ASSERT(item.bytes <= log_payload_bytes);
    item.sequence = 0;
    auto& queue = rank == LogRank::user      ? user_queue_
                  : rank == LogRank::control ? control_queue_
                                             : internal_queue_;
    queue.push_back(item);
    queued_bytes_ += item.bytes;
    if (failed_) {
        fail_list(queue);
        return;
    }
    kick_builder();
    kick_flusher();  // the builder may wait for it
}

void LogWriter::data_done(LogItem& item) {
    item.data_done = true;
    if (failed_) {
        item.unlink();
        item.completed(item, false);
        return;
    }
    if (item.sequence == 0) return;
    if (item.sequence <= written_ || planted("ack_before_log_durable")) {
        item.unlink();
        make_ready(item);
    }
}

void LogWriter::request_block() {
    block_wanted_ = true;
    kick_builder();
    kick_flusher();
}

void LogWriter::request_marker() {
    marker_wanted_ = true;
    kick_builder();
}

uint64_t LogWriter::close_gate() {
    gate_ = next_;
    return gate_;
}

void LogWriter::open_gate() {
    gate_ = UINT64_MAX;
    while (LogItem* item = gated_.pop_front()) ready_.push_back(*item);
    if (!ready_.empty()) kick_flusher();
}

void LogWriter::set_root(uint64_t number, uint64_t log_start) {
    root_number_ = number;
    PF_ASSERT(log_start >= log_start_ && log_start <= next_);
    log_start_ = log_start;
    kick_builder();
}

bool LogWriter::room_for(LogRank rank) const {
    // The last blocks of the ring are kept for those without whom it never gets free (T8): a
    // checkpoint logs again what is not committed, and ends with its marker.
    const uint64_t size = superblock_.log_blocks;
    uint64_t kept = 1;
    switch (rank) {
        case LogRank::user:
            kept = std::clamp<uint64_t>(size / 8, 5, 64);
            break;
        case LogRank::control:
            kept = 4;
            break;
        case LogRank::watermark:
            kept = 3;
            break;
        case LogRank::internal:
            kept = 2;
            break;
        case LogRank::marker:
            break;
    }
    return used_blocks() + kept < size;
}

bool LogWriter::can_build() const {
    if (failed_ || free_buffers_.empty()) return false;
    if (next_ - confirmed_ >= groups_.size()) return false;
    const bool work = (marker_wanted_ && room_for(LogRank::marker)) ||
                      (block_wanted_ && room_for(LogRank::watermark)) ||
                      (!internal_queue_.empty() && room_for(LogRank::internal)) ||
                      (!control_queue_.empty() && room_for(LogRank::control)) ||
                      (!user_queue_.empty() && room_for(LogRank::user));
    if (!work) return false;
    return full_block_waits() || next_ - 1 - durable_ < max_partial_undurable;
}

uint32_t LogWriter::take_items(List<LogItem>& queue, Group& into, MutableBytes room) {
    uint32_t used = 0;
    while (LogItem* item = queue.front()) {
        if (used + item->bytes > room.size()) break;
        queue.pop_front();
        const uint32_t bytes = item->encode(*item, room.subspan(used, item->bytes));
        PF_ASSERT(bytes == item->bytes);
        used += bytes;
        queued_bytes_ -= bytes;
        item->sequence = into.sequence;
        ++into.open_items;
        into.items.push_back(*item);
    }
    return used;
}

void LogWriter::build_block() {
    Group& into = group(next_);
    PF_ASSERT(into.open_items == 0 && into.items.empty());
    into.log = this;
    into.sequence = next_;
    into.written = false;
    into.buffer = free_buffers_.back();
    free_buffers_.pop_back();
    const MutableBytes block =
        buffers_.bytes().subspan(size_t{into.buffer} * block_bytes, block_bytes);
    const MutableBytes room = block.subspan(sizeof(LogHeaderFormat));
    uint32_t used = 0;
    if (room_for(LogRank::internal)) used += take_items(internal_queue_, into, room.subspan(used));
    // T5: what is logged again stays in front of every write that came after it.
    if (internal_queue_.empty()) {
        if (room_for(LogRank::control))
            used += take_items(control_queue_, into, room.subspan(used));
        if (room_for(LogRank::user)) used += take_items(user_queue_, into, room.subspan(used));
    }
    into.has_records = used > 0;
    used += client_.append_commit_marks(room.subspan(used));
    if (into.has_records)
        last_records_ = next_;
    else
        flush_wanted_through_ = next_;
    block_wanted_ = marker_wanted_ = false;

    LogHeader header;
    header.previous_crc = last_crc_;
    header.incarnation = start_.incarnation;
    header.sequence = next_;
    header.log_durable = planted("durable_watermark_missing") ? 0 : durable_;
    header.data_confirmed = confirmed_;
    if (planted("confirmed_moves_too_early")) header.data_confirmed = next_;
    header.root_number = root_number_;
    header.previous_shards = last_shards_;
    last_shards_ = ShardFilter::of(room.first(used));
    into.carries_confirmed = header.data_confirmed;
    last_crc_ = seal_log_block(header, tag_, used, block);

    into.kind = runtime::DiskOp::Kind::write;
    into.write_through =
        disk_.quick_write_through() && into.open_items <= lone_writes && next_ - 1 == durable_;
    into.offset = (log_start_address + next_ % superblock_.log_blocks) * block_bytes;
    into.length = block_bytes;
    into.single = {block.data(), block.size()};
    into.iov = &into.single;
    into.iov_count = 1;
    into.complete = [](runtime::DiskOp& op) {
        auto& done = static_cast<Group&>(op);
        done.log->block_written(done);
    };
    ++next_;
    ++blocks_written_;
    disk_.submit(into);
}

void LogWriter::block_written(Group& done) {
    free_buffers_.push_back(done.buffer);
    if (done.result != 0) fail();
    if (failed_) return;
    done.written = true;
    while (written_ + 1 < next_ && group(written_ + 1).written) {
        ++written_;
        auto& items = group(written_).items;
        for (LogItem* item = items.front(); item != nullptr;) {
            LogItem* following = items.next(*item);
            if (item->data_done) {
                item->unlink();
                make_ready(*item);
            }
            item = following;
        }
    }
    kick_flusher();
    kick_builder();
}

void LogWriter::make_ready(LogItem& item) {
    if (item.sequence >= gate_) {
        gated_.push_back(item);
        return;
    }
    ready_.push_back(item);
    kick_flusher();
}

bool LogWriter::flush_needed() const {
    if (failed_) return false;
    if (!ready_.empty()) return true;
    if (written_ == flushing_through_) return false;
    if (!disk_.volatile_cache() || flush_wanted_through_ > flushing_through_) return true;
    // Blocks wait to be built behind written ones whose data is slow.
    return next_ - 1 - durable_ >= max_partial_undurable && (queued_bytes_ > 0 || block_wanted_);
}

bool LogWriter::cache_holds_any(uint64_t through, List<LogItem>& flushing) {
    if (!disk_.volatile_cache()) return false;
    for (uint64_t sequence = durable_ + 1; sequence <= through; ++sequence) {
        if (!group(sequence).write_through) return true;
    }
    for (LogItem* item = flushing.front(); item != nullptr; item = flushing.next(*item)) {
        if (item->data_in_cache && !planted("cached_data_not_flushed")) return true;
    }
    return false;
}

Task<void> LogWriter::run_flusher() {
    List<LogItem> flushing;
    while (true) {
        while (!flush_kicked_ || !flush_needed()) {
            if (stopping_) break;
            flush_kicked_ = false;
            co_await flush_wake_.wait();
        }
        if (stopping_) break;
        co_await runtime::end_of_turn();  // what completes in this turn shares the flush
        flush_kicked_ = true;             // look again afterwards
        if (!flush_needed()) continue;    // the other flusher took it
        const uint64_t through = written_;
        flushing_through_ = through;
        while (LogItem* item = ready_.pop_front()) flushing.push_back(*item);
        co_await flush_in_order(cache_holds_any(through, flushing) && !planted("skip_flush"));
        if (failed_)
            fail_list(flushing);
        else
            durable_through(through, flushing);
    }
    --loops_;
}

Task<Status> LogWriter::flush() {
    co_await flush_in_order(true);
    if (failed_) co_return std::unexpected<Error>(Error{Errc::io_error, {}});
    co_return Status{};
}

Task<void> LogWriter::flush_in_order(bool needed) {
    const uint64_t number = ++flushes_begun_;
    if (needed) {
        ++flushes_;
        const Status flushed = co_await disk_.flush();
        if (!flushed) fail();
    }
    while (flushes_ended_ + 1 != number && !planted("flushes_end_out_of_order"))
        co_await flush_ended_.wait();
    ++flushes_ended_;
    flush_ended_.wake_all();
}

void LogWriter::durable_through(uint64_t sequence, List<LogItem>& flushing) {
    durable_ = std::max(durable_, sequence);
    while (LogItem* item = flushing.pop_front()) {
        PF_ASSERT(group(item->sequence).open_items > 0);
        --group(item->sequence).open_items;
        item->completed(*item, true);
    }
    if (durable_ >= start_.sequence) {
        recorded_ = std::max(recorded_, group(durable_).carries_confirmed);
    }
    advance_confirmed();
    client_.log_advanced();
    arm_idle_timer();
    kick_builder();
}

void LogWriter::advance_confirmed() {
    while (confirmed_ < durable_ && group(confirmed_ + 1).open_items == 0) ++confirmed_;
}

// T6: within 10 ms of the last ack one more block says that it was durable and confirmed.
void LogWriter::arm_idle_timer() {
    if (stopping_ || idle_timer_.armed() || recorded_ >= last_records_) return;
    if (planted("idle_watermark_skipped")) return;
    idle_timer_.armed_at_next = next_;
    auto& reactor = runtime::Reactor::current();
    reactor.timers().arm(idle_timer_, reactor.now() + idle_delay);
}

void LogWriter::IdleTimer::fired(Timer& timer) {
    LogWriter& log = static_cast<IdleTimer&>(timer).log;
    if (log.failed_ || log.recorded_ >= log.last_records_) return;
    const bool carried = log.next_ > static_cast<IdleTimer&>(timer).armed_at_next;
    if (!carried && log.confirmed_ >= log.last_records_) log.request_block();
    log.arm_idle_timer();
}

Task<void> LogWriter::run_builder() {
    while (true) {
        while (!build_kicked_ || !can_build()) {
            if (stopping_) break;
            build_kicked_ = false;
            co_await build_wake_.wait();
        }
        if (stopping_) break;
        co_await runtime::end_of_turn();  // the records of this turn share a block
        build_kicked_ = true;
        while (can_build()) build_block();
        client_.log_grew();
    }
    --loops_;
}

void LogWriter::fail_list(List<LogItem>& list) {
    for (LogItem* item = list.front(); item != nullptr;) {
        LogItem* following = list.next(*item);
        // A write whose data is still in flight completes when that does.
        if (item->data_done) {
            item->unlink();
            item->completed(*item, false);
        }
        item = following;
    }
}

void LogWriter::fail() {
    if (failed_) return;
    failed_ = true;
    idle_timer_.disarm();
    for (auto* list : {&user_queue_, &control_queue_, &internal_queue_, &ready_, &gated_}) {
        fail_list(*list);
    }
    for (Group& each : groups_) fail_list(each.items);
    client_.log_failed();
    kick_builder();
    kick_flusher();
}

}  // namespace pf::tray

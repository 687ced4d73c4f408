#include "tray/log_reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/planted.hpp"
#include "tray/log_writer.hpp"

namespace pf::tray {

using runtime::Task;

Task<Result<Bytes>> LogReader::read(uint64_t sequence) {
    const uint64_t slot = sequence % superblock_.log_blocks;
    if (window_.contains(slot)) co_return window_.block(slot);
    if (before_.contains(slot)) co_return before_.block(slot);
    PF_CO_TRY(co_await move_to(slot));
    co_return window_.block(slot);
}

Task<Result<LogBlock>> LogReader::read_chained(Root root, uint64_t sequence) {
    PF_CO_TRY_ASSIGN(const Bytes bytes, co_await read(sequence));
    Result<LogBlock> block = planted("replay_takes_any_log_block")
                                 ? decode_log_block(bytes, superblock_)
                                 : decode_own(root, sequence, bytes);
    if (!block) {
        // One read that went astray must not put another block's records in its place.
        PF_CO_TRY_ASSIGN(const Bytes again, co_await read_again(sequence));
        block = decode_own(root, sequence, again);
    }
    if (block) co_return block;
    co_return fail(Errc::corrupt, fmt::format("{}: log block {} was there and cannot be read again",
                                              disk_.name(), sequence));
}

Task<Status> LogReader::move_to(uint64_t slot) {
    auto& buffers = runtime::Reactor::current().buffers();
    const size_t bytes = window_blocks() * block_bytes;
    if (!window_.memory) window_.memory = co_await buffers.allocate(bytes);
    const uint64_t end = window_.first + window_.slots;
    const bool in_order = window_.slots != 0 && slot == end % superblock_.log_blocks;
    co_await stop();
    // Only the first of them is waited for: mounts that have some must not wait for each other.
    if (in_order && !before_.memory) before_.memory = buffers.try_allocate(bytes);
    if (in_order && before_.memory) std::swap(before_, window_);
    if (next_.contains(slot)) {
        std::swap(window_, next_);
        next_.slots = 0;
        forget_unreadable(window_.first, window_.slots);
    } else {
        PF_CO_TRY(co_await read_slots(slot, window_from(slot)));
    }
    if (in_order && !next_.memory) next_.memory = buffers.try_allocate(bytes);
    if (in_order && next_.memory) {
        read_ahead();
        co_await runtime::yield();  // a turn of the loop hands it to the device
    }
    co_return Status{};
}

Task<Status> LogReader::read_slots(uint64_t slot, uint64_t count) {
    window_.slots = 0;
    const MutableBytes to = window_.memory.bytes().first(count * block_bytes);
    const uint64_t offset = (log_start_address + slot) * block_bytes;
    const Status done = co_await disk_.read(offset, to);
    if (!done && done.error().code != Errc::io_error) co_return done;
    if (done) forget_unreadable(slot, count);
    for (uint64_t i = 0; !done && i < count; ++i) {
        const MutableBytes block = to.subspan(i * block_bytes, block_bytes);
        const Status alone = co_await disk_.read(offset + i * block_bytes, block);
        if (!alone && alone.error().code != Errc::io_error) co_return alone;
        if (alone) {
            forget_unreadable(slot + i, 1);
            continue;
        }
        unreadable_.insert(slot + i);
        if (unreadable_.size() > max_unreadable) co_return alone;
        std::ranges::fill(block, std::byte{0});
    }
    window_.first = slot;
    window_.slots = count;
    co_return Status{};
}

void LogReader::forget_unreadable(uint64_t slot, uint64_t count) {
    unreadable_.erase(unreadable_.lower_bound(slot), unreadable_.lower_bound(slot + count));
}

// What fails here is read again when it is needed, block by block.
void LogReader::read_ahead() {
    const uint64_t slot = (window_.first + window_.slots) % superblock_.log_blocks;
    next_.first = slot;
    next_.slots = window_from(slot);
    ahead_.offset = (log_start_address + slot) * block_bytes;
    ahead_.length = next_.slots * block_bytes;
    ahead_.single = {next_.memory.data(), ahead_.length};
    ahead_.iov = &ahead_.single;
    ahead_.iov_count = 1;
    ahead_.complete = [](runtime::DiskOp& op) { static_cast<Ahead&>(op).done.set(); };
    ahead_.done.reset();
    ahead_.in_flight = true;
    disk_.submit(ahead_);
}

Task<void> LogReader::stop() {
    if (!ahead_.in_flight) co_return;
    co_await ahead_.done.wait();
    ahead_.in_flight = false;
    if (ahead_.result != 0) next_.slots = 0;
}

Task<Result<bool>> LogReader::follow(Root root, End& end) {
    const bool chained = !planted("chain_not_checked");
    uint64_t looked_twice_at = 0;
    while (end.last + 1 - root.log_start < superblock_.log_blocks) {
        const uint64_t expected = end.last + 1;
        PF_CO_TRY_ASSIGN(const Bytes bytes, co_await read(expected));
        const Result<LogBlock> block = decode_log_block(bytes, superblock_);
        const bool next = block && block->header.sequence == expected &&
                          (!chained || (block->header.incarnation == root.incarnation &&
                                        block->header.previous_crc == end.last_crc));
        if (!next) {
            // One read that went astray must not look like the end of the log.
            if (std::exchange(looked_twice_at, expected) == expected) co_return false;
            before_.slots = window_.slots = 0;
            continue;
        }
        const LogHeader& header = block->header;
        PF_CO_TRY(check_root(root, expected, header));
        end.last = expected;
        end.last_crc = header.crc;
        end.confirmed = std::max(end.confirmed, std::min(header.data_confirmed, expected));
        if (!window_.contains((expected + 1) % superblock_.log_blocks)) co_return true;
    }
    co_return false;
}

Task<Result<LogReader::End>> LogReader::find_end(Root root) {
    End end = begin(root);
    for (bool more = true; more;) {
        PF_CO_TRY_ASSIGN(more, co_await follow(root, end));
    }
    co_return co_await finish(root, std::move(end));
}

Task<Result<LogReader::End>> LogReader::finish(Root root, End end) {
    const uint64_t expected = end.last + 1;
    // What cannot be read may have been acked: it is not taken for the end (T7).
    const bool at_end = expected - root.log_start == superblock_.log_blocks;
    if (!at_end && unreadable(expected)) co_return co_await survey(root);
    // T6: everything that could have been in flight behind the end is looked at.
    const uint64_t window = 2 * uint64_t{LogWriter::window_blocks(superblock_.log_blocks)} + 2;
    bool damaged = false;
    for (uint64_t sequence = expected; sequence < expected + window; ++sequence) {
        if (sequence - root.log_start >= superblock_.log_blocks) break;
        PF_CO_TRY_ASSIGN(const Bytes bytes, co_await read(sequence));
        PF_CO_TRY(check_root_of(root, sequence, bytes));
        damaged = damaged || is_durable(root, expected, sequence, bytes);
    }
    if (damaged) co_return co_await survey(root);
    co_return end;
}

// T9: a block at `sequence` that is newer than the root.
Status LogReader::check_root(const Root& root, uint64_t sequence, const LogHeader& header) const {
    const bool newer = header.incarnation > root.incarnation ||
                       (header.incarnation == root.incarnation &&
                        (header.root_number > root.number || header.sequence > sequence));
    if (!newer) return {};
    return fail(Errc::corrupt,
                fmt::format("{}: the log is newer than the root: root {} of incarnation {}, "
                            "log block {} of incarnation {} names root {}: a root write was "
                            "lost or damaged",
                            disk_.name(), root.number, root.incarnation, header.sequence,
                            header.incarnation, header.root_number));
}

Status LogReader::check_root_of(const Root& root, uint64_t sequence, Bytes bytes) const {
    const Result<LogBlock> block = decode_log_block(bytes, superblock_);
    return block ? check_root(root, sequence, block->header) : Status{};
}

// T6: whether a block at `sequence` says that `expected`, behind which the log seems to end, was
// durable.
bool LogReader::is_durable(const Root& root, uint64_t expected, uint64_t sequence,
                           Bytes bytes) const {
    const Result<LogBlock> block = decode_own(root, sequence, bytes);
    return block && block->header.log_durable >= expected;
}

// The block `sequence` of the root's incarnation. An incarnation writes each sequence
// once (T1, T2), so there is only one such block.
Result<LogBlock> LogReader::decode_own(const Root& root, uint64_t sequence, Bytes bytes) const {
    PF_TRY_ASSIGN(const LogBlock block, decode_log_block(bytes, superblock_));
    const LogHeader& header = block.header;
    if (header.incarnation != root.incarnation || header.sequence != sequence) {
        return fail(Errc::not_found);
    }
    return block;
}

}  // namespace pf::tray

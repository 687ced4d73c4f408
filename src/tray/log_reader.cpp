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
    if (slot < first_slot_ || slot >= first_slot_ + slots_) {
        if (!buffer_) {
            buffer_ = co_await runtime::Reactor::current().buffers().allocate(
                size_t{read_ahead_blocks} * block_bytes);
        }
        const uint64_t count = std::min<uint64_t>(read_ahead_blocks, superblock_.log_blocks - slot);
        slots_ = 0;
        PF_CO_TRY(co_await disk_.read((log_start_address + slot) * block_bytes,
                                      buffer_.bytes().first(count * block_bytes)));
        first_slot_ = slot;
        slots_ = count;
    }
    co_return Bytes(buffer_.bytes().subspan((slot - first_slot_) * block_bytes, block_bytes));
}

Task<Result<LogReader::End>> LogReader::find_end(Root root) {
    End end{root.log_start - 1, root.log_previous, root.log_start - 1};
    const bool follow = !planted("chain_not_checked");
    bool read_again = false;
    while (end.last + 1 - root.log_start < superblock_.log_blocks) {
        const uint64_t expected = end.last + 1;
        PF_CO_TRY_ASSIGN(const Bytes bytes, co_await read(expected));
        const Result<LogBlock> block = decode_log_block(bytes, superblock_);
        const bool next = block && block->header.sequence == expected &&
                          (!follow || (block->header.incarnation == root.incarnation &&
                                       block->header.previous_crc == end.last_crc));
        if (!next) {
            // What is behind the end is given up for good (T1), so a device that returned the bytes
            // of another place gets a second chance.
            if (std::exchange(read_again, true)) break;
            slots_ = 0;
            continue;
        }
        read_again = false;
        const LogHeader& header = block->header;
        PF_CO_TRY(check_beyond(root, expected + 1, expected, bytes));
        end.last = expected;
        end.last_crc = header.crc;
        end.confirmed = std::max(end.confirmed, std::min(header.data_confirmed, expected));
    }
    // T6: everything that could have been in flight behind the end is looked at.
    const uint64_t expected = end.last + 1;
    const uint64_t window = 2 * uint64_t{LogWriter::window_blocks(superblock_.log_blocks)} + 2;
    for (uint64_t sequence = expected; sequence < expected + window; ++sequence) {
        if (sequence - root.log_start >= superblock_.log_blocks) break;
        PF_CO_TRY_ASSIGN(const Bytes bytes, co_await read(sequence));
        PF_CO_TRY(check_beyond(root, expected, sequence, bytes));
    }
    co_return end;
}

// What a block at `sequence` says against a log that ends before `expected`.
Status LogReader::check_beyond(const Root& root, uint64_t expected, uint64_t sequence,
                               Bytes bytes) const {
    const Result<LogBlock> block = decode_log_block(bytes, superblock_);
    if (!block) return {};
    const LogHeader& header = block->header;
    const bool newer = header.incarnation > root.incarnation ||
                       (header.incarnation == root.incarnation &&
                        (header.root_number > root.number || header.sequence > sequence));
    if (newer) {
        return fail(Errc::corrupt,
                    fmt::format("{}: the log is newer than the root: root {} of incarnation {}, "
                                "log block {} of incarnation {} names root {}: a root write was "
                                "lost or damaged",
                                disk_.name(), root.number, root.incarnation, header.sequence,
                                header.incarnation, header.root_number));
    }
    if (header.incarnation != root.incarnation || header.sequence != sequence) return {};
    if (header.log_durable >= expected) {
        return fail(Errc::corrupt,
                    fmt::format("{}: log block {} is damaged: block {} says that it was durable",
                                disk_.name(), expected, sequence));
    }
    return {};
}

}  // namespace pf::tray

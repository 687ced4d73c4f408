// T6, T7: reads a log around blocks that were durable and are gone. Only for a log that is known to
// be damaged: it reads the ring twice.
#include <algorithm>
#include <optional>

#include "tray/log_reader.hpp"

namespace pf::tray {

using runtime::Task;

Task<Result<Bytes>> LogReader::read_again(uint64_t sequence) {
    PF_CO_TRY(co_await read_slots(sequence % superblock_.log_blocks, 1));
    co_return Bytes(window_.memory.bytes().first(block_bytes));
}

Task<Result<LogReader::Watermarks>> LogReader::read_watermarks(Root root) {
    Watermarks all{root.log_start - 1, root.log_start - 1};
    for (uint64_t i = 0; i < superblock_.log_blocks; ++i) {
        const uint64_t sequence = root.log_start + i;
        PF_CO_TRY_ASSIGN(const Bytes bytes, co_await read(sequence));
        PF_CO_TRY(check_root_of(root, sequence, bytes));
        const Result<LogBlock> block = decode_own(root, sequence, bytes);
        if (!block) continue;
        all.durable = std::max(all.durable, block->header.log_durable);
        all.confirmed = std::max(all.confirmed, block->header.data_confirmed);
    }
    co_return all;
}

// Up to the durable watermark every block was there: a missing one is lost, and so is one that the
// device cannot read. Beyond the watermark the first missing one is the end, as always. Blocks
// behind a lost one are ours if incarnation and sequence are right; behind one that is there, they
// have to name its CRC as well (T2).
Task<Result<LogReader::End>> LogReader::survey(Root root) {
    PF_CO_TRY_ASSIGN(const Watermarks known, co_await read_watermarks(root));
    End end{root.log_start - 1, root.log_previous, known.confirmed, {}};
    bool lost_before = false;
    for (uint64_t i = 0; i < superblock_.log_blocks; ++i) {
        const uint64_t sequence = root.log_start + i;
        const auto decode = [&](Bytes bytes) -> std::optional<LogHeader> {
            const Result<LogBlock> block = decode_own(root, sequence, bytes);
            if (!block || (!lost_before && block->header.previous_crc != end.last_crc)) return {};
            return block->header;
        };
        PF_CO_TRY_ASSIGN(const Bytes bytes, co_await read(sequence));
        std::optional<LogHeader> header = decode(bytes);
        if (!header && sequence > known.durable && !unreadable(sequence)) break;
        if (!header) {
            // What follows cannot be taken back: one bad read is not enough for it.
            PF_CO_TRY_ASSIGN(const Bytes again, co_await read_again(sequence));
            header = decode(again);
        }
        end.last = sequence;
        end.last_crc = header ? header->crc : 0;
        if (header && lost_before) end.lost.back().shards = header->previous_shards;
        if (!header) end.lost.push_back({sequence, ShardFilter::everything()});
        lost_before = !header;
    }
    end.confirmed = std::min(end.confirmed, end.last);
    co_return end;
}

}  // namespace pf::tray

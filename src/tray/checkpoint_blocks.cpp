// The blocks of a checkpoint: tables, directory pages, pages of the bitmap, and the chains that
// name them.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/crc32c.hpp"
#include "base/planted.hpp"
#include "tray/engine.hpp"

namespace pf::tray {

using runtime::Task;

// Swaps a stored block for its new version; the old one stays until the root is durable.
void Checkpointer::replace(BlockLink& stored, BlockLink by) {
    if (stored.address != unmapped_address) {
        if (planted("old_table_freed_before_root"))
            engine_.held_.hold({stored.address, 1}, 0);
        else
            engine_.held_.hold_for_this_checkpoint({stored.address, 1});
        --engine_.metadata_blocks_;
    }
    stored = by;
}

// Allocates `count` blocks, has `fill(index, block, address)` make each, and writes them.
template <class Fill>
Task<Status> Checkpointer::write_batch(uint32_t count, bool paced, const Fill& fill) {
    const uint32_t extent_count = allocate(count, extents_.data());
    uint32_t index = 0;
    for (uint32_t e = 0; e < extent_count; ++e) {
        for (uint32_t i = 0; i < extents_[e].count; ++i, ++index) {
            fill(index, buffer_.bytes().subspan(size_t{index} * block_bytes, block_bytes),
                 extents_[e].start + i);
        }
    }
    return write_extents(count, paced);
}

Task<Status> Checkpointer::write_tables(bool paced) {
    Directory& directory = engine_.map_.directory();
    auto& tables = directory.writing_tables();
    std::array<ChunkVersion*, batch_tables> batch;
    for (size_t at = 0; at < tables.size();) {
        uint32_t count = 0;
        while (at < tables.size() && count < batch_tables) {
            ChunkVersion* version = std::exchange(tables[at++], nullptr);
            if (version->removed) {
                directory.destroy(version);
                continue;
            }
            batch[count++] = version;
        }
        if (count == 0) break;
        engine_.counters_.table_blocks += count;
        const auto fill = [&](uint32_t index, MutableBytes block, Address address) {
            ChunkVersion& version = *batch[index];
            const Table& table = version.frozen != nullptr ? *version.frozen : *version.table;
            std::memcpy(block.data(), &table, block_bytes);
            const bool last = at == tables.size() && index + 1 == count;
            if (!last || !planted("drop_table_on_checkpoint"))
                replace(version.stored, {address, crc32c(block)});
            version.stored_last = version.frozen != nullptr ? version.frozen_last : version.last;
            version.written_epoch = epoch_;
            directory.release_frozen(version);
        };
        PF_CO_TRY(co_await write_batch(count, paced, fill));
    }
    co_return Status{};
}

namespace {

// Returns the bytes used.
uint32_t encode_page(const DirectoryPage& page, MutableBytes block) {
    uint32_t used = 0;
    for (const ChunkVersion* version : page.slots) {
        // Made after the cut: the next checkpoint's.
        if (version == nullptr || version->stored.address == unmapped_address) continue;
        DirectoryEntryFormat entry{};
        entry.shard = version->generation->id.shard;
        entry.chunk = version->chunk;
        entry.snap_seq = version->generation->id.snap_seq;
        entry.table = version->stored;
        entry.last_epoch = version->stored_last.epoch;
        entry.last_sequence = version->stored_last.sequence;
        store(block, entry, sizeof(MetaHeaderFormat) + used);
        used += static_cast<uint32_t>(sizeof(entry));
    }
    return used;
}

}  // namespace

Task<Status> Checkpointer::write_pages(bool paced) {
    Directory& directory = engine_.map_.directory();
    const auto& pages = directory.writing_pages();
    for (size_t at = 0; at < pages.size(); at += batch_tables) {
        const auto count = static_cast<uint32_t>(std::min<size_t>(batch_tables, pages.size() - at));
        const auto fill = [&](uint32_t index, MutableBytes block, Address address) {
            DirectoryPage& page = directory.pages()[pages[at + index]];
            const uint32_t used = encode_page(page, block);
            const uint32_t crc = seal_meta(MetaKind::directory, engine_.superblock_.tag(), used,
                                           BlockLink{unmapped_address, 0}, block);
            replace(page.stored, {address, crc});
        };
        PF_CO_TRY(co_await write_batch(count, paced, fill));
    }
    co_return Status{};
}

Task<Status> Checkpointer::write_bitmap(bool paced) {
    MappedBlocks& mapped = engine_.map_.mapped();
    const auto& pages = mapped.writing_pages();
    for (size_t at = 0; at < pages.size(); at += batch_tables) {
        const auto count = static_cast<uint32_t>(std::min<size_t>(batch_tables, pages.size() - at));
        const auto fill = [&](uint32_t index, MutableBytes block, Address address) {
            const uint32_t page = pages[at + index];
            mapped.take_page(page, block.subspan(sizeof(MetaHeaderFormat)));
            const uint32_t crc =
                seal_meta(MetaKind::bitmap, engine_.superblock_.tag(), meta_payload_bytes,
                          BlockLink{unmapped_address, 0}, block);
            replace(mapped.stored(page), {address, crc});
        };
        PF_CO_TRY(co_await write_batch(count, paced, fill));
    }
    co_return Status{};
}

Task<Result<BlockLink>> Checkpointer::write_bitmap_index() {
    MappedBlocks& mapped = engine_.map_.mapped();
    std::vector<std::vector<std::byte>> index;
    for (uint32_t page = 0; page < mapped.page_count(); ++page) {
        if (page % links_per_index_block == 0) index.emplace_back();
        const auto* bytes = reinterpret_cast<const std::byte*>(&mapped.stored(page));
        index.back().insert(index.back().end(), bytes, bytes + sizeof(BlockLink));
    }
    return write_chain(MetaKind::bitmap_index, std::move(index));
}

// Writes the first `blocks` blocks of the buffer to the extents of the batch.
Task<Status> Checkpointer::write_extents(uint32_t blocks, bool paced) {
    if (engine_.failed_) co_return fail(Errc::io_error);
    const runtime::Nanos before = runtime::Reactor::current().fresh_now();
    size_t at = 0;
    for (uint32_t e = 0; blocks > 0; ++e) {
        const size_t bytes = size_t{extents_[e].count} * block_bytes;
        PF_CO_TRY(co_await engine_.disk_->write(uint64_t{extents_[e].start} * block_bytes,
                                                buffer_.bytes().subspan(at, bytes)));
        at += bytes;
        blocks -= extents_[e].count;
    }
    // Half of the time belongs to the foreground, unless the log fills up faster than that.
    const bool urgent = engine_.log_.used_blocks() * 4 > engine_.superblock_.log_blocks * 3ull;
    if (paced && !urgent) {
        const runtime::Nanos took = runtime::Reactor::current().fresh_now() - before;
        constexpr runtime::Nanos shortest = 50 * runtime::microseconds;
        constexpr runtime::Nanos longest = 10 * runtime::milliseconds;
        co_await runtime::sleep_for(std::clamp(took, shortest, longest));
    }
    co_return Status{};
}

// Linked blocks, written from the last to the first, because each names the CRC of the next.
Task<Result<BlockLink>> Checkpointer::write_chain(MetaKind kind,
                                                  std::vector<std::vector<std::byte>> payloads) {
    BlockLink next{unmapped_address, 0};
    const MutableBytes block = buffer_.bytes().first(block_bytes);
    for (auto payload = payloads.rbegin(); payload != payloads.rend(); ++payload) {
        Extent extent{};
        allocate(1, &extent);
        const Address address = extent.start;
        new_chain_blocks_.push_back(address);
        std::memcpy(block.data() + sizeof(MetaHeaderFormat), payload->data(), payload->size());
        const uint32_t crc = seal_meta(kind, engine_.superblock_.tag(),
                                       static_cast<uint32_t>(payload->size()), next, block);
        PF_CO_TRY(co_await engine_.disk_->write(uint64_t{address} * block_bytes, block));
        next = {address, crc};
    }
    co_return next;
}

}  // namespace pf::tray

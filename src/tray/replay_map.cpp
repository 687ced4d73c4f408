// The mount's way to a map: the bitmap of mapped blocks, or all tables if it is damaged, and the
// tables that stay in memory.
#include <fmt/format.h>

#include <algorithm>

#include "tray/replay.hpp"

namespace pf::tray {

using runtime::Task;

// Reads index and pages.
Task<Status> Replay::read_bitmap() {
    MappedBlocks& mapped = engine_.map_.mapped();
    BlockLink link = engine_.root_.bitmap;
    std::vector<BlockLink> pages;
    const MutableBytes block = data_.bytes().first(block_bytes);
    while (link.address != unmapped_address) {
        if (bitmap_blocks_.size() == mapped.index_blocks())
            co_return fail(Errc::corrupt, "index: too long");
        bitmap_blocks_.push_back(link.address);
        PF_CO_TRY(co_await engine_.disk_->read(uint64_t{link.address} * block_bytes, block));
        PF_CO_TRY_ASSIGN(const MetaBlock meta,
                         decode_meta(block, MetaKind::bitmap_index, link.crc, engine_.superblock_));
        PF_CO_TRY_ASSIGN(const auto links, decode_bitmap_index(meta.payload, engine_.superblock_));
        pages.insert(pages.end(), links.begin(), links.end());
        link = meta.next;
    }
    bitmap_index_blocks_ = bitmap_blocks_.size();
    if (bitmap_index_blocks_ != 0 && pages.size() != mapped.page_count()) {
        co_return fail(Errc::corrupt, "index: its length is not what the tray's size says");
    }
    co_return co_await read_bitmap_pages(pages);
}

Task<Status> Replay::read_bitmap_pages(const std::vector<BlockLink>& pages) {
    std::vector<uint32_t> numbers;  // of the batch
    for (uint32_t page = 0; page < pages.size();) {
        IoBatch& batch = engine_.take_batch();
        numbers.clear();
        for (; page < pages.size() && numbers.size() < tables_per_batch; ++page) {
            const Address address = pages[page].address;
            if (address == unmapped_address) continue;
            bitmap_blocks_.push_back(address);
            batch.add_part(runtime::DiskOp::Kind::read, uint64_t{address} * block_bytes);
            batch.add_memory(data_.data() + numbers.size() * block_bytes, block_bytes);
            numbers.push_back(page);
        }
        int32_t result = 0;
        if (!numbers.empty()) result = co_await run_batch(batch, *engine_.disk_);
        engine_.give_back_batch(batch);
        if (result != 0) co_return fail(from_errno(-result));
        for (size_t i = 0; i < numbers.size(); ++i) {
            const BlockLink link = pages[numbers[i]];
            PF_CO_TRY_ASSIGN(const MetaBlock meta,
                             decode_meta(data_.bytes().subspan(i * block_bytes, block_bytes),
                                         MetaKind::bitmap, link.crc, engine_.superblock_));
            PF_CO_TRY_ASSIGN(const BitmapPage* bits,
                             decode_bitmap(meta.payload, numbers[i], engine_.superblock_));
            engine_.map_.mapped().restore(numbers[i], link, *bits);
        }
    }
    co_return Status{};
}

Task<Status> Replay::load_bitmap() {
    Map& map = engine_.map_;
    if (engine_.root_.doubly_owned) co_return Status{};
    bitmap_good_ = co_await read_bitmap();
    const bool damaged = !bitmap_good_ && (bitmap_good_.error().code == Errc::corrupt ||
                                           bitmap_good_.error().code == Errc::io_error);
    if (!bitmap_good_ && !damaged) co_return std::move(bitmap_good_);
    if (bitmap_good_ && map.mapped().count() != map.user_blocks()) {
        bitmap_good_ = fail(Errc::corrupt, "it does not have as many blocks as the generations");
    }
    bitmap_checkable_ = bitmap_good_.has_value();
    co_return Status{};
}

// The right number of wrong bits would give blocks that are in use to the next writes.
void Replay::check_bitmap(const ChunkVersion& version, const Table& table) {
    if (!bitmap_checkable_ || !bitmap_good_) return;
    const Address free = engine_.map_.mapped().first_free_of(table);
    if (free == unmapped_address) return;
    const GenerationId& id = version.generation->id;
    bitmap_good_ =
        fail(Errc::corrupt, fmt::format("block {} of shard {} chunk {} generation {} is not in it",
                                        free, id.shard, version.chunk, id.snap_seq));
}

Result<bool> Replay::use_bitmap() {
    MappedBlocks& mapped = engine_.map_.mapped();
    if (engine_.root_.doubly_owned) {
        // T7: how many own a block is known from all tables only.
        mapped.reset();
        mapped.allow_sharing();
        return false;
    }
    if (bitmap_good_ && !engine_.allocator_.mark_used(mapped.words())) {
        bitmap_good_ = fail(Errc::corrupt, "a block of user data in it is metadata, too");
    }
    if (bitmap_good_) {
        for (size_t i = 0; i < bitmap_blocks_.size(); ++i) {
            PF_TRY(mark_metadata(bitmap_blocks_[i], "bitmap"));
            if (i < bitmap_index_blocks_)
                engine_.checkpointer_.chain_blocks().push_back(bitmap_blocks_[i]);
        }
        return true;
    }
    // It says nothing that the tables do not say. The old one's blocks are not kept: should this
    // mount fail half-way, the next one finds it damaged again.
    bitmap_damage_ = bitmap_good_.error().text();
    engine_.warnings_.push_back(fmt::format("{}: bitmap: {}: made again from all tables",
                                            engine_.disk_->name(), *bitmap_damage_));
    mapped.reset();
    return false;
}

Task<Status> Replay::find_owned_blocks() {
    Map& map = engine_.map_;
    map.reset_own_blocks();
    for (const auto& [id, shard] : map.shards()) {
        for (ChunkVersion* version : shard->chunks) {
            for (; version != nullptr; version = version->older) {
                while (true) {
                    ChunkVersion* missing =
                        version->table == nullptr ? version : map.missing_for_owned(*version);
                    if (missing == nullptr) break;
                    PF_CO_TRY(co_await engine_.cache_.load(*missing));
                }
                PF_CO_TRY(claim_blocks(*version));
            }
        }
    }
    co_return Status{};
}

Status Replay::claim_blocks(ChunkVersion& version) {
    int64_t owned = 0;
    for (uint32_t i = 0; i < blocks_per_chunk; ++i) {
        if (!version.owns(i)) continue;
        const Address address = version.table->entries[i].address;
        PF_TRY(take_owned(version, address));
        engine_.map_.mapped().set(address);
        ++owned;
    }
    engine_.map_.add_own_blocks(*version.generation, owned);
    return {};
}

// Reads the tables and checks them against the directory; empties the list.
Task<Status> Replay::load_batch(std::vector<ChunkVersion*>& tables) {
    if (tables.empty()) co_return Status{};
    IoBatch& batch = engine_.take_batch();
    for (size_t i = 0; i < tables.size(); ++i) {
        const Address address = tables[i]->stored.address;
        if (i > 0 && address == tables[i - 1]->stored.address + 1) {
            batch.extend_memory(block_bytes);
            continue;
        }
        batch.add_part(runtime::DiskOp::Kind::read, uint64_t{address} * block_bytes);
        batch.add_memory(data_.data() + i * block_bytes, block_bytes);
    }
    const int32_t result = co_await run_batch(batch, *engine_.disk_);
    engine_.give_back_batch(batch);
    if (result != 0) co_return fail(from_errno(-result));
    for (size_t i = 0; i < tables.size(); ++i) {
        const ChunkVersion& version = *tables[i];
        const Result<const Table*> table =
            decode_table(data_.bytes().subspan(i * block_bytes, block_bytes), version.stored.crc,
                         engine_.superblock_);
        if (!table) {
            const GenerationId id = version.generation->id;
            co_return fail(
                Errc::corrupt,
                fmt::format("{}: shard {} chunk {} generation {}: {}", engine_.disk_->name(),
                            id.shard, version.chunk, id.snap_seq, table.error().message));
        }
        check_bitmap(version, **table);
        engine_.cache_.attach(*tables[i], **table);
    }
    tables.clear();
    co_return Status{};
}

// Every table that a head sees is read now, many at a time, instead of by the first one to need it.
// In the order of their addresses: a checkpoint writes its tables one behind the other.
Task<Status> Replay::load_head_tables() {
    Map& map = engine_.map_;
    constexpr uint32_t chunks_per_turn = 4096;  // other trays serve meanwhile
    std::vector<std::pair<Address, ChunkVersion*>> tables;
    uint32_t looked_at = 0;
    for (const auto& [id, shard] : map.shards()) {
        if (shard->head == nullptr) continue;
        const size_t chunks = std::max<size_t>((shard->state.blocks - 1) / blocks_per_chunk + 1,
                                               shard->chunks.size());
        for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
            if (++looked_at % chunks_per_turn == 0) co_await runtime::yield();
            ChunkVersion* version = map.view(*shard->head, chunk);
            if (version != nullptr) tables.emplace_back(version->stored.address, version);
        }
    }
    std::ranges::sort(tables);
    // Heads of several shards may see the same one.
    const auto twice = std::ranges::unique(tables);
    tables.erase(twice.begin(), twice.end());
    std::vector<ChunkVersion*> batch;
    for (const auto& [address, version] : tables) {
        batch.push_back(version);
        if (batch.size() == tables_per_batch) PF_CO_TRY(co_await load_batch(batch));
    }
    co_return co_await load_batch(batch);
}

// What a head owns decides at once whether a write is taken when the tray is full, so it is known
// from the start.
Task<Status> Replay::load_owned_of_heads() {
    Map& map = engine_.map_;
    std::vector<ChunkVersion*> batch, waiting;
    const auto load = [&]() -> Task<Status> {
        PF_CO_TRY(co_await load_batch(batch));
        for (ChunkVersion* version : waiting) {
            const ChunkVersion* missing = map.missing_for_owned(*version);
            PF_ASSERT(missing == nullptr);
        }
        waiting.clear();
        engine_.cache_.shrink();
        co_return Status{};
    };
    for (const auto& [id, shard] : map.shards()) {
        if (shard->head == nullptr) continue;
        for (uint32_t chunk = 0; chunk < shard->chunks.size(); ++chunk) {
            ChunkVersion* version = map.own(*shard->head, chunk);
            ChunkVersion* missing = version == nullptr ? nullptr : map.missing_for_owned(*version);
            if (missing == nullptr) continue;
            batch.push_back(missing);
            waiting.push_back(version);
            if (batch.size() == tables_per_batch) PF_CO_TRY(co_await load());
        }
    }
    co_return co_await load();
}

}  // namespace pf::tray

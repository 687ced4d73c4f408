#include "tray/table_cache.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/assert.hpp"
#include "base/crc32c.hpp"
#include "base/planted.hpp"

namespace pf::tray {

using runtime::Task;

TableCache::TableCache(Map& map, runtime::Disk& disk, const Superblock& superblock,
                       uint64_t budget_bytes)
    : map_(map),
      disk_(disk),
      superblock_(superblock),
      budget_(std::max(budget_bytes / sizeof(Table), min_budget)) {}

Task<void> TableCache::start() {
    memory_ =
        co_await runtime::Reactor::current().buffers().allocate(size_t{max_loads} * block_bytes);
    const uint64_t loads = std::min<uint64_t>(max_loads, budget_ / min_budget);
    for (uint32_t room = 0; room < loads; ++room) free_rooms_.push_back(room);
}

Task<Status> TableCache::load(ChunkVersion& version) {
    PF_ASSERT(version.table == nullptr && version.stored.address != unmapped_address);
    // The version may be gone after a wait; its slot tells.
    const uint32_t page = version.page;
    const uint32_t slot = version.slot;
    const BlockLink link = version.stored;
    while (free_rooms_.empty()) co_await room_.wait();
    const uint32_t room = free_rooms_.back();
    free_rooms_.pop_back();
    const MutableBytes bytes = memory_.bytes().subspan(size_t{room} * block_bytes, block_bytes);
    ++loads_;
    Status result = co_await disk_.read(uint64_t{link.address} * block_bytes, bytes);

    ChunkVersion* now = map_.directory().at(page, slot);
    const bool wanted = now != nullptr && now->table == nullptr &&
                        now->stored.address == link.address && now->stored.crc == link.crc;
    if (!wanted) {
        result = Status{};
    } else if (result) {
        const uint32_t crc = planted("skip_crc_check_of_tables") ? crc32c(bytes) : link.crc;
        Result<const Table*> table = decode_table(bytes, crc, superblock_);
        // Free by the bitmap: it may be another's already, and freeing it again is worse.
        const Address free =
            table && checks_bitmap_ ? map_.mapped().first_free_of(**table) : unmapped_address;
        if (free != unmapped_address) {
            table =
                fail(Errc::corrupt,
                     fmt::format("table: block {} is not in the bitmap of mapped blocks", free));
        }
        if (table) {
            attach(*now, **table);
            now->loaded_at = loads_;
            shrink();
        } else {
            const GenerationId id = now->generation->id;
            result = fail(Errc::corrupt,
                          fmt::format("{}: shard {} chunk {} generation {}: {}", disk_.name(),
                                      id.shard, now->chunk, id.snap_seq, table.error().message));
        }
    }
    free_rooms_.push_back(room);
    room_.wake_one();
    co_return result;
}

void TableCache::attach(ChunkVersion& version, const Table& table) {
    if (version.table != nullptr) return;
    version.table = map_.tables().take();
    *version.table = table;
    add_if_old(version);
}

void TableCache::add_if_old(ChunkVersion& version) {
    if (version.table == nullptr || version.linked() || map_.seen_by_head(version)) return;
    old_.push_back(version);
    ++old_count_;
}

void TableCache::applied(const Generation& generation, uint32_t chunk) {
    if (map_.cloned() != nullptr) add_if_old(*map_.cloned());
    if (generation.shard->head == &generation) return;
    if (ChunkVersion* version = map_.own(generation, chunk)) add_if_old(*version);
}

void TableCache::forget(ChunkVersion& version) {
    if (!version.linked()) return;
    version.unlink();
    --old_count_;
}

void TableCache::drop(ChunkVersion& version) {
    map_.tables().give_back(version.table);
    version.table = nullptr;
}

void TableCache::shrink() {
    for (uint32_t i = 0; i < max_scanned && old_count_ > budget_; ++i) {
        ChunkVersion& version = *old_.pop_front();
        --old_count_;
        if (map_.seen_by_head(version)) continue;  // a clone or a rollback made it so
        const bool clean = map_.directory().is_clean(version) || planted("drop_changed_tables");
        // Whoever needs several tables loads one after the other: it must not lose the first by
        // the last, even when changed tables alone are over the budget.
        const bool fresh = version.loaded_at != 0 && loads_ - version.loaded_at < min_budget;
        if (clean && !fresh && !map_.needed_by_writes(version)) {
            drop(version);
            continue;
        }
        old_.push_back(version);
        ++old_count_;
    }
}

Task<void> TableCache::shrink_all() {
    const uint64_t all = old_count_;
    for (uint64_t scanned = 0; old_count_ > budget_ && scanned < all; scanned += max_scanned) {
        shrink();
        co_await runtime::yield();
    }
}

Task<void> TableCache::sweep() {
    Directory& directory = map_.directory();
    for (uint32_t page = 0; page < directory.page_count(); ++page) {
        for (uint32_t slot = 0; slot < entries_per_page; ++slot) {
            ChunkVersion* version = directory.at(page, slot);
            if (version != nullptr) add_if_old(*version);
        }
        if (page % pages_per_turn == pages_per_turn - 1) co_await runtime::yield();
    }
    co_await shrink_all();
}

}  // namespace pf::tray

// Which tables are in memory. Those that a head sees stay (2 GiB per TiB of mapped data), and so do
// changed ones until a checkpoint has written them. All others - older generations - are a cache
// with a budget (T11): loaded when they are needed, the least recently used dropped first.
//
// A load checks the table against the CRC in its directory entry. While it waits, the table may go
// away, move to another generation or be loaded by somebody else: callers look again afterwards.
//
// Thread rule: the tray's reactor. Bounded: `budget` tables and the changed ones; max_loads reads
// at a time, in memory of its own, so that a load waits for nobody who may wait for a load.
#pragma once

#include "base/list.hpp"
#include "runtime/reactor.hpp"
#include "runtime/sync.hpp"
#include "tray/map.hpp"

namespace pf::tray {

class TableCache {
  public:
    TableCache(Map& map, runtime::Disk& disk, const Superblock& superblock, uint64_t budget_bytes);

    [[nodiscard]] runtime::Task<void> start();

    // From here on, what a table refers to must be in the bitmap of mapped blocks: one that is
    // loaded later was not read when the bitmap was.
    void check_against_bitmap() { checks_bitmap_ = true; }
    // Reads a table that is not in memory. Errors: corrupt, naming the table; io_error.
    [[nodiscard]] runtime::Task<Status> load(ChunkVersion& version);
    // At mount, where tables are read in batches: `table` was checked.
    void attach(ChunkVersion& version, const Table& table);

    // A read used it.
    void touch(ChunkVersion& version) {
        if (!version.linked()) return;
        version.unlink();
        old_.push_back(version);
    }
    // After a write was applied: what it cloned may be seen by no head any more.
    void applied(const Generation& generation, uint32_t chunk);
    // Before a version goes away.
    void forget(ChunkVersion& version);

    // Drops what is over the budget, looking at max_scanned tables at most.
    void shrink();
    // The same for all, a turn for each step.
    [[nodiscard]] runtime::Task<void> shrink_all();
    // After heads changed: finds the tables that only older generations see now.
    [[nodiscard]] runtime::Task<void> sweep();

    [[nodiscard]] uint64_t old_tables() const { return old_count_; }
    [[nodiscard]] uint64_t loads() const { return loads_; }

  private:
    static constexpr uint32_t max_loads = 8;
    // So that a caller who needs two tables at once gets both: loads in flight are a quarter of the
    // budget at most.
    static constexpr uint64_t min_budget = 4;
    static constexpr uint32_t max_scanned = 64;
    static constexpr size_t pages_per_turn = 16;

    void add_if_old(ChunkVersion& version);
    void drop(ChunkVersion& version);

    Map& map_;
    runtime::Disk& disk_;
    const Superblock& superblock_;
    uint64_t budget_;         // tables
    List<ChunkVersion> old_;  // in memory and seen by no head, least recently used first
    uint64_t old_count_ = 0;
    uint64_t loads_ = 0;
    bool checks_bitmap_ = false;
    runtime::Buffer memory_;  // max_loads blocks
    std::vector<uint32_t> free_rooms_;
    runtime::WaitQueue room_;
};

}  // namespace pf::tray

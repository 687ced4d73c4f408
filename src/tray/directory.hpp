// The directory {shard, chunk, snap_seq} -> table, as it is cut into pages on the tray, and which
// of its tables and pages a checkpoint has to write.
//
// A chunk version gets a slot in a page when it is made and keeps it. A checkpoint swaps the dirty
// lists, so that everything changed afterwards belongs to the next one; a table that changes before
// the checkpoint has written it is copied first (T4: the checkpoint is of a log position).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/list.hpp"
#include "tray/format.hpp"
#include "tray/table_pool.hpp"

namespace pf::tray {

struct Generation;

// One table: the mapping of one chunk as one generation sees it. The hook is the table cache's.
struct ChunkVersion : ListHook {
    Generation* generation = nullptr;
    uint32_t chunk = 0;
    ChunkVersion* older = nullptr;  // same shard and chunk, next smaller snap_seq
    Table* table = nullptr;         // null: on the tray only, to be loaded by the table cache
    // Bit b: entry b is data that the parent's view does not refer to, so that it is free when this
    // generation lets go of it (S1). Not stored: found again by comparing tables when it is needed.
    bool owned_known = false;
    uint64_t loaded_at = 0;  // the cache's count of loads then; 0: never loaded
    std::array<uint64_t, blocks_per_chunk / 64> owned{};
    Position last;

    // What the last checkpoint wrote; an unmapped address: nothing yet.
    BlockLink stored{unmapped_address, 0};
    Position stored_last;

    uint32_t page = 0;
    uint32_t slot = 0;
    uint64_t dirty_epoch = 0;    // checkpoint that will write the table; 0: clean
    uint64_t written_epoch = 0;  // last checkpoint that wrote it
    uint64_t merged_epoch = 0;   // checkpoint that will persist a takeover of a deleted parent
    Table* frozen = nullptr;     // the table as of the checkpoint that is under way
    Position frozen_last;
    bool removed = false;  // waits in a dirty list to be destroyed

    [[nodiscard]] bool owns(uint32_t index) const {
        return (owned[index / 64] >> (index % 64) & 1) != 0;
    }
    void set_owned(uint32_t index, bool value) {
        const uint64_t mask = uint64_t{1} << (index % 64);
        owned[index / 64] = value ? owned[index / 64] | mask : owned[index / 64] & ~mask;
    }
};

struct DirectoryPage {
    BlockLink stored{unmapped_address, 0};
    uint64_t dirty_epoch = 0;
    std::vector<ChunkVersion*> slots;  // entries_per_page, null where free
    uint32_t used = 0;
};

class Directory {
  public:
    explicit Directory(TablePool& tables) : tables_(tables) {}
    ~Directory();
    Directory(const Directory&) = delete;
    Directory& operator=(const Directory&) = delete;

    // A chunk version with a slot, without a table.
    [[nodiscard]] ChunkVersion* create(Generation& generation, uint32_t chunk);
    // The same at mount: the page is known.
    [[nodiscard]] ChunkVersion* restore(Generation& generation, uint32_t chunk, uint32_t page);
    void add_restored_page(BlockLink stored);
    // Gives back the slot; destroyed now, or by the checkpoint that has it in its list. Returns the
    // address of its stored table, unmapped if it has none.
    [[nodiscard]] Address remove(ChunkVersion& version);

    // What is in a slot now, or null.
    [[nodiscard]] ChunkVersion* at(uint32_t page, uint32_t slot) const;
    // The table in memory is the one on the tray: it may be dropped.
    [[nodiscard]] bool is_clean(const ChunkVersion& version) const;

    // Before any change of a table: marks it dirty and keeps a copy for a checkpoint under way.
    void prepare_change(ChunkVersion& version);

    // --- for the checkpoint ---
    // Everything dirty becomes this checkpoint's; returns its number (epoch).
    uint64_t begin_checkpoint();
    void end_checkpoint();
    [[nodiscard]] std::vector<ChunkVersion*>& writing_tables() { return writing_tables_; }
    [[nodiscard]] std::vector<uint32_t>& writing_pages() { return writing_pages_; }
    [[nodiscard]] std::vector<DirectoryPage>& pages() { return pages_; }
    void release_frozen(ChunkVersion& version);
    void destroy(ChunkVersion* version);

    // At mount: the next checkpoint follows the durable root.
    void set_epoch(uint64_t epoch) { epoch_ = epoch; }
    [[nodiscard]] uint64_t current_epoch() const { return epoch_; }
    [[nodiscard]] size_t versions() const { return versions_; }
    [[nodiscard]] size_t page_count() const { return pages_.size(); }
    [[nodiscard]] size_t dirty_tables() const { return dirty_tables_.size(); }
    [[nodiscard]] size_t dirty_pages() const { return dirty_pages_.size(); }
    void mark_page_dirty(uint32_t page);

  private:
    void place(ChunkVersion& version, uint32_t page);

    TablePool& tables_;
    std::vector<DirectoryPage> pages_;
    std::vector<uint32_t> pages_with_room_;
    uint64_t epoch_ = 1;          // of the next checkpoint
    bool checkpointing_ = false;  // then epoch_ - 1 is being written
    std::vector<ChunkVersion*> dirty_tables_, writing_tables_;
    std::vector<uint32_t> dirty_pages_, writing_pages_;
    size_t versions_ = 0;
};

}  // namespace pf::tray

// Shards, their generations (a tree, S1) and the mapping of blocks; the same code applies a record
// when it commits and when it is replayed.
//
// A generation reads the nearest self-or-ancestor table of a chunk. Its first write to a chunk
// clones that table, never data. Only heads are written, and a head has no children; writes that
// were in flight when their generation stopped being the head also reach the descendants' tables.
//
// Tables that a head sees are in memory, others may be on the tray only (table_cache.hpp): what is
// done here needs its tables loaded, and the missing_...() functions name the next one to load.
#pragma once

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/list.hpp"
#include "tray/directory.hpp"
#include "tray/log_format.hpp"
#include "tray/mapped_blocks.hpp"
#include "tray/sessions.hpp"

namespace pf::tray {

struct Shard;

struct Generation {
    GenerationId id;
    Shard* shard = nullptr;
    Generation* parent = nullptr;
    std::vector<Generation*> children;
    bool deleted = false;        // by name; goes once it has at most one child
    bool uncollectable = false;  // a table that its deletion needs is damaged
    uint32_t writes = 0;         // in flight, not yet committed
    uint64_t own_blocks = 0;     // sum of the owned bits of its tables
};

struct ShardLink : ListHook {
    struct PendingWrite* write = nullptr;
};

struct Shard {
    ShardState state;
    bool deleted = false;          // kept until its last generation is gone
    SnapSeq highest_snap_seq = 0;  // numbers are never reused (S1)
    std::map<SnapSeq, std::unique_ptr<Generation>> generations;
    Generation* head = nullptr;
    std::vector<ChunkVersion*> chunks;  // newest version of each chunk
    Sessions sessions;
    Position last;       // highest durable here
    Position committed;  // everything logged up to here is known committed (T5)
    Position highest_committed;
    bool commit_mark_due = false;
    List<ShardLink> uncommitted;  // in the order of write()
};

// Blocks that nothing on the tray refers to any more.
struct Superseded {
    Extent extent;
    // The takeover of a deleted generation's table is not in the durable checkpoint yet: replay
    // would free these blocks a second time, so they wait for that checkpoint.
    bool after_checkpoint = false;
};

struct WriteEffect {
    Position position;
    WriteKind kind = WriteKind::data;
    uint32_t block = 0;
    uint32_t count = 0;
    std::span<const Extent> extents;
    std::span<const std::byte> crcs;  // count * 4 bytes
};

class Map {
  public:
    static constexpr uint32_t max_generations_per_shard = 4096;  // T11, refused by name

    explicit Map(const Superblock& superblock) : directory_(tables_), mapped_(superblock) {}

    // Live shards only.
    [[nodiscard]] Shard* find(ShardId id);
    [[nodiscard]] const Shard* find(ShardId id) const;
    // Deleted ones too.
    [[nodiscard]] Shard* find_any(ShardId id);
    [[nodiscard]] Generation* find_generation(GenerationId id);

    Shard& restore_shard(const ShardState& state);  // at mount: generations follow
    Shard& create_shard(const ShardState& state, Generation* parent);
    Generation& create_generation(Shard& shard, SnapSeq snap_seq, Generation* parent);
    void make_head(Shard& shard, Generation& generation);
    void mark_shard_deleted(Shard& shard);
    void mark_deleted(Generation& generation);
    // Until they are dropped.
    [[nodiscard]] const std::map<GenerationId, Generation*>& deleted() const { return deleted_; }
    // Detaches a generation without tables and with at most one child; drops its shard with it when
    // that is deleted and empty.
    void drop_generation(Generation& generation);

    // The table that `generation` itself has for a chunk, or null.
    [[nodiscard]] ChunkVersion* own(const Generation& generation, uint32_t chunk) const;
    // A hint that the table of `block` is about to be asked for.
    void prefetch_version(GenerationId id, uint32_t block);
    // The entry of a block in the generation's own table, or null: not there, or not in memory.
    [[nodiscard]] const TableEntry* peek(GenerationId id, uint32_t block);
    // Whether a write of these blocks would replace as many of its own.
    [[nodiscard]] bool owns_all(const Generation& generation, uint32_t block, uint32_t count) const;
    // The table that it reads, or null: nothing was ever written.
    [[nodiscard]] ChunkVersion* view(const Generation& generation, uint32_t chunk) const;
    void link_version(ChunkVersion& version);
    void unlink_version(ChunkVersion& version);
    // Hands a table of a generation that goes away to its only child.
    void move_version(ChunkVersion& version, Generation& to);

    // The next table to load before a write to the chunk can be applied, or null: it can. Stays
    // null while the generation counts the write in `writes`, or nothing else runs.
    [[nodiscard]] ChunkVersion* missing_for_write(Generation& generation, uint32_t chunk);
    // The next table to load before the owned bits of the version are known, or null: they are.
    [[nodiscard]] ChunkVersion* missing_for_owned(ChunkVersion& version);
    // A head of a live shard reads through this table.
    [[nodiscard]] bool seen_by_head(const ChunkVersion& version) const;
    // A write in flight may need this table when it commits.
    [[nodiscard]] bool needed_by_writes(const ChunkVersion& version) const;

    // Applies a write; what it superseded is in superseded() until the next call.
    void apply_write(Generation& generation, const WriteEffect& write, uint64_t durable_epoch);
    [[nodiscard]] const std::vector<Superseded>& superseded() const { return superseded_; }
    // The table that the last write cloned, or null.
    [[nodiscard]] ChunkVersion* cloned() const { return cloned_; }
    // True once after a head went away or moved to another branch: tables may have become old ones.
    [[nodiscard]] bool take_heads_changed() { return std::exchange(heads_changed_, false); }
    [[nodiscard]] bool heads_changed() const { return heads_changed_; }

    [[nodiscard]] Directory& directory() { return directory_; }
    [[nodiscard]] const Directory& directory() const { return directory_; }
    [[nodiscard]] TablePool& tables() { return tables_; }
    [[nodiscard]] const TablePool& tables() const { return tables_; }
    [[nodiscard]] MappedBlocks& mapped() { return mapped_; }
    [[nodiscard]] const MappedBlocks& mapped() const { return mapped_; }
    [[nodiscard]] const std::map<ShardId, std::unique_ptr<Shard>>& shards() const {
        return shards_;
    }
    [[nodiscard]] uint64_t user_blocks() const { return user_blocks_; }
    void reset_own_blocks();  // all sums to zero: they are made again
    void add_own_blocks(Generation& generation, int64_t change) {
        generation.own_blocks += static_cast<uint64_t>(change);
        user_blocks_ += static_cast<uint64_t>(change);
    }

  private:
    void find_owned(ChunkVersion& version, const ChunkVersion* inherited);
    [[nodiscard]] ChunkVersion* missing_in_descendants(Generation& generation, uint32_t chunk);
    template <class Predicate>
    [[nodiscard]] bool any_reader(const ChunkVersion& version, Predicate predicate) const;
    template <class Predicate>
    [[nodiscard]] bool any_reader_below(const Generation& generation, uint32_t chunk,
                                        Predicate predicate) const;
    ChunkVersion* writable(Generation& generation, uint32_t chunk);
    void replace_in_descendants(Generation& generation, uint32_t chunk, uint32_t index,
                                TableEntry before, TableEntry after);
    void add_superseded(Address address, bool after_checkpoint);

    TablePool tables_;
    Directory directory_;
    MappedBlocks mapped_;
    std::map<ShardId, std::unique_ptr<Shard>> shards_;
    std::map<GenerationId, Generation*> deleted_;
    Shard* last_found_ = nullptr;
    std::vector<Superseded> superseded_;
    ChunkVersion* cloned_ = nullptr;
    bool heads_changed_ = false;
    uint64_t user_blocks_ = 0;
};

}  // namespace pf::tray

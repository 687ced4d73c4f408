// Mount: reads the newest root, the state, the directory, the bitmap of mapped blocks and the
// tables that heads see, whose blocks must all be in it, then the log behind it. Tables of older
// generations stay on the tray; only if the bitmap is damaged all of them are read, to make it
// again.
//
// T2: replay follows an unbroken chain only. T6: a block that is missing from the chain although a
// later block says it was durable is corruption, not the end; T7: it costs the shards that it may
// have been about (loss.hpp). T1: what is found here becomes durable with the checkpoint that the
// mount makes before it serves.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/reactor.hpp"
#include "tray/engine.hpp"
#include "tray/log_reader.hpp"
#include "tray/loss.hpp"
#include "tray/root_reader.hpp"
#include "tray/state_format.hpp"

namespace pf::tray {

class Replay {
  public:
    static constexpr uint32_t tables_per_batch = 64;
    enum class Purpose : uint8_t { mount, inspect };  // an inspection writes nothing
    Replay(Engine& engine, Purpose purpose);

    runtime::Task<Status> run();
    [[nodiscard]] uint64_t next_sequence() const { return end_ + 1; }
    [[nodiscard]] uint32_t last_crc() const { return last_crc_; }
    // What is wrong with the bitmap that was made again, if it was.
    [[nodiscard]] const std::optional<std::string>& bitmap_damage() const { return bitmap_damage_; }
    [[nodiscard]] const Loss& loss() const { return loss_; }

  private:
    runtime::Task<Status> load_directory();
    runtime::Task<Status> load_pages(const std::vector<BlockLink>& links);
    runtime::Task<Status> load_state();
    [[nodiscard]] Status check_lineage() const;
    Status restore_state(const StateRecord& record);
    static runtime::Task<int32_t> run_batch(IoBatch& batch, runtime::Disk& disk);
    Status restore_entry(const DirectoryEntryFormat& entry, uint32_t page);
    // Reads the bitmap; what is wrong with it is in bitmap_good_. Fails if the mount has to.
    runtime::Task<Status> load_bitmap();
    runtime::Task<Status> read_bitmap();
    runtime::Task<Status> read_bitmap_pages(const std::vector<BlockLink>& pages);
    // Whether the bitmap is good; if so, the allocator knows what is in use.
    Result<bool> use_bitmap();
    void check_bitmap(const ChunkVersion& version, const Table& table);
    // Makes bitmap, allocator and sums again from the tables of all generations, whatever they are
    // (T7).
    runtime::Task<Status> find_owned_blocks();
    Status claim_blocks(ChunkVersion& version);
    Status take_owned(const ChunkVersion& version, Address address);
    runtime::Task<Status> load_head_tables();
    runtime::Task<Status> load_owned_of_heads();
    runtime::Task<Status> load_batch(std::vector<ChunkVersion*>& tables);
    Status mark_metadata(Address address, const char* what);
    runtime::Task<Status> replay_log();
    runtime::Task<Status> replay_blocks(LogReader& reader);
    runtime::Task<Status> read_and_apply(LogReader& reader, uint64_t sequence, bool confirmed);
    runtime::Task<Status> apply_block(Bytes records, bool confirmed);
    void prefetch();
    Status apply_other(const Record& record);
    [[nodiscard]] Result<Generation*> target_of(const WriteRecord& record);
    [[nodiscard]] bool is_repeated(const WriteRecord& record) const;
    [[nodiscard]] bool can_apply_now(const WriteRecord& record, bool confirmed);
    runtime::Task<Status> check_and_apply(WriteRecord record, bool confirmed);
    Status apply_write(const WriteRecord& record, bool confirmed, bool good);
    Status take_blocks(const WriteRecord& record, bool good);
    runtime::Task<Status> load_for_write(Generation& generation, uint32_t chunk);
    runtime::Task<Result<bool>> data_matches(WriteRecord record);

    Engine& engine_;
    Purpose purpose_;
    std::vector<GenerationStateRecord> generations_;
    std::optional<std::string> bitmap_damage_;
    Status bitmap_good_;                  // what the checks of it have found so far
    bool bitmap_checkable_ = false;       // it is in memory, to be held against tables
    std::vector<Address> bitmap_blocks_;  // where it lies: its index first
    size_t bitmap_index_blocks_ = 0;
    uint64_t end_ = 0;  // last log block of the chain
    uint32_t last_crc_ = 0;
    Loss loss_;
    std::vector<Record> records_;  // of the log block that is being applied
    runtime::Buffer data_;
};

}  // namespace pf::tray

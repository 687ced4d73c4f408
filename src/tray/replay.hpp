// Mount: reads the newest root, the directory, all tables and the state, then the log behind it.
//
// T2: replay follows an unbroken chain only. T6: a block that is missing from the chain although a
// later block says it was durable is corruption, not the end; T7: it costs the shards that it may
// have been about (loss.hpp). T1: what is found here becomes durable with the checkpoint that the
// mount makes before it serves.
#pragma once

#include <optional>
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
    enum class Purpose : uint8_t { mount, inspect };  // an inspection writes nothing
    Replay(Engine& engine, Purpose purpose);

    runtime::Task<Status> run();
    [[nodiscard]] uint64_t next_sequence() const { return end_ + 1; }
    [[nodiscard]] uint32_t last_crc() const { return last_crc_; }
    [[nodiscard]] const Loss& loss() const { return loss_; }

  private:
    runtime::Task<Status> load_directory();
    runtime::Task<Status> load_pages(const std::vector<BlockLink>& links);
    runtime::Task<Status> load_tables();
    runtime::Task<Status> load_state();
    Status restore_state(const StateRecord& record);
    // Rebuilds the bitmap of user data from all tables, whatever they are: T7.
    Status find_owned_blocks();
    Status take_owned(const ChunkVersion& version, Address address);
    Status mark_metadata(Address address, const char* what);
    runtime::Task<Status> replay_log();
    runtime::Task<Status> apply_block(Bytes records, bool confirmed);
    runtime::Task<Status> apply_record(const Record& record, bool confirmed);
    runtime::Task<Status> apply_write(WriteRecord record, bool confirmed);
    runtime::Task<Result<bool>> data_matches(WriteRecord record);

    Engine& engine_;
    Purpose purpose_;
    std::vector<DirectoryEntryFormat> entries_;
    std::vector<uint32_t> entry_pages_;
    std::vector<GenerationStateRecord> generations_;
    uint64_t end_ = 0;  // last log block of the chain
    uint64_t confirmed_ = 0;
    uint32_t last_crc_ = 0;
    Loss loss_;
    runtime::Buffer data_;
};

}  // namespace pf::tray

// Mount: reads the newest root, the directory, all tables and the state, then the log behind it.
//
// T2: replay follows an unbroken chain only. T6: a block that is missing from the chain although a
// later block says it was durable is corruption, not the end. T1: what is found here becomes
// durable with the checkpoint that the mount makes before it serves.
#pragma once

#include <optional>
#include <vector>

#include "runtime/reactor.hpp"
#include "tray/engine.hpp"
#include "tray/log_reader.hpp"
#include "tray/root_reader.hpp"
#include "tray/state_format.hpp"

namespace pf::tray {

class Replay {
  public:
    enum class Purpose : uint8_t { mount, inspect };  // an inspection writes nothing
    Replay(Engine& engine, Purpose purpose) : engine_(engine), purpose_(purpose) {}

    runtime::Task<Status> run();
    [[nodiscard]] uint64_t next_sequence() const { return end_ + 1; }
    [[nodiscard]] uint32_t last_crc() const { return last_crc_; }

  private:
    runtime::Task<Status> load_directory();
    runtime::Task<Status> load_pages(const std::vector<BlockLink>& links);
    runtime::Task<Status> load_tables();
    runtime::Task<Status> load_state();
    Status restore_state(const StateRecord& record);
    Status find_owned_blocks();
    Status mark_metadata(Address address, const char* what);
    runtime::Task<Status> replay_log();
    runtime::Task<Status> apply_block(Bytes records, bool confirmed);
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
    runtime::Buffer data_;
};

}  // namespace pf::tray

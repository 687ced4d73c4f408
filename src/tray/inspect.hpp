// Offline reading of a tray: superblocks, log, map, and the proof of every checksum. Nothing is
// written; a tray that was not stopped cleanly is seen as its next mount will find it.
//
// Thread rule: one reactor; the tray must not be mounted meanwhile.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/reactor.hpp"
#include "tray/format.hpp"
#include "tray/log_format.hpp"

namespace pf::tray {

class Engine;
class LogReader;
struct ChunkVersion;
class Loss;

struct Damage {
    std::string where;  // "root slot 1", "block 812 of shard 1 chunk 3 generation 2"
    std::string what;
};

struct SuperblockReport {
    Superblock superblock;
    std::vector<Root> roots;  // usable slots, older first
    std::vector<Damage> damage;
};

struct LogReport {
    uint64_t first = 0;  // sequences; last < first: the log is empty
    uint64_t last = 0;
    uint64_t confirmed = 0;
    std::vector<Damage> damage;
};
// Called for each block of the chain, in order.
using LogVisitor = std::function<void(const LogBlock& block, const std::vector<Record>& records)>;

struct GenerationReport {
    GenerationId id;
    GenerationId parent;
    bool deleted = false;
    uint64_t tables = 0;
    uint64_t own_blocks = 0;
};
struct MapReport {
    std::vector<ShardState> shards;
    std::vector<GenerationReport> generations;
    uint64_t user_blocks = 0;
    uint64_t metadata_blocks = 0;
    uint64_t free_blocks = 0;
    uint64_t bitmap_pages = 0;   // of the durable checkpoint; pages without a bit are not stored
    uint64_t bitmap_blocks = 0;  // marked in it, the log's records applied
    uint64_t replayed_records = 0;
    uint64_t dropped_records = 0;
    std::vector<Damage> damage;
};

struct VerifyReport {
    uint64_t tables = 0;
    uint64_t blocks = 0;  // of user data that were read and checked
    std::vector<Damage> damage;
};

class Inspector {
  public:
    explicit Inspector(std::unique_ptr<runtime::Disk> disk);
    ~Inspector();

    // Errors of all four: not_found (no tray here), io_error. Damage is a finding, not an error.
    [[nodiscard]] runtime::Task<Result<SuperblockReport>> superblocks();
    [[nodiscard]] runtime::Task<Result<LogReport>> log(LogVisitor visit);
    [[nodiscard]] runtime::Task<Result<MapReport>> map();
    // Both superblocks, both roots, state, directory, bitmap, tables, log, and every block of user
    // data. The bitmap and the sums of blocks are held against all tables.
    [[nodiscard]] runtime::Task<Result<VerifyReport>> verify();

  private:
    [[nodiscard]] runtime::Task<Status> read_log(LogReader& reader, const Root& root,
                                                 const LogVisitor& visit, LogReport& report);
    [[nodiscard]] runtime::Task<Status> load(std::vector<Damage>& damage);
    void add_loss(const Loss& loss, std::vector<Damage>& damage) const;
    [[nodiscard]] runtime::Task<Status> verify_tables(VerifyReport& report);
    [[nodiscard]] runtime::Task<bool> load_owned(ChunkVersion& version, VerifyReport& report);
    [[nodiscard]] runtime::Task<void> verify_blocks(const ChunkVersion& version,
                                                    MutableBytes buffer, VerifyReport& report);

    std::unique_ptr<runtime::Disk> disk_;  // until the engine has it
    Superblock superblock_;
    std::unique_ptr<Engine> engine_;
};

}  // namespace pf::tray

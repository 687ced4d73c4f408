// Random operations on a tray, mirrored in a TrayModel. Several workers run at once; like the
// store, they keep overlapping writes apart, and a generation becomes head only when the shard's
// writes are answered. Shards are deleted, and made again under the same name. Workers that share a
// session have several of its requests outstanding, some of which are voided; writes are committed
// late, as replication will; reads overlap all of it and must see what was committed before them or
// is being written.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/rng.hpp"
#include "runtime/reactor.hpp"
#include "runtime/sync.hpp"
#include "tray/tray.hpp"
#include "tray_model.hpp"

namespace pf::test {

struct WorkloadOptions {
    uint64_t seed = 1;
    uint32_t workers = 3;
    uint32_t operations = 60;  // in all
    uint32_t shards = 2;
    uint32_t shard_blocks = 3 * blocks_per_chunk;
    uint32_t max_blocks = 24;  // of a usual write; one in 16 is larger
    uint32_t checkpoint_percent = 6;
    uint32_t generation_percent = 12;
    uint32_t read_percent = 8;
    uint32_t void_percent = 3;
    uint32_t shard_percent = 0;         // a shard is deleted, or one that was is made again
    uint32_t pause_percent = 4;         // a worker does nothing for a while: idle moments
    uint32_t late_commit_percent = 10;  // of the writes
    bool lying_disk = false;            // reads may answer that the medium is corrupt
    uint32_t max_generations = 6;       // per shard
    bool fill = false;           // mostly large writes to fresh places, until the tray is full
    bool close_sessions = true;  // at the end; else its last record is an operation
    Tag first_tag = 2;           // tags from here on are free
};

class Workload {
  public:
    Workload(tray::Tray& tray, TrayModel& model, WorkloadOptions options);

    // Makes the shards if the model has none, then runs all operations. The status is the first
    // error that is not a refusal for lack of space; a failed tray ends the run with io_error.
    [[nodiscard]] runtime::Task<Status> run();
    [[nodiscard]] Tag next_tag() const { return next_tag_; }
    [[nodiscard]] uint64_t refused_for_space() const { return refused_; }

  private:
    static constexpr uint32_t workers_per_session = 2;
    static constexpr tray::ShardId first_shard = 100;

    [[nodiscard]] runtime::Task<Status> make_shard(tray::ShardId shard);
    [[nodiscard]] runtime::Task<Status> delete_shard(tray::ShardId shard);
    [[nodiscard]] runtime::Task<Status> open_sessions(tray::ShardId shard);
    [[nodiscard]] std::optional<tray::ShardId> missing_shard() const;
    [[nodiscard]] runtime::Task<void> worker(uint64_t session);
    [[nodiscard]] runtime::Task<Status> step(uint64_t session);
    [[nodiscard]] runtime::Task<Status> write(tray::ShardId shard, uint64_t session);
    [[nodiscard]] runtime::Task<Status> read(tray::ShardId shard);
    [[nodiscard]] runtime::Task<Status> void_request(tray::ShardId shard, uint64_t session);
    [[nodiscard]] runtime::Task<Status> create_generation(tray::ShardId shard);
    [[nodiscard]] runtime::Task<Status> delete_generation(tray::ShardId shard);
    [[nodiscard]] runtime::Task<Status> checkpoint();
    bool pick_range(ModelOperation& operation);
    [[nodiscard]] bool overlaps_in_flight(const ModelOperation& operation) const;
    [[nodiscard]] bool writes_in_flight(tray::ShardId shard) const;
    [[nodiscard]] bool generation_change_in_flight(tray::ShardId shard) const;
    [[nodiscard]] bool any_in_flight(tray::ShardId shard) const;
    uint64_t begin(const ModelOperation& operation);
    void end(uint64_t id, const Status& done);
    [[nodiscard]] uint64_t session_of(uint32_t worker) const;
    [[nodiscard]] tray::RequestName name_request(uint64_t session);
    void answered(const tray::RequestName& name);

    // A read in progress, and the writes that overlap it in time.
    struct Reader {
        tray::ShardId shard;
        tray::SnapSeq snap_seq;
        ModelGeneration before;
        std::vector<ModelOperation> during;
    };
    [[nodiscard]] static bool may_read(const Reader& reader, uint32_t block, uint32_t crc);

    tray::Tray& tray_;
    TrayModel& model_;
    WorkloadOptions options_;
    Rng rng_;
    Tag next_tag_;
    uint64_t next_operation_ = 1;
    uint64_t next_request_ = 1;
    uint32_t left_ = 0;
    uint64_t refused_ = 0;
    uint32_t full_until_ = 0;  // operations left when a refusal is history
    Status status_;
    runtime::WaitGroup running_;
    runtime::WaitQueue changed_;
    std::list<Reader> readers_;
    // By session: requests that the client has not taken note of, and whether they were answered.
    std::map<uint64_t, std::map<uint64_t, bool>> outstanding_;
    // Shards on which a head change waits, or that are deleted or made: no new writes start there.
    std::set<tray::ShardId> head_change_;
};

}  // namespace pf::test

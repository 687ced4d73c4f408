// The engine behind the facade of tray.hpp: owns the parts of a mounted tray and moves a write or a
// read through them. Split over engine.cpp (life, space), engine_control.cpp, engine_write.cpp and
// engine_read.cpp.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/sync.hpp"
#include "tray/allocator.hpp"
#include "tray/checkpoint.hpp"
#include "tray/data_writer.hpp"
#include "tray/held_blocks.hpp"
#include "tray/io_batch.hpp"
#include "tray/log_writer.hpp"
#include "tray/map.hpp"
#include "tray/pending_write.hpp"
#include "tray/table_cache.hpp"
#include "tray/tray.hpp"

namespace pf::tray {

class Engine final : private LogWriter::Client {
  public:
    Engine(std::unique_ptr<runtime::Disk> disk, MountOptions options, Superblock superblock);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    // Replays, makes the outcome durable (T1) and starts the background loops.
    runtime::Task<Status> mount();
    runtime::Task<Status> stop();

    Result<Reservation> reserve(ShardId shard, SnapSeq snap_seq, uint32_t block, uint32_t count,
                                WriteKind kind);
    void release_reservation(uint32_t blocks) {
        PF_ASSERT(reserved_ >= blocks);
        reserved_ -= blocks;
    }
    runtime::Task<Result<Ticket>> write(const WriteRequest& request, Reservation& reservation);
    void commit(Ticket ticket);
    runtime::Task<Status> read(const ReadRequest& request);
    runtime::Task<bool> freed_room();
    runtime::Task<Result<std::vector<BlockRun>>> block_states(GenerationId id, uint32_t block,
                                                              uint32_t count, uint32_t max_runs);

    runtime::Task<Status> create_shard(ShardState state, GenerationId parent);
    runtime::Task<std::vector<Status>> create_shards(std::vector<ShardState> states);
    runtime::Task<Status> set_shard_state(ShardState state);
    runtime::Task<Status> delete_shards(std::vector<ShardId> ids);
    runtime::Task<Status> accept_loss(ShardId shard);
    runtime::Task<Status> create_generation(GenerationId id, GenerationId parent, bool make_head);
    runtime::Task<Status> delete_generation(GenerationId id);
    runtime::Task<Status> open_session(ShardId shard, uint64_t session);
    runtime::Task<Status> close_session(ShardId shard, uint64_t session);
    runtime::Task<Status> void_request(ShardId shard, RequestName request);
    runtime::Task<Status> checkpoint();

    [[nodiscard]] Map& map() { return map_; }
    [[nodiscard]] const Map& map() const { return map_; }
    [[nodiscard]] Usage usage() const;
    [[nodiscard]] Counters counters() const;
    [[nodiscard]] const Superblock& superblock() const { return superblock_; }
    [[nodiscard]] uint64_t incarnation() const { return root_.incarnation; }
    [[nodiscard]] bool failed() const { return failed_; }
    // T7: after a loss, some blocks have several owners.
    [[nodiscard]] bool doubly_owned() const { return root_.doubly_owned; }
    [[nodiscard]] std::vector<std::string>& warnings() { return warnings_; }
    [[nodiscard]] const std::string& loss() const { return loss_; }
    [[nodiscard]] runtime::Disk& disk() { return *disk_; }
    [[nodiscard]] TableCache& cache() { return cache_; }

  private:
    friend class Checkpointer;
    friend class Collector;
    friend class Replay;
    struct ControlItem;

    // A write may dirty a table and its directory page: room for both comes with its reservation.
    static constexpr uint32_t metadata_per_write = 2;
    // Bounds of the records of a checkpoint's state.
    static constexpr uint64_t shard_state_bytes = 128;
    static constexpr uint64_t generation_state_bytes = 40;
    static constexpr uint64_t session_state_bytes = 288;
    static constexpr uint64_t state_block_bytes = meta_payload_bytes - session_state_bytes;

    // One control call at a time: decides under the lock what to log, if anything, and logs it.
    template <class Decide>
    runtime::Task<Status> control(const Decide& decide);
    template <class Decide>
    runtime::Task<Status> decide_and_log(const Decide& decide);
    runtime::Task<Status> log_control(Record record);
    // Their records share log blocks and flushes; applied in their order.
    runtime::Task<std::vector<Status>> log_together(std::vector<Record> records);
    static constexpr size_t records_together = 64;
    // Of a control call, for checkpoints that give room back.
    static constexpr uint32_t max_waits_for_room = 3;
    [[nodiscard]] Result<Record> record_of_new_shard(const ShardState& state, GenerationId parent);
    [[nodiscard]] Status check_new_generation(GenerationId id, GenerationId parent,
                                              bool make_head) const;
    [[nodiscard]] Status check_range(const Shard& shard, uint32_t block, uint32_t count) const;

    // Space (T8). metadata_need(): blocks for one whole checkpoint of what is dirty now.
    [[nodiscard]] uint64_t metadata_need() const;
    // For a checkpoint of everything.
    [[nodiscard]] uint64_t metadata_of_all() const;
    [[nodiscard]] bool has_room(uint64_t blocks, uint64_t kept) const;
    [[nodiscard]] uint64_t slack_blocks() const;
    // Who may go how far into the slack is a matter of what stays of it for the others.
    [[nodiscard]] uint64_t kept_from(const Shard& shard, uint32_t block, uint32_t count,
                                     WriteKind kind) const;
    [[nodiscard]] uint64_t kept_from(const Record& record) const;
    // Whether the record's growth of the state may be taken, `state_bytes` of others' with it.
    [[nodiscard]] bool has_room_to_grow(const Record& record, uint64_t state_bytes = 0);
    // A shard of this name went, and the log says so behind a checkpoint that is not durable yet: a
    // replay would find the old one still there.
    [[nodiscard]] bool name_is_leaving(ShardId id);
    runtime::Task<void> wait_for_name(ShardId id);
    // Free now, not just soon: a crash must find room for a whole checkpoint (T8).
    [[nodiscard]] bool has_free_blocks(uint64_t blocks) const;
    runtime::Task<void> more_free_blocks();
    // Of the state that the next checkpoint writes; what only grew since the last one is added up.
    [[nodiscard]] uint64_t state_blocks() const;
    // The blocks that `bytes` more would add to it.
    [[nodiscard]] uint64_t state_growth_blocks(uint64_t bytes) const;
    void measure_state();
    // False: it would say the same.
    bool measure_again();
    [[nodiscard]] static uint64_t growth_of(const Record& record);
    // T11: directory entries are in memory, so their number has a limit.
    [[nodiscard]] uint64_t max_tables() const;
    [[nodiscard]] bool makes_table(const Shard& shard, uint32_t block, WriteKind kind) const;
    // Counted as an operation, so that stop() waits for it.
    runtime::Task<Status> load(ChunkVersion& version);
    void release_held();
    [[nodiscard]] bool trims() const { return options_.discard && disk_->can_discard(); }
    void give_back(Extent extent);
    runtime::Task<void> run_trimmer();
    runtime::Task<void> trim(Extent extent);
    void end_trim(Extent extent);

    static void data_written(PendingWrite& write, int32_t result);
    static void write_completed(LogItem& item, bool ok);
    void release_write(PendingWrite& write);
    void end_operation() {
        if (--operations_ == 0) advanced_.wake_all();  // stop() waits for it
    }
    PendingWrite& take_write();
    IoBatch& take_batch();
    void give_back_batch(IoBatch& batch) { free_batches_.push_back(&batch); }
    [[nodiscard]] Status verify(MutableBytes data, std::span<const uint32_t> crcs);

    uint32_t append_commit_marks(MutableBytes room) override;
    void log_advanced() override;
    void log_failed() override;
    void log_grew() override;

    std::unique_ptr<runtime::Disk> disk_;
    MountOptions options_;
    Superblock superblock_;
    Root root_;  // the durable one
    Map map_;
    TableCache cache_;
    Allocator allocator_;
    HeldBlocks held_;
    LogWriter log_;
    DataWriter data_writer_;
    Checkpointer checkpointer_;
    Collector collector_;
    std::vector<std::string> warnings_;
    std::string loss_;
    Counters counters_;

    bool failed_ = false;
    bool stopping_ = false;
    uint32_t loops_ = 0;
    uint64_t reserved_ = 0;
    uint64_t blocks_in_flight_ = 0;  // allocated by write(), not yet committed
    uint64_t metadata_blocks_ = 0;
    uint64_t state_bytes_ = 0;       // estimate for the next checkpoint
    uint64_t growing_bytes_ = 0;     // of control records that are being logged
    bool state_shrank_ = false;      // since it was measured
    uint64_t rooms_given_back_ = 0;  // checkpoints whose freed blocks may be used
    // By the checkpoint without them. Erased when that is durable.
    std::map<ShardId, uint64_t> dropped_shards_;
    uint64_t operations_ = 0;          // calls under way
    uint64_t metadata_in_flight_ = 0;  // room of writes between write() and commit()

    runtime::Mutex control_;       // one control record at a time
    runtime::Mutex maintenance_;   // a checkpoint or a step of the collector
    runtime::WaitQueue advanced_;  // a watermark moved, space came back, or the tray failed
    std::vector<ShardId> marks_due_;

    static constexpr size_t max_trims_waiting = 1024;
    std::vector<Extent> trim_queue_;
    uint64_t trimming_blocks_ = 0;
    runtime::WaitQueue trim_wake_;

    std::vector<std::unique_ptr<PendingWrite>> writes_;
    std::vector<PendingWrite*> free_writes_;
    std::vector<std::unique_ptr<IoBatch>> batches_;
    std::vector<IoBatch*> free_batches_;
};

// Applies a control record, live and at replay. corrupt: it does not fit what is there.
[[nodiscard]] Status apply_control(Map& map, const Record& record);

}  // namespace pf::tray

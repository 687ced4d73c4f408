// Checkpoints and the collector of deleted generations: the two that change what the directory on
// the tray refers to. They exclude each other.
//
// T4: a checkpoint is of a log position L: it holds exactly the records before L. The gate of the
// log holds back the completion of later records until all earlier ones are durable and what is
// dirty was taken over; tables that change afterwards are copied first. Order: tables, directory,
// bitmap, state; flush; root; flush; a log block that names the root; only then are the old
// checkpoint's blocks and the log space before L free.
//
// All blocks that a checkpoint writes are allocated at its cut. A block that is superseded after
// the cut becomes free (T3) while the checkpoint's tables still name it: data may take it, because
// the replay first frees it again, but the checkpoint itself must not.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "runtime/reactor.hpp"
#include "runtime/sync.hpp"
#include "tray/log_writer.hpp"
#include "tray/map.hpp"

namespace pf::tray {

class Engine;

class Checkpointer {
  public:
    explicit Checkpointer(Engine& engine) : engine_(engine) {}

    // Writes one now. `paced`: leave the device to the foreground between batches.
    // Once the tray is stopping: cancelled.
    runtime::Task<Status> run(bool paced);
    runtime::Task<Status> run_last();  // the one that stop() makes
    // The first of a mount: no log is running; its root has the new incarnation.
    runtime::Task<Status> run_at_mount(uint64_t log_start, uint32_t log_previous);
    void request();  // in the background
    runtime::Task<void> run_loop();
    void wake() { wake_.wake_all(); }

    [[nodiscard]] std::vector<Address>& chain_blocks() { return chain_blocks_; }
    [[nodiscard]] uint64_t completed() const { return completed_; }
    // Time spent in checkpoints after the mount, the one under way included.
    [[nodiscard]] runtime::Nanos busy() const;

  private:
    // A record that was not known committed at the cut, on its way to the head of the log (T5).
    struct LoggedAgain : LogItem {
        std::vector<std::byte> encoded;
        Checkpointer* checkpointer = nullptr;
        bool finished = false;
    };
    static constexpr uint32_t batch_tables = 32;

    runtime::Task<Status> run_locked(bool paced);
    runtime::Task<Status> run_timed(bool paced);
    runtime::Task<Status> write_all(bool paced, Root root);
    [[nodiscard]] bool begin();
    void take_room(uint64_t blocks);
    void give_back_room();
    uint32_t allocate(uint32_t blocks, Extent* to);
    void encode_state();
    void log_uncommitted_again(uint64_t before);
    runtime::Task<Status> write_tables(bool paced);
    runtime::Task<Status> write_pages(bool paced);
    runtime::Task<Status> write_bitmap(bool paced);
    runtime::Task<Result<BlockLink>> write_bitmap_index();
    runtime::Task<Result<BlockLink>> write_chain(MetaKind kind,
                                                 std::vector<std::vector<std::byte>> payloads);
    template <class Fill>
    runtime::Task<Status> write_batch(uint32_t count, bool paced, const Fill& fill);
    runtime::Task<Status> write_extents(uint32_t blocks, bool paced);
    void replace(BlockLink& stored, BlockLink by);
    runtime::Task<Status> wait_logged_again();

    Engine& engine_;
    runtime::Buffer buffer_;  // batch_tables blocks: the batch, and where it goes
    std::array<Extent, batch_tables> extents_{};
    uint64_t epoch_ = 0;
    uint64_t completed_ = 0;
    runtime::Nanos busy_ = 0;
    runtime::Nanos running_since_ = 0;
    runtime::Reactor* running_on_ = nullptr;  // while a checkpoint is under way
    bool requested_ = false;
    std::vector<std::vector<std::byte>> state_;
    std::vector<Address> chain_blocks_;  // indexes and state of the durable checkpoint
    std::vector<Address> new_chain_blocks_;
    std::vector<Extent> room_;  // of this checkpoint, not used yet: from next_room_ on
    size_t next_room_ = 0;
    std::vector<std::unique_ptr<LoggedAgain>> logged_again_;
    runtime::WaitQueue wake_;
};

// Frees what deleted generations alone refer to (S1), in the background, a few chunks at a time.
class Collector {
  public:
    explicit Collector(Engine& engine) : engine_(engine) {}
    void kick();
    runtime::Task<void> run_loop();
    void wake() { wake_.wake_all(); }
    [[nodiscard]] bool idle() const { return !kicked_ && !working_; }

  private:
    static constexpr uint32_t chunks_per_step = 64;
    static constexpr size_t max_extents_held = 65536;

    [[nodiscard]] Generation* next();
    runtime::Task<Status> collect(Generation& generation);
    // Goes on from `chunk`; returns the table that the next one needs in memory, or null.
    ChunkVersion* collect_step(Generation& generation, uint32_t& chunk, uint32_t chunks);
    void drop(Generation& generation);
    void give_up(Generation& generation, const Error& error);
    void collect_chunk(ChunkVersion& version, Generation* child);
    void remove(ChunkVersion& version);

    Engine& engine_;
    bool kicked_ = false;
    bool working_ = false;
    runtime::WaitQueue wake_;
};

}  // namespace pf::tray

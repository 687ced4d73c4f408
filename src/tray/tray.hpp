// A tray: one disk, disk slice or file, formatted by us; the log-committed, redirect-on-write
// engine.
//
// Durability: write() completes when data, record and every earlier log block are durable. The
// record is *not* visible to reads until commit(); after a restart, records that were durable are
// visible (a lone replica commits at once; replication decides otherwise during gather, R2).
//
// Order: overlapping writes must not be in flight together: the caller holds the block range from
// reserve() to commit(). Commits of one block are applied in log order.
//
// Failure: a failed write or flush fails the whole tray. Every later call answers io_error; nothing
// is ever retried into success (DESIGN section 4). A checksum mismatch on read is `corrupt` and
// leaves the tray working.
//
// Thread rule: one reactor. Bounded: writes in flight by the caller's depth; memory by the map of
// what heads see (2 GiB per TiB), MountOptions::cache_bytes, and about 250 bytes for each table of
// any generation.
#pragma once

#include <memory>
#include <string>

#include "runtime/reactor.hpp"
#include "tray/types.hpp"

namespace pf::tray {

class Engine;  // the implementation, private to this folder
struct PendingWrite;

// Room that a write will need, taken before it is numbered so that it cannot fail for lack of space
// (R9). Gives back what was not used when it is destroyed.
class Reservation {
  public:
    Reservation() = default;
    Reservation(Engine* engine, uint32_t blocks) : engine_(engine), blocks_(blocks) {}
    Reservation(Reservation&& other) noexcept;
    Reservation& operator=(Reservation&& other) noexcept;
    ~Reservation();
    [[nodiscard]] uint32_t blocks() const { return blocks_; }

  private:
    friend class Engine;
    Engine* engine_ = nullptr;
    uint32_t blocks_ = 0;
};

// A durable write that waits for commit(). Dropping a ticket without commit leaves the write
// durable and invisible until the next mount: only a failing tray or a stopping store may do that.
class Ticket {
  public:
    Ticket() = default;
    explicit Ticket(PendingWrite* pending) : pending_(pending) {}
    [[nodiscard]] PendingWrite* pending() const { return pending_; }

  private:
    PendingWrite* pending_ = nullptr;
};

class Tray {
  public:
    // Writes both superblocks, an empty log and an empty root. Refuses, without `force`, a disk
    // that holds a tray (already_exists) or anything else (busy; blank_check.hpp says where it
    // looks), and one that is too small (invalid_argument, naming the minimum).
    [[nodiscard]] static runtime::Task<Status> format(runtime::Disk& disk, FormatOptions options);

    // Recovers and opens for use (T1, T4, T6). A damaged superblock copy is used around and
    // reported in `warnings()`; log blocks that were durable and are gone in `loss()`, and the
    // shards that may have lost writes are `damaged` from then on (T7). Errors: not_found (none),
    // conflict (other cluster), corrupt (both superblocks, the root, state, directory or a table),
    // unsupported_version (named).
    [[nodiscard]] static runtime::Task<Result<std::unique_ptr<Tray>>> mount(
        std::unique_ptr<runtime::Disk> disk, MountOptions options);
    ~Tray();

    // Waits for writes in flight, checkpoints and ends background work. Call before destroying,
    // unless the process is dying.
    [[nodiscard]] runtime::Task<Status> stop();

    // --- data path ---

    // Errors: not_found (shard), out_of_range, stale generation (invalid_argument), no_space,
    // resource_exhausted (directory entries, T11), data_lost (a damaged shard), io_error.
    [[nodiscard]] Result<Reservation> reserve(ShardId shard, SnapSeq snap_seq, uint32_t block,
                                              uint32_t count, WriteKind kind);
    // After no_space: waits until some of what was deleted is usable, at most for one checkpoint.
    // False: nothing is on its way. Ask a few times at most: others may be quicker to take it.
    [[nodiscard]] runtime::Task<bool> freed_room();
    // `reservation` is what reserve() gave for the same range. Fails only if the tray fails, or
    // with `corrupt` if the older table that the write would clone is damaged: then nothing was
    // written. The request object and what it points to stay valid until this completes.
    [[nodiscard]] runtime::Task<Result<Ticket>> write(const WriteRequest& request,
                                                      Reservation& reservation);
    // Makes the write visible and frees what it replaced (T3).
    void commit(Ticket ticket);

    // Verified data of a generation: nearest self-or-ancestor table (S1). Holds its blocks while
    // reading. Errors: not_found, out_of_range, corrupt (a block or the table), data_lost,
    // io_error.
    [[nodiscard]] runtime::Task<Status> read(const ReadRequest& request);
    // Which blocks of [block, block + count) are holes, zeros or data; runs are merged. count <=
    // 2^24. It ends early, after whole runs, where there would be more than `max_runs` of them.
    [[nodiscard]] runtime::Task<Result<std::vector<BlockRun>>> block_states(
        GenerationId generation, uint32_t block, uint32_t count, uint32_t max_runs = UINT32_MAX);

    // --- shards and their state (durable on completion) ---
    // What makes the state larger is refused (no_space) if the next checkpoint would not have room.

    [[nodiscard]] runtime::Task<Status> create_shard(ShardState state, GenerationId parent = {});
    // Several, with a flush for dozens of them. What became of each, in their order.
    [[nodiscard]] runtime::Task<std::vector<Status>> create_shards(std::vector<ShardState> states);
    // Epoch, writer token, size (grow only). Refuses an older epoch (stale_epoch).
    [[nodiscard]] runtime::Task<Status> set_shard_state(ShardState state);
    // Blocks are freed in the background; the shard is gone at once and stays gone after a crash.
    [[nodiscard]] runtime::Task<Status> delete_shard(ShardId shard);
    // The same for several, with a flush for dozens of them. Those that are not there are done.
    // After an error some may be gone.
    [[nodiscard]] runtime::Task<Status> delete_shards(std::vector<ShardId> shards);
    // T7: a damaged shard serves what is left of it from now on. Nothing to do for one that is not
    // damaged.
    [[nodiscard]] runtime::Task<Status> accept_loss(ShardId shard);
    [[nodiscard]] Result<ShardState> shard_state(ShardId shard) const;
    [[nodiscard]] std::vector<ShardState> shards() const;
    // Highest position durable here.
    [[nodiscard]] Position last_position(ShardId shard) const;

    // --- generations (S1) ---

    // A new generation whose parent is any existing one. If `make_head`, writes go to it from now
    // on.
    [[nodiscard]] runtime::Task<Status> create_generation(GenerationId id, GenerationId parent,
                                                          bool make_head);
    // Frees what neither the parent nor the only child sees. busy: it is a head.
    [[nodiscard]] runtime::Task<Status> delete_generation(GenerationId id);
    [[nodiscard]] std::vector<GenerationInfo> generations(ShardId shard) const;

    // --- sessions and request names (R8, R10) ---

    static constexpr uint32_t max_sessions_per_shard = 64;
    static constexpr uint32_t max_requests_per_session = 1024;  // applied ids kept; the depth limit
    [[nodiscard]] runtime::Task<Status> open_session(ShardId shard, uint64_t session);
    // Forgets the session; its later writes are refused as unknown.
    [[nodiscard]] runtime::Task<Status> close_session(ShardId shard, uint64_t session);
    // In the order they were opened.
    [[nodiscard]] std::vector<uint64_t> sessions(ShardId shard) const;
    [[nodiscard]] RequestState request_state(ShardId shard, const RequestName& request) const;
    // Records that a request was not applied and never will be (R10).
    [[nodiscard]] runtime::Task<Status> void_request(ShardId shard, RequestName request);

    // --- housekeeping ---

    [[nodiscard]] runtime::Task<Status> checkpoint();  // now, instead of when paced
    [[nodiscard]] Usage usage() const;
    [[nodiscard]] Counters counters() const;
    [[nodiscard]] Uuid id() const;
    [[nodiscard]] uint64_t incarnation() const;  // grows with every mount (R16)
    [[nodiscard]] bool failed() const;
    [[nodiscard]] const std::vector<std::string>& warnings() const;
    // T7: what this mount found gone from the log; empty if nothing was.
    [[nodiscard]] const std::string& loss() const;
    [[nodiscard]] const std::string& disk_name() const;
    [[nodiscard]] bool volatile_cache() const;  // the disk's, as detected or as the operator said

  private:
    explicit Tray(std::unique_ptr<Engine> engine);
    std::unique_ptr<Engine> engine_;
};

}  // namespace pf::tray

// The words of the tray's interface. The tray knows nothing of clusters: a shard is a 64-bit name,
// a session is a number, an epoch orders records.
#pragma once

#include <sys/uio.h>

#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/units.hpp"
#include "base/uuid.hpp"

namespace pf::tray {

using ShardId = uint64_t;  // opaque and never reused; 0 is not a shard
using SnapSeq = uint32_t;  // generation number within a shard, never reused; 0 means "none"

// Order of a shard's records (R2): the epoch that numbered a record, then the sequence in it.
struct Position {
    uint32_t epoch = 0;
    uint64_t sequence = 0;
    auto operator<=>(const Position&) const = default;
};

// A generation anywhere on the tray (S1: a clone's first generation has a parent in another shard).
struct GenerationId {
    ShardId shard = 0;
    SnapSeq snap_seq = 0;
    auto operator<=>(const GenerationId&) const = default;
};

// The name of a client request (R8). Requests of a session are numbered from 1; everything below
// `lowest_outstanding` has been answered to the client and is forgotten here.
struct RequestName {
    uint64_t session = 0;  // 0: internal work without a name
    uint64_t request = 0;
    uint64_t lowest_outstanding = 0;
};

enum class WriteKind : uint8_t {
    data,   // bytes with their CRCs
    zero,   // reads as zeros, counts as written
    unmap,  // reads as zeros, is a hole
};

// One atomic write: a contiguous range of blocks inside one chunk. All memory stays valid and
// unchanged until write() completes.
struct WriteRequest {
    ShardId shard = 0;
    SnapSeq snap_seq = 0;  // the head generation it belongs to
    Position position;
    RequestName request;
    WriteKind kind = WriteKind::data;
    uint32_t block = 0;              // first block within the shard
    uint32_t count = 0;              // 1..max_write_blocks, for zero and unmap 1..512
    std::span<const iovec> data;     // data only: 4 KiB-aligned pieces, count * 4096 bytes in all
    std::span<const uint32_t> crcs;  // data only: CRC32C of each block, already verified
};

// 1 MiB that starts and ends inside a block touches 257 blocks.
inline constexpr uint32_t max_write_blocks = 257;

struct ReadRequest {
    ShardId shard = 0;
    SnapSeq snap_seq = 0;  // any generation of the shard
    uint32_t block = 0;
    uint32_t count = 0;        // 1..512, inside one chunk
    MutableBytes to;           // 4 KiB-aligned, count * 4096 bytes
    std::span<uint32_t> crcs;  // out: count values
};

enum class BlockState : uint8_t { hole, zero, data };
struct BlockRun {
    uint32_t count = 0;
    BlockState state = BlockState::hole;
};

// What a replica must remember of its shard besides data; durable, opaque to the tray but for
// `snap_seq` bookkeeping. Replaced as a whole by set_shard_state().
struct ShardState {
    ShardId shard = 0;
    Uuid replica;               // new for every placement (R16)
    uint32_t blocks = 0;        // size of the shard: up to 2^24 (64 GiB)
    uint32_t epoch = 0;         // highest epoch this replica has answered in (R1)
    uint64_t writer_token = 0;  // R11
    SnapSeq snap_seq = 0;       // the head generation
    // T7: it may have lost writes; no I/O until accept_loss(). Set by the mount that found the
    // loss, or at creation; set_shard_state() leaves it as it is.
    bool damaged = false;
};

// Answer to "was this request applied?" (R8).
enum class RequestState : uint8_t { unknown_session, not_applied, applied, voided };

struct GenerationInfo {
    GenerationId id;
    GenerationId parent;      // {0, 0} for a root
    bool nameless = false;    // deleted while it had two or more children (S1)
    uint64_t own_blocks = 0;  // blocks that only this generation's tables refer to first
};

struct Usage {
    uint64_t capacity_blocks = 0;  // data area
    uint64_t free_blocks = 0;      // allocatable now
    uint64_t user_blocks = 0;      // mapped by any generation of any shard
    uint64_t metadata_blocks = 0;  // tables, directory, bitmap, state
    uint64_t held_blocks = 0;      // superseded, waiting for T3's conditions
    uint64_t reserve_blocks = 0;   // kept back for checkpoints and deletion (T8)
    uint64_t tables = 0;           // directory entries, of all generations
    uint64_t resident_tables = 0;  // in memory, copies for a checkpoint under way included
    uint64_t old_tables = 0;       // of these, seen by no head: what the cache budget is for
    uint64_t log_bytes = 0;
    uint64_t log_used_bytes = 0;
};

struct Counters {
    uint64_t writes = 0, reads = 0, blocks_written = 0, blocks_read = 0;
    uint64_t log_blocks = 0, table_blocks = 0, flushes = 0, checkpoints = 0, discards = 0;
    uint64_t checksum_errors = 0, replayed_records = 0, dropped_records = 0;
    uint64_t table_loads = 0;    // of tables that were not in memory
    uint64_t checkpoint_ns = 0;  // time with a checkpoint under way, until now
};

struct FormatOptions {
    Uuid cluster;
    Uuid tray;
    uint64_t log_bytes = 0;  // 0: sized with the tray (T11)
    bool force = false;      // format over a tray, or over anything that is not blank
};

struct MountOptions {
    Uuid cluster;                               // a tray of another cluster is refused
    uint64_t cache_bytes = uint64_t{64} << 20;  // tables that no head sees
    uint64_t max_tables = 0;                    // directory entries; 0: sized with the tray (T11)
    bool discard = false;                       // trim freed blocks on the device
};

}  // namespace pf::tray

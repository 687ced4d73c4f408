// Log blocks and the records in them (docs/formats/tray.md). A record never spans blocks and a log
// block is written once, padded (T2).
#pragma once

#include <cstdint>
#include <span>
#include <variant>

#include "tray/format.hpp"

namespace pf::tray {

#pragma pack(push, 1)

struct LogHeaderFormat {
    uint32_t magic;
    uint16_t version;
    uint16_t used_bytes;    // of records, after the header
    uint32_t crc;           // of the whole block with this field zero
    uint32_t previous_crc;  // the predecessor's crc: the chain (T2)
    uint32_t tray_tag;
    uint32_t reserved0;
    uint64_t incarnation;
    uint64_t sequence;         // slot in the ring = sequence % log_blocks
    uint64_t log_durable;      // every log block up to here was durable when this was built
    uint64_t data_confirmed;   // and the data of all records up to here (T6)
    uint64_t root_number;      // the durable root when this was built (T9)
    uint64_t previous_shards;  // ShardFilter of the predecessor's records (T7)
};
static_assert(sizeof(LogHeaderFormat) == 72);
inline constexpr uint32_t log_payload_bytes = block_bytes - sizeof(LogHeaderFormat);

enum class RecordType : uint8_t {
    write = 1,
    commit = 2,  // records of a shard up to a position are known committed (T5)
    create_shard = 3,
    set_shard = 4,
    delete_shard = 5,
    create_generation = 6,
    delete_generation = 7,
    open_session = 8,
    close_session = 9,
    void_request = 10,
    accept_loss = 11,  // of a damaged shard (T7)
};

struct RecordHeaderFormat {
    uint8_t type;
    uint8_t
        kind;  // WriteKind of a write; 1: make_head of create_generation, damaged of create_shard
    uint16_t bytes;  // whole record, a multiple of 4
};

struct WriteRecordFormat {
    RecordHeaderFormat header;
    uint16_t count;
    uint16_t extent_count;  // data only; extents follow, then count CRCs
    uint64_t shard;
    uint32_t snap_seq;
    uint32_t block;
    uint64_t sequence;
    uint32_t epoch;
    uint32_t flags;  // 1: logged again at the head (T5)
    uint64_t session;
    uint64_t request;
    uint64_t lowest_outstanding;
};
static_assert(sizeof(WriteRecordFormat) == 64);

struct ExtentFormat {
    uint32_t start;
    uint32_t count;
};
static_assert(sizeof(ExtentFormat) == 8);

struct CommitRecordFormat {
    RecordHeaderFormat header;
    uint32_t epoch;
    uint64_t shard;
    uint64_t sequence;
};
static_assert(sizeof(CommitRecordFormat) == 24);

// create_shard, set_shard; delete_shard and accept_loss, of which only `shard` counts.
struct ShardRecordFormat {
    RecordHeaderFormat header;
    uint32_t blocks;
    uint64_t shard;
    std::array<uint8_t, 16> replica;
    uint64_t writer_token;
    uint32_t epoch;
    uint32_t snap_seq;
    uint64_t parent_shard;
    uint32_t parent_snap_seq;
    uint32_t reserved;
};
static_assert(sizeof(ShardRecordFormat) == 64);

struct GenerationRecordFormat {
    RecordHeaderFormat header;
    uint32_t snap_seq;
    uint64_t shard;
    uint64_t parent_shard;
    uint32_t parent_snap_seq;
    uint32_t reserved;
};
static_assert(sizeof(GenerationRecordFormat) == 32);

struct SessionRecordFormat {  // open_session, close_session, void_request
    RecordHeaderFormat header;
    uint32_t reserved;
    uint64_t shard;
    uint64_t session;
    uint64_t request;
    uint64_t lowest_outstanding;
};
static_assert(sizeof(SessionRecordFormat) == 40);

#pragma pack(pop)

inline constexpr uint32_t max_write_record_bytes =
    sizeof(WriteRecordFormat) + max_write_blocks * (sizeof(ExtentFormat) + sizeof(uint32_t));
static_assert(max_write_record_bytes <= log_payload_bytes, "a record fits in one block (T2)");

using Extent = ExtentFormat;

// The shards that the records of a log block are about, or more, in 63 bits: when a block is lost,
// its successor still tells which shards lost nothing (T7). Commit marks do not count: without one,
// a record is only not known committed.
class ShardFilter {
  public:
    // The top bit says that the rest was filled in: zeros from before this field mean "unknown".
    explicit ShardFilter(uint64_t bits = known)
        : bits_((bits & known) != 0 ? bits : ~uint64_t{0}) {}
    [[nodiscard]] static ShardFilter everything() { return ShardFilter(0); }
    [[nodiscard]] static ShardFilter of(Bytes records);  // as a log block holds them

    void add(ShardId shard) { bits_ |= bit_of(shard); }
    [[nodiscard]] bool may_hold(ShardId shard) const { return (bits_ & bit_of(shard)) != 0; }
    [[nodiscard]] uint64_t bits() const { return bits_; }

  private:
    static constexpr uint64_t known = uint64_t{1} << 63;
    [[nodiscard]] static uint64_t bit_of(ShardId shard) {
        constexpr uint64_t multiplier = 0x9e3779b97f4a7c15;
        return uint64_t{1} << (shard * multiplier >> 32) % 63;
    }
    uint64_t bits_;
};

struct LogHeader {
    uint32_t crc = 0;
    uint32_t previous_crc = 0;
    uint64_t incarnation = 0;
    uint64_t sequence = 0;
    uint64_t log_durable = 0;
    uint64_t data_confirmed = 0;
    uint64_t root_number = 0;
    ShardFilter previous_shards;
};

struct LogBlock {
    LogHeader header;
    Bytes records;
};

// Fills in the header of a block whose records are in place and pads it; returns its CRC.
uint32_t seal_log_block(LogHeader header, uint32_t tag, uint32_t used_bytes, MutableBytes block);
[[nodiscard]] Result<LogBlock> decode_log_block(Bytes block, const Superblock& superblock);

struct WriteRecord {
    ShardId shard = 0;
    SnapSeq snap_seq = 0;
    Position position;
    RequestName request;
    WriteKind kind = WriteKind::data;
    uint32_t block = 0;
    uint32_t count = 0;
    bool logged_again = false;
    std::span<const Extent> extents;  // unaligned memory is fine: packed structs
    std::span<const std::byte> crcs;  // count * 4 bytes
    [[nodiscard]] uint32_t crc(uint32_t index) const {
        return load<uint32_t>(crcs, size_t{index} * sizeof(uint32_t));
    }
};
struct CommitRecord {
    ShardId shard = 0;
    Position position;
};
struct ShardRecord {
    RecordType type = RecordType::create_shard;
    ShardState state;
    GenerationId parent;
};
struct GenerationRecord {
    RecordType type = RecordType::create_generation;
    GenerationId id;
    GenerationId parent;
    bool make_head = false;
};
struct SessionRecord {
    RecordType type = RecordType::open_session;
    ShardId shard = 0;
    RequestName request;
};
using Record =
    std::variant<WriteRecord, CommitRecord, ShardRecord, GenerationRecord, SessionRecord>;

[[nodiscard]] constexpr uint32_t write_record_bytes(size_t extents, size_t crcs) {
    return static_cast<uint32_t>(sizeof(WriteRecordFormat) + extents * sizeof(Extent) +
                                 crcs * sizeof(uint32_t));
}
// Each returns the bytes written.
uint32_t encode_record(const WriteRecord& record, MutableBytes to);
uint32_t encode_record(const CommitRecord& record, MutableBytes to);
uint32_t encode_record(const ShardRecord& record, MutableBytes to);
uint32_t encode_record(const GenerationRecord& record, MutableBytes to);
uint32_t encode_record(const SessionRecord& record, MutableBytes to);

// Takes the next record off `records`.
[[nodiscard]] Result<Record> take_record(Bytes& records, const Superblock& superblock);

}  // namespace pf::tray

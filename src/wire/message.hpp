// The data path's messages, byte by byte in docs/formats/wire.md. Little-endian; every header is 64
// bytes with a CRC32C of its first 60 in the last 4. A payload is a table of CRC32C values, one for
// each 4 KiB block that the data touches (a first or last piece may be shorter), followed by the
// data.
//
// Decoders take bytes, check everything that can be checked without context, and name the field
// they refuse. Limits are checked here, before anyone takes memory for a payload.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "base/units.hpp"

namespace pf::wire {

inline constexpr size_t header_bytes = 64;
inline constexpr uint64_t hello_magic = 0x31304853414c4650;  // "PFLASH01" as little-endian text
inline constexpr uint16_t version_min = 1;                   // oldest version this build speaks
inline constexpr uint16_t version_max = 1;

inline constexpr uint32_t max_data_bytes = 1u << 20;      // data of one command
inline constexpr uint32_t max_rpc_bytes = 1u << 20;       // protobuf of one RPC
inline constexpr uint32_t max_compare_bytes = 64u << 10;  // each half of a compare-and-write
inline constexpr uint32_t max_depth = 1024;               // commands in flight per connection
inline constexpr uint32_t max_payload_bytes =
    max_data_bytes + 4 * (max_data_bytes / block_bytes + 2);

enum class Opcode : uint8_t {
    ping = 1,
    read = 2,
    write = 3,
    flush = 4,  // nothing to do at a store: acked is durable; kept for foreign clients
    discard = 5,
    write_zeroes = 6,
    compare_and_write = 7,  // data = `length` bytes to compare, then `length` bytes to write
    open_session = 8,       // registers the session at this shard, durable (R8)
    close_session = 9,
    abort = 10,         // R10: `request_id` is applied already, or never will be
    block_states = 11,  // which blocks are data, zero or holes
    rpc = 12,           // data = a protobuf envelope of proto/rpc.proto
};

enum Flags : uint16_t {
    flag_none = 0,
    flag_resent = 1u << 0,   // may have been applied already: look the request up (R8)
    flag_no_hole = 1u << 1,  // write_zeroes: zero, not a hole, to block_states (NBD NO_HOLE)
};
inline constexpr uint16_t known_flags = flag_resent | flag_no_hole;

inline constexpr uint32_t head_generation =
    0;  // Command::snap_seq: the head, which the primary stamps (S2)

struct Command {
    Opcode opcode = Opcode::ping;
    uint8_t version = version_max;
    uint16_t flags = 0;
    uint32_t command_id = 0;  // chosen by the sender, echoed; unique among its commands in flight
    uint64_t shard = 0;       // 0 for ping and rpc
    uint64_t offset = 0;      // bytes within the shard, multiple of 512
    uint32_t length = 0;      // bytes of data; for block_states the range may exceed max_data_bytes
    uint32_t payload_length = 0;  // bytes that follow this header
    uint32_t epoch = 0;           // shard epoch as the sender knows it
    uint32_t snap_seq = head_generation;
    uint64_t request_id = 0;    // R8, within the connection's session; 0 for what changes nothing
    uint64_t writer_token = 0;  // R11
    uint32_t lowest_outstanding_delta =
        0;  // request_id minus the session's lowest outstanding request
    uint32_t crc = 0;
};
static_assert(sizeof(Command) == header_bytes);
static_assert(offsetof(Command, offset) == 16 && offsetof(Command, epoch) == 32);
static_assert(offsetof(Command, request_id) == 40 && offsetof(Command, crc) == 60);

struct Completion {
    Opcode opcode = Opcode::ping;
    uint8_t version = version_max;
    uint16_t status = 0;  // Errc
    uint32_t command_id = 0;
    uint64_t shard = 0;
    uint32_t length = 0;  // bytes of data that follow
    uint32_t payload_length = 0;
    uint32_t epoch = 0;      // the store's current epoch of the shard
    uint32_t snap_seq = 0;   // current head generation
    uint32_t store_us = 0;   // time in the store, for slow-I/O reports
    uint32_t media_us = 0;   // of it, waiting for the tray
    uint64_t committed = 0;  // committed sequence of the shard (epoch above)
    uint32_t credits = 0;    // commands the client may have in flight from now on; 0: unchanged
    uint32_t reserved0 = 0;
    uint32_t reserved1 = 0;
    uint32_t crc = 0;
};
static_assert(sizeof(Completion) == header_bytes);
static_assert(offsetof(Completion, committed) == 40 && offsetof(Completion, crc) == 60);

enum class Role : uint8_t { client = 1, store = 2, conductor = 3, tool = 4 };

// First message on a connection, from the side that connected. No payload.
struct Hello {
    uint64_t magic = hello_magic;
    uint16_t version_min = wire::version_min;
    uint16_t version_max = wire::version_max;
    Role role = Role::client;
    uint8_t auth_method = 0;   // 0: none; the step and its payload are for a later version
    uint16_t depth = 0;        // commands in flight asked for, 1..max_depth
    uint64_t features = 0;     // bits of optional features; unknown ones are refused by name
    uint64_t session = 0;      // R8; 0 for connections that never write
    uint64_t shard = 0;        // hands the connection to the reactor that owns it; 0: any
    uint8_t cluster[16] = {};  // zeros: any cluster
    uint32_t reserved = 0;
    uint32_t crc = 0;
};
static_assert(sizeof(Hello) == header_bytes && offsetof(Hello, crc) == 60);
static_assert(offsetof(Hello, features) == 16 && offsetof(Hello, cluster) == 40);

struct HelloReply {
    uint64_t magic = hello_magic;
    uint16_t status = 0;  // Errc; not 0: the connection is closed after this message
    uint16_t version = wire::version_max;  // chosen; on unsupported_version, the newest offered
    uint16_t depth = 0;                    // credits granted
    uint16_t reserved0 = 0;
    uint64_t features = 0;  // accepted
    uint32_t max_data_bytes = wire::max_data_bytes;
    uint32_t reserved1 = 0;
    uint64_t incarnation = 0;  // of the store process: changes at every start
    uint8_t cluster[16] = {};
    uint32_t reserved2 = 0;
    uint32_t crc = 0;
};
static_assert(sizeof(HelloReply) == header_bytes && offsetof(HelloReply, crc) == 60);

// Blocks that [offset, offset + length) touches: the number of CRCs in a payload.
[[nodiscard]] constexpr uint32_t blocks_touched(uint64_t offset, uint64_t length) {
    if (length == 0) return 0;
    return static_cast<uint32_t>((offset + length - 1) / block_bytes - offset / block_bytes + 1);
}
// What payload_length has to be for a command that carries data; compare-and-write carries two
// halves, each with CRCs of its own.
[[nodiscard]] constexpr uint32_t payload_bytes(uint64_t offset, uint32_t length) {
    return length + 4 * blocks_touched(offset, length);
}

// Each encode fills in the CRC.
void encode(const Command& from, std::span<std::byte, header_bytes> to);
void encode(const Completion& from, std::span<std::byte, header_bytes> to);
void encode(const Hello& from, std::span<std::byte, header_bytes> to);
void encode(const HelloReply& from, std::span<std::byte, header_bytes> to);

// Check CRC, version, opcode, flags, alignment to 512, lengths against limits, and that
// payload_length is what opcode, offset and length demand. Errors: protocol, unsupported_version,
// invalid_argument, out_of_range; the message names the field and its value.
[[nodiscard]] Result<Command> decode_command(std::span<const std::byte, header_bytes> from);
[[nodiscard]] Result<Completion> decode_completion(std::span<const std::byte, header_bytes> from);
[[nodiscard]] Result<Hello> decode_hello(std::span<const std::byte, header_bytes> from);
[[nodiscard]] Result<HelloReply> decode_hello_reply(std::span<const std::byte, header_bytes> from);

// Data of a block_states completion: runs, 8 bytes each.
struct BlockRun {
    uint32_t blocks = 0;
    uint32_t state = 0;  // 0 hole, 1 zero, 2 data
};
static_assert(sizeof(BlockRun) == 8);
inline constexpr uint32_t max_block_runs = 4096;

// Data of an open_session completion.
struct SessionReply {
    uint64_t blocks = 0;  // size of the shard
    uint32_t epoch = 0;
    uint32_t snap_seq = 0;
    uint64_t reserved = 0;
};
static_assert(sizeof(SessionReply) == 24);

}  // namespace pf::wire

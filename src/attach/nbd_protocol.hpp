// The NBD protocol as bytes: constants, decoders of what a client sends, encoders of what a server
// answers. Big-endian. Nothing here does I/O or keeps state.
//
// Every decoder takes bytes and returns a value, or an error that names the field.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/error.hpp"

namespace pf::attach::nbd {

inline constexpr uint64_t greeting_magic = 0x4e42444d41474943;  // "NBDMAGIC"
inline constexpr uint64_t option_magic = 0x49484156454f5054;    // "IHAVEOPT"
inline constexpr uint64_t option_reply_magic = 0x3e889045565a9;
inline constexpr uint32_t request_magic = 0x25609513;
inline constexpr uint32_t simple_reply_magic = 0x67446698;
inline constexpr uint32_t structured_reply_magic = 0x668e33ef;

inline constexpr uint32_t greeting_bytes = 18;
inline constexpr uint32_t client_flags_bytes = 4;
inline constexpr uint32_t option_header_bytes = 16;
inline constexpr uint32_t request_bytes = 28;
inline constexpr uint32_t simple_reply_bytes = 16;
inline constexpr uint32_t chunk_header_bytes = 20;

inline constexpr uint32_t max_name_on_wire_bytes = 4096;  // the protocol's own limit for strings
inline constexpr uint32_t max_option_bytes = 64u << 10;
inline constexpr uint32_t max_queries = 64;  // in one META_CONTEXT option

inline constexpr uint16_t fixed_newstyle = 1;
inline constexpr uint16_t no_zeroes = 2;

enum class Option : uint32_t {
    export_name = 1,
    abort = 2,
    list = 3,
    starttls = 5,
    info = 6,
    go = 7,
    structured_reply = 8,
    list_meta_context = 9,
    set_meta_context = 10,
};

enum class OptionReply : uint32_t {
    ack = 1,
    server = 2,
    info = 3,
    meta_context = 4,
    error_unsupported = 0x80000001,
    error_policy = 0x80000002,
    error_invalid = 0x80000003,
    error_unknown = 0x80000006,
    error_too_big = 0x80000009,
};

enum class InfoType : uint16_t { export_ = 0, name = 1, description = 2, block_size = 3 };

// Transmission flags.
inline constexpr uint16_t flag_has_flags = 1;
inline constexpr uint16_t flag_read_only = 1 << 1;
inline constexpr uint16_t flag_send_flush = 1 << 2;
inline constexpr uint16_t flag_send_fua = 1 << 3;
inline constexpr uint16_t flag_send_trim = 1 << 5;
inline constexpr uint16_t flag_send_write_zeroes = 1 << 6;
inline constexpr uint16_t flag_send_df = 1 << 7;
inline constexpr uint16_t flag_can_multi_conn = 1 << 8;
inline constexpr uint16_t flag_send_fast_zero = 1 << 11;

enum class Command : uint16_t {
    read = 0,
    write = 1,
    disconnect = 2,
    flush = 3,
    trim = 4,
    cache = 5,
    write_zeroes = 6,
    block_status = 7,
};

inline constexpr uint16_t command_fua = 1;
inline constexpr uint16_t command_no_hole = 1 << 1;
inline constexpr uint16_t command_df = 1 << 2;
inline constexpr uint16_t command_req_one = 1 << 3;
inline constexpr uint16_t command_fast_zero = 1 << 4;

enum class Chunk : uint16_t {
    none = 0,
    offset_data = 1,
    block_status = 5,
    error = (1 << 15) + 1,
};
inline constexpr uint16_t chunk_done = 1;

inline constexpr std::string_view base_allocation = "base:allocation";
inline constexpr uint32_t base_allocation_id = 1;
inline constexpr uint32_t state_hole = 1;
inline constexpr uint32_t state_zero = 2;

// The protocol's own error numbers, whatever errno is on the host.
enum class ErrorNumber : uint32_t {
    none = 0,
    not_permitted = 1,
    io = 5,
    no_memory = 12,
    invalid = 22,
    no_space = 28,
    overflow = 75,
    not_supported = 95,
    shutdown = 108,
};
[[nodiscard]] ErrorNumber to_error_number(Errc code) noexcept;

struct OptionHeader {
    uint32_t option = 0;
    uint32_t length_bytes = 0;
};

// INFO and GO.
struct InfoRequest {
    std::string name;
    std::vector<uint16_t> types;
};

// LIST_META_CONTEXT and SET_META_CONTEXT.
struct MetaContextRequest {
    std::string name;
    std::vector<std::string> queries;
};

struct Request {
    uint16_t flags = 0;
    uint16_t type = 0;
    uint64_t cookie = 0;
    uint64_t offset = 0;
    uint32_t length_bytes = 0;
};

[[nodiscard]] Result<uint32_t> decode_client_flags(Bytes bytes);
[[nodiscard]] Result<OptionHeader> decode_option_header(Bytes bytes);
[[nodiscard]] Result<std::string> decode_export_name(Bytes data);
[[nodiscard]] Result<InfoRequest> decode_info_request(Bytes data);
[[nodiscard]] Result<MetaContextRequest> decode_meta_context_request(Bytes data);
// On the I/O path: the error carries no message.
[[nodiscard]] Result<Request> decode_request(Bytes bytes);

// Appends big-endian fields to a reply of the handshake.
class Writer {
  public:
    explicit Writer(std::vector<std::byte>& to) : to_(to) {}
    template <std::unsigned_integral T>
    Writer& put(T value) {
        for (size_t shift = sizeof(T) * 8; shift > 0; shift -= 8)
            to_.push_back(static_cast<std::byte>(static_cast<uint64_t>(value) >> (shift - 8)));
        return *this;
    }
    Writer& put(std::string_view text) {
        const Bytes bytes = as_bytes(text);
        to_.insert(to_.end(), bytes.begin(), bytes.end());
        return *this;
    }
    Writer& zeroes(size_t count) {
        to_.resize(to_.size() + count);
        return *this;
    }

  private:
    std::vector<std::byte>& to_;
};

void put_greeting(Writer writer);
void put_option_reply(Writer writer, uint32_t option, OptionReply reply, std::string_view data);
void put_export_info(Writer writer, uint32_t option, uint64_t size_bytes, uint16_t flags);
void put_block_size_info(Writer writer, uint32_t option, uint32_t min_bytes,
                         uint32_t preferred_bytes, uint32_t max_bytes);
void put_name_info(Writer writer, uint32_t option, std::string_view name);
void put_listed_export(Writer writer, std::string_view name);
void put_meta_context(Writer writer, uint32_t option, uint32_t id, std::string_view name);

// Reply headers, written where they stay until they are sent. Each returns the bytes used.
using ReplyHeader = std::array<std::byte, 32>;
[[nodiscard]] uint32_t put_simple_reply(ReplyHeader& to, uint64_t cookie, ErrorNumber error);
// An error chunk without a message (error number, message length 0) follows when `error` is set;
// otherwise an empty closing chunk.
[[nodiscard]] uint32_t put_closing_chunk(ReplyHeader& to, uint64_t cookie, ErrorNumber error);
// The whole of a read in one chunk; `data_bytes` of data follow.
[[nodiscard]] uint32_t put_data_chunk(ReplyHeader& to, uint64_t cookie, uint64_t offset,
                                      uint32_t data_bytes);
// `extent_count` pairs {length, state} follow.
[[nodiscard]] uint32_t put_block_status_chunk(ReplyHeader& to, uint64_t cookie,
                                              uint32_t extent_count);

}  // namespace pf::attach::nbd

// The sizes that the whole system agrees on, and parsing of sizes that people type.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.hpp"

namespace pf {

inline constexpr uint32_t sector_bytes = 512;      // smallest unit of client I/O
inline constexpr uint32_t block_bytes = 4096;      // unit of allocation and checksum
inline constexpr uint32_t chunk_bytes = 2u << 20;  // unit of mapping metadata
inline constexpr uint32_t blocks_per_chunk = chunk_bytes / block_bytes;
inline constexpr uint64_t default_shard_bytes = uint64_t{64} << 30;
inline constexpr uint64_t max_volume_bytes = uint64_t{1} << 50;  // 1 PiB
inline constexpr uint32_t max_atomic_write_bytes = 1u << 20;     // all or nothing within one chunk
inline constexpr uint32_t max_name_bytes = 96;
inline constexpr uint32_t shard_index_bits = 20;  // shard id = volume id << 20 | index

static_assert(blocks_per_chunk == 512);

// "4096", "64k", "10G", "1T", "1.5G"; suffixes K M G T P are powers of 1024, an optional "iB" or
// "B" may follow. Refuses negatives, junk and overflow, saying what is allowed.
[[nodiscard]] Result<uint64_t> parse_size(std::string_view text);

// "10 GiB", "1.5 MiB", "512 B".
[[nodiscard]] std::string format_size(uint64_t bytes);
// The same, never rounded: "1552 KiB". For limits and what breaks them, which may be close.
[[nodiscard]] std::string format_exact_size(uint64_t bytes);

// Volume names: 1..96 bytes of UTF-8 without control characters, '/', '@' or ':'.
[[nodiscard]] Status check_volume_name(std::string_view name);

// Volume sizes: a positive multiple of 4 KiB, at most 1 PiB.
[[nodiscard]] Status check_volume_size(uint64_t bytes);

}  // namespace pf

// What lies on a tray, byte for byte (docs/formats/tray.md), and the decoders of it. Every decoder
// takes bytes and returns a value or an error that names the field; none trusts a length or an
// address before it was checked.
//
//   block 0        superblock A
//   block 1, 2     root slots (T9)
//   block 3 ...    the log, a ring of log_blocks blocks
//   then           data area: user data, tables, directory, bitmap, state
//   last block     superblock B
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "base/units.hpp"
#include "base/uuid.hpp"
#include "tray/types.hpp"

namespace pf::tray {

inline constexpr uint32_t max_shard_blocks = 1u << 24;  // 64 GiB

using Address = uint32_t;  // of a block, counted from the start of the tray
// Sentinels that no tray is large enough to reach (T9).
inline constexpr Address unmapped_address = 0xffffffff;
inline constexpr Address zero_address = 0xfffffffe;
inline constexpr Address max_tray_blocks = 0xfffffff0;
[[nodiscard]] constexpr bool is_data(Address address) {
    return address < max_tray_blocks;
}

// 2: the bitmap of mapped blocks and the blocks of each generation are in the checkpoint.
inline constexpr uint16_t format_version = 2;
inline constexpr Address superblock_a_address = 0;
inline constexpr Address first_root_address = 1;
inline constexpr uint32_t root_slots = 2;
inline constexpr Address log_start_address = first_root_address + root_slots;

inline constexpr uint32_t superblock_magic = 0x31535046;  // "FPS1", little-endian
inline constexpr uint32_t root_magic = 0x31525046;
inline constexpr uint32_t log_magic = 0x314c5046;
inline constexpr uint32_t meta_magic = 0x314d5046;

#pragma pack(push, 1)

// Written at format and never again, but to repair one copy from the other.
struct SuperblockFormat {
    uint32_t magic;
    uint16_t version;
    uint16_t reserved0;
    uint32_t crc;  // of the first 512 bytes with this field zero
    uint32_t block_size;
    std::array<uint8_t, 16> cluster;
    std::array<uint8_t, 16> tray;
    uint64_t nonce;  // new at every format: old blocks never look like ours
    uint32_t total_blocks;
    uint32_t log_start;
    uint32_t log_blocks;
    uint32_t data_start;
    uint32_t data_end;  // exclusive
    uint32_t incompatible_features;
    std::array<uint8_t, 432> reserved;
};
static_assert(sizeof(SuperblockFormat) == 512);

struct BlockLink {
    uint32_t address;
    uint32_t crc;
};
static_assert(sizeof(BlockLink) == 8);

// One sector, so that a torn write leaves the old root or the new one.
struct RootFormat {
    uint32_t magic;
    uint16_t version;
    uint16_t flags;  // 1: some blocks are owned twice (T7)
    uint32_t crc;    // of the 512 bytes with this field zero
    uint32_t tray_tag;
    uint64_t number;  // checkpoints since format; slot = number % 2
    uint64_t incarnation;
    uint64_t log_start;     // sequence of the first log block to replay
    uint32_t log_previous;  // CRC that this block names as its predecessor's
    uint32_t directory_pages;
    BlockLink index;   // first block of the directory index; unmapped: none
    BlockLink state;   // first block of the state records
    BlockLink bitmap;  // first block of the bitmap's index; unmapped: no block is mapped
    std::array<uint8_t, 440> reserved;
};
static_assert(sizeof(RootFormat) == 512);

// Directory and bitmap pages, their indexes and state records share this header.
enum class MetaKind : uint16_t {
    directory = 1,
    index = 2,
    state = 3,
    bitmap = 4,
    bitmap_index = 5
};
struct MetaHeaderFormat {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;
    uint32_t crc;  // of the whole block with this field zero; also in the link to it
    uint32_t tray_tag;
    uint32_t used_bytes;  // after the header
    BlockLink next;
    uint32_t reserved;
};
static_assert(sizeof(MetaHeaderFormat) == 32);
inline constexpr uint32_t meta_payload_bytes = block_bytes - sizeof(MetaHeaderFormat);

struct DirectoryEntryFormat {
    uint64_t shard;
    uint32_t chunk;
    uint32_t snap_seq;
    BlockLink table;
    uint64_t last_sequence;
    uint32_t last_epoch;
    uint32_t reserved;
};
static_assert(sizeof(DirectoryEntryFormat) == 40);
inline constexpr uint32_t entries_per_page = meta_payload_bytes / sizeof(DirectoryEntryFormat);
inline constexpr uint32_t links_per_index_block = meta_payload_bytes / sizeof(BlockLink);

// Payload of a bitmap page: which blocks of its part of the data area tables refer to. Bit b of
// page p is block data_start + p * blocks_per_bitmap_page + b.
struct BitmapPage {
    std::array<uint64_t, meta_payload_bytes / sizeof(uint64_t)> words;
};
static_assert(sizeof(BitmapPage) == meta_payload_bytes);
inline constexpr uint32_t words_per_bitmap_page = meta_payload_bytes / sizeof(uint64_t);
inline constexpr uint32_t blocks_per_bitmap_page = words_per_bitmap_page * 64;

struct TableEntry {
    uint32_t address;
    uint32_t crc;
    auto operator<=>(const TableEntry&) const = default;
};
struct Table {
    std::array<TableEntry, blocks_per_chunk> entries;
};
static_assert(sizeof(Table) == block_bytes);

#pragma pack(pop)

struct Superblock {
    Uuid cluster;
    Uuid tray;
    uint64_t nonce = 0;
    uint32_t total_blocks = 0;
    uint32_t log_blocks = 0;
    Address data_start = 0;
    Address data_end = 0;
    auto operator<=>(const Superblock&) const = default;
    // In every block that is not user data: tells blocks of an earlier format from ours.
    [[nodiscard]] uint32_t tag() const;
    [[nodiscard]] Address second_copy() const { return total_blocks - 1; }
};

struct Root {
    uint64_t number = 0;
    uint64_t incarnation = 0;
    uint64_t log_start = 0;
    uint32_t log_previous = 0;
    uint32_t directory_pages = 0;
    BlockLink index{unmapped_address, 0};
    BlockLink state{unmapped_address, 0};
    BlockLink bitmap{unmapped_address, 0};
    // T7: after a loss, tables may name the same block. It stays in use until all let go of it,
    // which only a mount that reads all tables can know.
    bool doubly_owned = false;
};

void encode_superblock(const Superblock& superblock, MutableBytes block);
// not_found: no magic; corrupt; unsupported_version.
[[nodiscard]] Result<Superblock> decode_superblock(Bytes block);

void encode_root(const Root& root, uint32_t tag, MutableBytes block);
[[nodiscard]] Result<Root> decode_root(Bytes block, const Superblock& superblock);

// Fills in the header of a metadata block whose payload is in place; returns its CRC.
uint32_t seal_meta(MetaKind kind, uint32_t tag, uint32_t used_bytes, BlockLink next,
                   MutableBytes block);
struct MetaBlock {
    Bytes payload;
    BlockLink next;
};
// `expected_crc` is from the link: a valid block of another time or place does not match it.
[[nodiscard]] Result<MetaBlock> decode_meta(Bytes block, MetaKind kind, uint32_t expected_crc,
                                            const Superblock& superblock);

// A payload of directory entries; checks every address against the tray.
[[nodiscard]] Result<std::span<const DirectoryEntryFormat>> decode_directory(
    Bytes payload, const Superblock& superblock);
[[nodiscard]] Result<std::span<const BlockLink>> decode_index(Bytes payload,
                                                              const Superblock& superblock);
// Links to all bitmap pages in order; an unmapped one is a page without a bit.
[[nodiscard]] Result<std::span<const BlockLink>> decode_bitmap_index(Bytes payload,
                                                                     const Superblock& superblock);
[[nodiscard]] Result<const BitmapPage*> decode_bitmap(Bytes payload, uint32_t page,
                                                      const Superblock& superblock);
[[nodiscard]] Result<const Table*> decode_table(Bytes block, uint32_t expected_crc,
                                                const Superblock& superblock);

[[nodiscard]] inline bool in_data_area(const Superblock& superblock, Address address) {
    return address >= superblock.data_start && address < superblock.data_end;
}

[[nodiscard]] inline uint32_t bitmap_pages(const Superblock& superblock) {
    const uint32_t blocks = superblock.data_end - superblock.data_start;
    return (blocks - 1) / blocks_per_bitmap_page + 1;
}

// Picks the geometry of a tray of `size_bytes`; invalid_argument names what is allowed.
[[nodiscard]] Result<Superblock> choose_geometry(uint64_t size_bytes, uint64_t log_bytes);

}  // namespace pf::tray

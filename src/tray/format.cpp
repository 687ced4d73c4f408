#include "tray/format.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/assert.hpp"
#include "base/crc32c.hpp"

namespace pf::tray {

namespace {

constexpr uint16_t doubly_owned_flag = 1;  // of a root
constexpr uint32_t min_log_blocks = 16;
constexpr uint32_t min_data_blocks = 128;
// Of checkpoints, mounts and log blocks: none ever gets there, and sums with them cannot wrap.
constexpr uint64_t max_count = uint64_t{1} << 62;
constexpr uint64_t min_auto_log_bytes = uint64_t{1} << 20;
constexpr uint64_t max_auto_log_bytes = uint64_t{1} << 30;

std::unexpected<Error> damaged(std::string_view what, std::string_view field) {
    return fail(Errc::corrupt, fmt::format("{}: bad {}", what, field));
}

// The CRC of a struct with its own crc field taken as zero.
template <class Format>
uint32_t crc_of(Format value) {
    value.crc = 0;
    return crc32c(Bytes(reinterpret_cast<const std::byte*>(&value), sizeof(value)));
}

}  // namespace

uint32_t Superblock::tag() const {
    const uint32_t of_uuid =
        crc32c(Bytes(reinterpret_cast<const std::byte*>(tray.bytes.data()), tray.bytes.size()));
    return crc32c(Bytes(reinterpret_cast<const std::byte*>(&nonce), sizeof(nonce)), of_uuid);
}

void encode_superblock(const Superblock& superblock, MutableBytes block) {
    PF_ASSERT(block.size() == block_bytes);
    std::ranges::fill(block, std::byte{0});
    SuperblockFormat format{};
    format.magic = superblock_magic;
    format.version = format_version;
    format.block_size = block_bytes;
    format.cluster = superblock.cluster.bytes;
    format.tray = superblock.tray.bytes;
    format.nonce = superblock.nonce;
    format.total_blocks = superblock.total_blocks;
    format.log_start = log_start_address;
    format.log_blocks = superblock.log_blocks;
    format.data_start = superblock.data_start;
    format.data_end = superblock.data_end;
    format.crc = crc_of(format);
    store(block, format);
}

Result<Superblock> decode_superblock(Bytes block) {
    if (block.size() < sizeof(SuperblockFormat)) return damaged("superblock", "length");
    const auto format = load<SuperblockFormat>(block);
    if (format.magic != superblock_magic) {
        return fail(Errc::not_found, "superblock: bad magic: this is not a tray");
    }
    if (format.crc != crc_of(format)) return damaged("superblock", "crc");
    if (format.version != format_version) {
        return fail(Errc::unsupported_version,
                    fmt::format("superblock: version {} is not supported; this program reads {}",
                                format.version, format_version));
    }
    if (format.incompatible_features != 0) {
        return fail(Errc::unsupported_version, fmt::format("superblock: unknown feature bits {:#x}",
                                                           uint32_t{format.incompatible_features}));
    }
    Superblock result;
    result.cluster.bytes = format.cluster;
    result.tray.bytes = format.tray;
    result.nonce = format.nonce;
    result.total_blocks = format.total_blocks;
    result.log_blocks = format.log_blocks;
    result.data_start = format.data_start;
    result.data_end = format.data_end;
    if (format.block_size != block_bytes) return damaged("superblock", "block_size");
    if (result.total_blocks > max_tray_blocks) return damaged("superblock", "total_blocks");
    if (format.log_start != log_start_address) return damaged("superblock", "log_start");
    if (result.log_blocks < min_log_blocks || result.log_blocks > result.total_blocks) {
        return damaged("superblock", "log_blocks");
    }
    if (result.data_start != log_start_address + result.log_blocks) {
        return damaged("superblock", "data_start");
    }
    if (result.data_end <= result.data_start || result.data_end >= result.total_blocks) {
        return damaged("superblock", "data_end");
    }
    return result;
}

void encode_root(const Root& root, uint32_t tag, MutableBytes block) {
    PF_ASSERT(block.size() == block_bytes);
    std::ranges::fill(block, std::byte{0});
    RootFormat format{};
    format.magic = root_magic;
    format.version = format_version;
    format.tray_tag = tag;
    format.number = root.number;
    format.incarnation = root.incarnation;
    format.log_start = root.log_start;
    format.log_previous = root.log_previous;
    format.directory_pages = root.directory_pages;
    format.index = root.index;
    format.state = root.state;
    format.bitmap = root.bitmap;
    format.flags = root.doubly_owned ? doubly_owned_flag : 0;
    format.crc = crc_of(format);
    store(block, format);
}

Result<Root> decode_root(Bytes block, const Superblock& superblock) {
    if (block.size() < sizeof(RootFormat)) return damaged("root", "length");
    const auto format = load<RootFormat>(block);
    if (format.magic != root_magic) return damaged("root", "magic");
    if (format.crc != crc_of(format)) return damaged("root", "crc");
    if (format.version != format_version) {
        return fail(Errc::unsupported_version,
                    fmt::format("root: version {} is not supported", format.version));
    }
    if (format.tray_tag != superblock.tag()) return damaged("root", "tray_tag");
    if ((format.flags & ~uint16_t{doubly_owned_flag}) != 0) {
        return fail(Errc::unsupported_version,
                    fmt::format("root: flags {:#x} are not supported", uint16_t{format.flags}));
    }
    Root root;
    root.doubly_owned = (format.flags & doubly_owned_flag) != 0;
    root.number = format.number;
    root.incarnation = format.incarnation;
    root.log_start = format.log_start;
    root.log_previous = format.log_previous;
    root.directory_pages = format.directory_pages;
    root.index = format.index;
    root.state = format.state;
    root.bitmap = format.bitmap;
    const auto link_is_good = [&](const BlockLink& link) {
        return link.address == unmapped_address || in_data_area(superblock, link.address);
    };
    const auto count_is_good = [](uint64_t count) { return count <= max_count; };
    if (root.number == 0 || !count_is_good(root.number)) return damaged("root", "number");
    if (!count_is_good(root.incarnation)) return damaged("root", "incarnation");
    if (root.log_start == 0 || !count_is_good(root.log_start)) return damaged("root", "log_start");
    if (!link_is_good(root.index)) return damaged("root", "index address");
    if (!link_is_good(root.state)) return damaged("root", "state address");
    if (!link_is_good(root.bitmap)) return damaged("root", "bitmap address");
    if (root.directory_pages > superblock.total_blocks) return damaged("root", "directory_pages");
    return root;
}

uint32_t seal_meta(MetaKind kind, uint32_t tag, uint32_t used_bytes, BlockLink next,
                   MutableBytes block) {
    PF_ASSERT(block.size() == block_bytes && used_bytes <= meta_payload_bytes);
    MetaHeaderFormat header{};
    header.magic = meta_magic;
    header.version = format_version;
    header.kind = static_cast<uint16_t>(kind);
    header.tray_tag = tag;
    header.used_bytes = used_bytes;
    header.next = next;
    store(block, header);
    const size_t end = sizeof(header) + used_bytes;
    std::ranges::fill(block.subspan(end), std::byte{0});
    header.crc = crc32c(block);
    store(block, header);
    return header.crc;
}

Result<MetaBlock> decode_meta(Bytes block, MetaKind kind, uint32_t expected_crc,
                              const Superblock& superblock) {
    if (block.size() != block_bytes) return damaged("metadata block", "length");
    auto header = load<MetaHeaderFormat>(block);
    if (header.magic != meta_magic) return damaged("metadata block", "magic");
    if (header.crc != expected_crc) return damaged("metadata block", "crc against its link");
    header.crc = 0;
    const uint32_t of_header =
        crc32c(Bytes(reinterpret_cast<const std::byte*>(&header), sizeof(header)));
    if (crc32c(block.subspan(sizeof(header)), of_header) != expected_crc) {
        return damaged("metadata block", "crc");
    }
    if (header.version != format_version) {
        return fail(Errc::unsupported_version,
                    fmt::format("metadata block: version {} is not supported", header.version));
    }
    if (header.kind != static_cast<uint16_t>(kind)) return damaged("metadata block", "kind");
    if (header.tray_tag != superblock.tag()) return damaged("metadata block", "tray_tag");
    if (header.used_bytes > meta_payload_bytes) return damaged("metadata block", "used_bytes");
    if (header.next.address != unmapped_address && !in_data_area(superblock, header.next.address)) {
        return damaged("metadata block", "next address");
    }
    return MetaBlock{block.subspan(sizeof(header), header.used_bytes), header.next};
}

Result<std::span<const DirectoryEntryFormat>> decode_directory(Bytes payload,
                                                               const Superblock& superblock) {
    if (payload.size() % sizeof(DirectoryEntryFormat) != 0) {
        return damaged("directory page", "used_bytes");
    }
    const std::span entries(reinterpret_cast<const DirectoryEntryFormat*>(payload.data()),
                            payload.size() / sizeof(DirectoryEntryFormat));
    for (const auto& entry : entries) {
        if (entry.shard == 0) return damaged("directory entry", "shard");
        if (entry.snap_seq == 0) return damaged("directory entry", "snap_seq");
        if (entry.chunk >= max_shard_blocks / blocks_per_chunk) {
            return damaged("directory entry", "chunk");
        }
        if (!in_data_area(superblock, entry.table.address)) {
            return damaged("directory entry", "table address");
        }
    }
    return entries;
}

namespace {

Result<std::span<const BlockLink>> decode_links(Bytes payload, const Superblock& superblock,
                                                std::string_view what, bool may_be_none) {
    if (payload.size() % sizeof(BlockLink) != 0) return damaged(what, "used_bytes");
    const std::span links(reinterpret_cast<const BlockLink*>(payload.data()),
                          payload.size() / sizeof(BlockLink));
    for (const auto& link : links) {
        if (may_be_none && link.address == unmapped_address) continue;
        if (!in_data_area(superblock, link.address)) return damaged(what, "page address");
    }
    return links;
}

}  // namespace

Result<std::span<const BlockLink>> decode_index(Bytes payload, const Superblock& superblock) {
    return decode_links(payload, superblock, "directory index", false);
}

Result<std::span<const BlockLink>> decode_bitmap_index(Bytes payload,
                                                       const Superblock& superblock) {
    return decode_links(payload, superblock, "bitmap index", true);
}

Result<const BitmapPage*> decode_bitmap(Bytes payload, uint32_t page,
                                        const Superblock& superblock) {
    if (page >= bitmap_pages(superblock)) return damaged("bitmap page", "number");
    if (payload.size() != sizeof(BitmapPage)) return damaged("bitmap page", "used_bytes");
    const auto* bitmap = reinterpret_cast<const BitmapPage*>(payload.data());
    const uint32_t blocks = superblock.data_end - superblock.data_start;
    const uint32_t here = std::min(blocks - page * blocks_per_bitmap_page, blocks_per_bitmap_page);
    for (uint32_t word = here / 64; word < words_per_bitmap_page; ++word) {
        const uint64_t inside = word == here / 64 ? (uint64_t{1} << (here % 64)) - 1 : 0;
        if ((bitmap->words[word] & ~inside) != 0) return damaged("bitmap page", "bit past the end");
    }
    return bitmap;
}

Result<const Table*> decode_table(Bytes block, uint32_t expected_crc,
                                  const Superblock& superblock) {
    if (block.size() != block_bytes) return damaged("table", "length");
    if (crc32c(block) != expected_crc) return damaged("table", "crc");
    const auto* table = reinterpret_cast<const Table*>(block.data());
    for (const TableEntry& entry : table->entries) {
        if (entry.address == unmapped_address || entry.address == zero_address) continue;
        if (!in_data_area(superblock, entry.address)) return damaged("table", "block address");
    }
    return table;
}

Result<Superblock> choose_geometry(uint64_t size_bytes, uint64_t log_bytes) {
    const uint64_t total = size_bytes / block_bytes;
    if (total > max_tray_blocks) {
        return fail(Errc::invalid_argument,
                    fmt::format("a tray of {} is too large: below 16 TiB is allowed; slice it",
                                format_exact_size(size_bytes)));
    }
    if (log_bytes % block_bytes != 0) {
        return fail(Errc::invalid_argument,
                    fmt::format("log size {} is not a multiple of 4 KiB", log_bytes));
    }
    uint64_t log_blocks = log_bytes / block_bytes;
    if (log_bytes == 0) {
        log_blocks =
            std::clamp(size_bytes / 64, min_auto_log_bytes, max_auto_log_bytes) / block_bytes;
    }
    if (log_blocks < min_log_blocks) {
        return fail(
            Errc::invalid_argument,
            fmt::format("log size {} is too small: the minimum is {}", format_exact_size(log_bytes),
                        format_exact_size(uint64_t{min_log_blocks} * block_bytes)));
    }
    const uint64_t minimum = log_start_address + log_blocks + min_data_blocks + 1;
    if (total < minimum) {
        return fail(
            Errc::invalid_argument,
            fmt::format("a tray of {} is too small: the minimum with a log of {} is {}",
                        format_exact_size(size_bytes), format_exact_size(log_blocks * block_bytes),
                        format_exact_size(minimum * block_bytes)));
    }
    Superblock result;
    result.total_blocks = static_cast<uint32_t>(total);
    result.log_blocks = static_cast<uint32_t>(log_blocks);
    result.data_start = log_start_address + result.log_blocks;
    result.data_end = result.total_blocks - 1;
    return result;
}

}  // namespace pf::tray

// Metadata blocks, directory and bitmap pages, their indexes, state records and tables: any bytes
// give values within their bounds or an error, and decoding ends.
#include <algorithm>
#include <vector>

#include "base/assert.hpp"
#include "tray/fuzz_support.hpp"
#include "tray/mapped_blocks.hpp"
#include "tray/state_format.hpp"

using namespace pf;
using namespace pf::tray;

namespace {

void check_bitmap(Bytes block, uint32_t crc, const Superblock& superblock) {
    if (const auto meta = decode_meta(block, MetaKind::bitmap_index, crc, superblock)) {
        if (const auto links = decode_bitmap_index(meta->payload, superblock)) {
            for (const auto& link : *links) {
                PF_ASSERT(link.address == unmapped_address ||
                          in_data_area(superblock, link.address));
            }
        }
    }
    const auto meta = decode_meta(block, MetaKind::bitmap, crc, superblock);
    if (!meta) return;
    const uint32_t pages = bitmap_pages(superblock);
    PF_ASSERT(!decode_bitmap(meta->payload, pages, superblock));
    const auto bits = decode_bitmap(meta->payload, pages - 1, superblock);
    if (!bits) return;
    // What a mount does with it: marks them all, within the tray.
    MappedBlocks mapped(superblock);
    mapped.restore(pages - 1, {superblock.data_start, crc}, **bits);
    PF_ASSERT(mapped.count() <= superblock.data_end - superblock.data_start);
    for (Address at = superblock.data_start; at < superblock.data_end; ++at) {
        if (mapped.is_set(at)) mapped.clear(at);
    }
    PF_ASSERT(mapped.count() == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const Bytes input(reinterpret_cast<const std::byte*>(data), size);
    const Superblock& superblock = fuzz_superblock();
    std::vector<std::byte> block(block_bytes);
    std::ranges::copy(input.first(std::min<size_t>(size, block_bytes)), block.begin());
    if (const auto table = decode_table(block, crc32c(block), superblock)) {
        for (const TableEntry& entry : (*table)->entries) {
            PF_ASSERT(!is_data(entry.address) || in_data_area(superblock, entry.address));
        }
    }
    const uint32_t crc = fix_block<MetaHeaderFormat>(block, meta_magic);
    for (const MetaKind kind : {MetaKind::directory, MetaKind::index, MetaKind::state}) {
        if (const auto meta = decode_meta(block, kind, crc, superblock)) {
            PF_ASSERT(meta->payload.size() <= meta_payload_bytes);
        }
    }
    if (const auto entries = decode_directory(input, superblock)) {
        for (const auto& entry : *entries) PF_ASSERT(in_data_area(superblock, entry.table.address));
    }
    (void)decode_index(input, superblock);
    check_bitmap(block, crc, superblock);
    Bytes records = input;
    while (!records.empty()) {
        const auto record = take_state_record(records);
        if (!record) break;
    }
    return 0;
}

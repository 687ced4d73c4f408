// Metadata blocks, directory pages, the index, state records and tables: any bytes give values
// within their bounds or an error, and decoding ends.
#include <algorithm>
#include <vector>

#include "base/assert.hpp"
#include "tray/fuzz_support.hpp"
#include "tray/state_format.hpp"

using namespace pf;
using namespace pf::tray;

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
    Bytes records = input;
    while (!records.empty()) {
        const auto record = take_state_record(records);
        if (!record) break;
    }
    return 0;
}

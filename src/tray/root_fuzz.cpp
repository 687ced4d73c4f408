// Superblock and root: any bytes give a value or an error, and a value is within its bounds.
#include <algorithm>
#include <vector>

#include "base/assert.hpp"
#include "tray/fuzz_support.hpp"

using namespace pf;
using namespace pf::tray;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const Bytes input(reinterpret_cast<const std::byte*>(data), size);
    // As they are, and with their checksum made right, so that the fields behind it are reached.
    if (const auto superblock = decode_superblock(input)) {
        PF_ASSERT(superblock->data_end < superblock->total_blocks);
    }
    (void)decode_root(input, fuzz_superblock());
    std::vector<std::byte> block(block_bytes);
    std::ranges::copy(input.first(std::min<size_t>(size, block_bytes)), block.begin());
    fix_struct<SuperblockFormat>(block, superblock_magic);
    if (const auto superblock = decode_superblock(block)) {
        PF_ASSERT(superblock->data_start < superblock->data_end);
        PF_ASSERT(superblock->data_end < superblock->total_blocks);
    }
    store(block, fuzz_superblock().tag(), offsetof(RootFormat, tray_tag));
    fix_struct<RootFormat>(block, root_magic);
    if (const auto root = decode_root(block, fuzz_superblock())) {
        PF_ASSERT(root->index.address == unmapped_address ||
                  in_data_area(fuzz_superblock(), root->index.address));
    }
    return 0;
}

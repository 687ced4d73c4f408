// Log blocks and records: any bytes give values within their bounds or an error, and decoding ends.
#include <algorithm>
#include <vector>

#include "base/assert.hpp"
#include "tray/fuzz_support.hpp"
#include "tray/log_format.hpp"

using namespace pf;
using namespace pf::tray;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const Bytes input(reinterpret_cast<const std::byte*>(data), size);
    const Superblock& superblock = fuzz_superblock();
    (void)decode_log_block(input, superblock);
    Bytes records = input;
    while (!records.empty()) {
        const Bytes before = records;
        const auto record = take_record(records, superblock);
        if (!record) break;
        // T7: the filter of a block holds the shards of its records.
        const ShardFilter filter = ShardFilter::of(before.first(before.size() - records.size()));
        if (const auto* shard = std::get_if<ShardRecord>(&*record)) {
            PF_ASSERT(filter.may_hold(shard->state.shard));
        }
        const auto* write = std::get_if<WriteRecord>(&*record);
        if (write == nullptr) continue;
        PF_ASSERT(filter.may_hold(write->shard));
        PF_ASSERT(write->block % blocks_per_chunk + write->count <= blocks_per_chunk);
        uint32_t covered = 0;
        for (const Extent& extent : write->extents) {
            PF_ASSERT(in_data_area(superblock, extent.start));
            covered += extent.count;
        }
        if (write->kind == WriteKind::data) {
            PF_ASSERT(covered == write->count);
            (void)write->crc(write->count - 1);
        }
    }
    std::vector<std::byte> block(block_bytes);
    std::ranges::copy(input.first(std::min<size_t>(size, block_bytes)), block.begin());
    fix_block<LogHeaderFormat>(block, log_magic);
    if (const auto decoded = decode_log_block(block, superblock)) {
        PF_ASSERT(decoded->records.size() <= log_payload_bytes);
    }
    return 0;
}

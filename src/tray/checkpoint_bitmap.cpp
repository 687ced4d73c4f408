// The bitmap's part of a checkpoint: the pages that changed, and the index of all.
#include <algorithm>

#include "tray/engine.hpp"

namespace pf::tray {

using runtime::Task;

Task<Status> Checkpointer::write_bitmap(bool paced) {
    MappedBlocks& mapped = engine_.map_.mapped();
    const auto& pages = mapped.writing_pages();
    std::array<Extent, batch_tables> extents;
    for (size_t at = 0; at < pages.size();) {
        const auto count = static_cast<uint32_t>(std::min<size_t>(batch_tables, pages.size() - at));
        const uint32_t extent_count = allocate(count, extents.data());
        uint32_t index = 0;
        for (uint32_t e = 0; e < extent_count; ++e) {
            for (uint32_t i = 0; i < extents[e].count; ++i, ++index) {
                const uint32_t page = pages[at + index];
                const MutableBytes block =
                    buffer_.bytes().subspan(size_t{index} * block_bytes, block_bytes);
                mapped.take_page(page, block.subspan(sizeof(MetaHeaderFormat)));
                const uint32_t crc =
                    seal_meta(MetaKind::bitmap, engine_.superblock_.tag(), meta_payload_bytes,
                              BlockLink{unmapped_address, 0}, block);
                replace(mapped.stored(page), {extents[e].start + i, crc});
            }
        }
        at += count;
        PF_CO_TRY(co_await write_batch(count, extents.data(), paced));
    }
    co_return Status{};
}

Task<Result<BlockLink>> Checkpointer::write_bitmap_index() {
    MappedBlocks& mapped = engine_.map_.mapped();
    std::vector<std::vector<std::byte>> index;
    for (uint32_t page = 0; page < mapped.page_count(); ++page) {
        if (page % links_per_index_block == 0) index.emplace_back();
        const auto* bytes = reinterpret_cast<const std::byte*>(&mapped.stored(page));
        index.back().insert(index.back().end(), bytes, bytes + sizeof(BlockLink));
    }
    return write_chain(MetaKind::bitmap_index, std::move(index));
}

}  // namespace pf::tray

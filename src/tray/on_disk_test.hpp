// For tests that damage a tray: where the newest checkpoint lies, read straight from the medium.
#pragma once

#include <algorithm>
#include <vector>

#include "runtime/sim/medium.hpp"
#include "tray/log_format.hpp"

namespace pf::tray {

class OnDisk {
  public:
    explicit OnDisk(const runtime::sim::Medium& medium) : medium_(medium) {
        superblock_ = *decode_superblock(block(superblock_a_address));
        for (Address slot = 0; slot < root_slots; ++slot) {
            const auto root = decode_root(block(first_root_address + slot), superblock_);
            if (root && root->number >= root_.number) root_ = *root;
        }
    }
    [[nodiscard]] const Root& root() const { return root_; }

    // Its index and its pages.
    [[nodiscard]] std::vector<Address> bitmap() {
        std::vector<Address> found;
        for (BlockLink link = root_.bitmap; link.address != unmapped_address;) {
            found.push_back(link.address);
            for (const BlockLink page : links(link, MetaKind::bitmap_index)) {
                if (page.address != unmapped_address) found.push_back(page.address);
            }
        }
        return found;
    }
    [[nodiscard]] std::vector<DirectoryEntryFormat> entries() {
        std::vector<DirectoryEntryFormat> found;
        for (BlockLink link = root_.index; link.address != unmapped_address;) {
            for (const BlockLink page : links(link, MetaKind::index)) {
                const auto meta =
                    decode_meta(block(page.address), MetaKind::directory, page.crc, superblock_);
                const auto entries = decode_directory(meta->payload, superblock_);
                found.insert(found.end(), entries->begin(), entries->end());
            }
        }
        return found;
    }
    [[nodiscard]] Address table_of(ShardId shard, uint32_t chunk, SnapSeq snap_seq) {
        for (const auto& entry : entries()) {
            if (entry.shard == shard && entry.chunk == chunk && entry.snap_seq == snap_seq)
                return entry.table.address;
        }
        return unmapped_address;
    }

    // Of the blocks of the root's incarnation.
    [[nodiscard]] uint64_t newest_log_sequence() {
        uint64_t newest = 0;
        for (uint32_t slot = 0; slot < superblock_.log_blocks; ++slot) {
            const auto log = decode_log_block(block(log_start_address + slot), superblock_);
            if (log && log->header.incarnation == root_.incarnation)
                newest = std::max(newest, log->header.sequence);
        }
        return newest;
    }
    [[nodiscard]] Address log_address(uint64_t sequence) const {
        return log_start_address + static_cast<Address>(sequence % superblock_.log_blocks);
    }

  private:
    Bytes block(Address address) {
        medium_.read(uint64_t{address} * block_bytes, buffer_);
        return buffer_;
    }
    // Of one block of an index; `link` becomes the one to the next block.
    std::vector<BlockLink> links(BlockLink& link, MetaKind kind) {
        const auto meta = decode_meta(block(link.address), kind, link.crc, superblock_);
        const auto found = kind == MetaKind::index
                               ? decode_index(meta->payload, superblock_)
                               : decode_bitmap_index(meta->payload, superblock_);
        link = meta->next;
        return {found->begin(), found->end()};
    }

    const runtime::sim::Medium& medium_;
    std::vector<std::byte> buffer_ = std::vector<std::byte>(block_bytes);
    Superblock superblock_;
    Root root_;
};

}  // namespace pf::tray

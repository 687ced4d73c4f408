// For tests of metadata that is wrong and has good checksums: edits what is on a medium and makes
// every CRC on the way to it again.
#pragma once

#include <functional>

#include "base/assert.hpp"
#include "base/crc32c.hpp"
#include "tray/on_disk_test.hpp"
#include "tray/state_format.hpp"

namespace pf::tray {

class Crafter {
  public:
    explicit Crafter(runtime::sim::Medium medium) : medium_(std::move(medium)) {
        superblock_ = *decode_superblock(block(superblock_a_address));
        newest_ =
            first_root_address + static_cast<Address>(OnDisk(medium_).root().number % root_slots);
    }
    [[nodiscard]] const runtime::sim::Medium& medium() const { return medium_; }
    [[nodiscard]] const Superblock& superblock() const { return superblock_; }
    [[nodiscard]] Address newest_root() const { return newest_; }
    [[nodiscard]] Address other_root() const {
        return 2 * first_root_address + root_slots - 1 - newest_;
    }

    // A superblock, a root or a log block.
    template <class Format>
    void edit(Address address, const std::function<void(Format&)>& change) {
        std::vector<std::byte> bytes = block(address);
        auto format = load<Format>(Bytes(bytes));
        change(format);
        format.crc = 0;
        store(MutableBytes(bytes), format);
        constexpr bool of_whole_block = sizeof(Format) < 512;
        format.crc = crc32c(Bytes(bytes).first(of_whole_block ? block_bytes : sizeof(Format)));
        store(MutableBytes(bytes), format);
        medium_.write(uint64_t{address} * block_bytes, bytes);
    }

    // Calls `change` for every state record of one format; they fit in one block here.
    template <class Format>
    void edit_state(uint16_t type, const std::function<void(Format&)>& change) {
        edit<RootFormat>(newest_, [&](RootFormat& root) {
            edit_meta(root.state, [&](MutableBytes payload) {
                for (size_t at = 0; at < payload.size();) {
                    const auto header = load<StateHeaderFormat>(payload, at);
                    if (header.type == type) {
                        auto record = load<Format>(payload, at);
                        change(record);
                        store(payload, record, at);
                    }
                    at += header.bytes;
                }
            });
        });
    }
    void edit_generations(const std::function<void(GenerationStateFormat&)>& change) {
        edit_state<GenerationStateFormat>(2, change);
    }
    // The first page of the bitmap.
    void edit_bitmap(const std::function<void(BitmapPage&)>& change) {
        edit<RootFormat>(newest_, [&](RootFormat& root) {
            edit_meta(root.bitmap, [&](MutableBytes index) {
                auto link = load<BlockLink>(Bytes(index));
                edit_meta(link, [&](MutableBytes payload) {
                    auto page = load<BitmapPage>(Bytes(payload));
                    change(page);
                    store(payload, page);
                });
                store(index, link);
            });
        });
    }

  private:
    [[nodiscard]] std::vector<std::byte> block(Address address) const {
        std::vector<std::byte> bytes(block_bytes);
        medium_.read(uint64_t{address} * block_bytes, bytes);
        return bytes;
    }
    void edit_meta(BlockLink& link, const std::function<void(MutableBytes)>& change) {
        const Address address = link.address;
        std::vector<std::byte> bytes = block(address);
        const auto header = load<MetaHeaderFormat>(Bytes(bytes));
        PF_ASSERT(header.next.address == unmapped_address);
        change(MutableBytes(bytes).subspan(sizeof(header), header.used_bytes));
        medium_.write(uint64_t{address} * block_bytes, bytes);
        edit<MetaHeaderFormat>(address, [](MetaHeaderFormat&) {});
        link.crc = load<MetaHeaderFormat>(Bytes(block(address))).crc;
    }

    runtime::sim::Medium medium_;
    Superblock superblock_;
    Address newest_ = 0;
};

// Sets or clears the bit of a block of the first page.
inline void set_bit(BitmapPage& page, const Superblock& superblock, Address address, bool value) {
    const uint32_t bit = address - superblock.data_start;
    const uint64_t mask = uint64_t{1} << (bit % 64);
    page.words[bit / 64] = value ? page.words[bit / 64] | mask : page.words[bit / 64] & ~mask;
}

}  // namespace pf::tray

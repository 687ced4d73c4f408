// Which blocks of the data area the tables of all generations refer to: the bitmap that a
// checkpoint writes, so that a mount knows what is free without reading every table. Metadata is
// not in it: a mount meets that on its way through the directory.
//
// T4: the pages are of the checkpoint's log position; a page that changes after the cut and before
// it was written is copied first.
//
// Invariant: a bit is set and cleared in the step that changes the table, never before or after. A
// block has one owner; after a loss (T7) it may have more, and stays set until all let go of it.
// Memory: 1/32768 of the data area, plus the copies of one checkpoint.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/assert.hpp"
#include "tray/table_pool.hpp"

namespace pf::tray {

class MappedBlocks {
  public:
    explicit MappedBlocks(const Superblock& superblock);

    void set(Address address) { change(address, true); }
    void clear(Address address) { change(address, false); }
    [[nodiscard]] bool is_set(Address address) const {
        const uint32_t bit = address - start_;
        return (words_[bit / 64] >> (bit % 64) & 1) != 0;
    }
    void prefetch(Address address) const {
        __builtin_prefetch(&words_[(address - start_) / 64], 1);
    }
    [[nodiscard]] uint64_t count() const { return count_; }
    // The first block that the table refers to and that is not set; unmapped_address: none.
    [[nodiscard]] Address first_free_of(const Table& table) const;
    // T7: from here on a block that is set may be set once more.
    void allow_sharing() { sharing_ = true; }
    [[nodiscard]] uint32_t page_count() const { return static_cast<uint32_t>(pages_.size()); }
    // Blocks of a whole bitmap on the tray with its index.
    [[nodiscard]] uint32_t stored_blocks() const { return page_count() + index_blocks(); }
    [[nodiscard]] uint32_t index_blocks() const {
        return (page_count() - 1) / links_per_index_block + 1;
    }
    // In the order of addresses, from the start of the data area on.
    [[nodiscard]] std::span<const uint64_t> words() const { return words_; }

    // --- at mount ---
    void restore(uint32_t page, BlockLink stored, const BitmapPage& bits);
    void reset();  // nothing is mapped, and every page will be written
    [[nodiscard]] BlockLink& stored(uint32_t page) { return pages_[page].stored; }

    // --- for the checkpoint ---
    [[nodiscard]] size_t dirty_pages() const { return dirty_.size(); }
    void begin_checkpoint();
    [[nodiscard]] const std::vector<uint32_t>& writing_pages() const { return writing_; }
    // Copies the page as of the cut to `to`; it may change from here on.
    void take_page(uint32_t page, MutableBytes to);
    void end_checkpoint();

  private:
    struct Page {
        BlockLink stored{unmapped_address, 0};
        bool dirty = false;    // for the next checkpoint
        bool writing = false;  // this one has still to write it
        BitmapPage* frozen = nullptr;
    };

    void change(Address address, bool value);
    [[nodiscard]] bool change_shared(Address address, bool value);
    void prepare_change(uint32_t page);
    [[nodiscard]] std::span<uint64_t> words_of(uint32_t page) {
        return std::span(words_).subspan(size_t{page} * words_per_bitmap_page,
                                         words_per_bitmap_page);
    }

    Address start_;
    Address end_;
    uint64_t count_ = 0;
    bool sharing_ = false;
    std::map<Address, uint32_t> shared_;  // owners besides the first
    std::vector<uint64_t> words_;         // whole pages
    std::vector<Page> pages_;
    std::vector<uint32_t> dirty_, writing_;
    SlabPool<BitmapPage> frozen_;
};

}  // namespace pf::tray

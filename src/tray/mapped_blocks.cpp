#include "tray/mapped_blocks.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/planted.hpp"

namespace pf::tray {

MappedBlocks::MappedBlocks(const Superblock& superblock)
    : start_(superblock.data_start), end_(superblock.data_end) {
    pages_.resize(bitmap_pages(superblock));
    words_.resize(pages_.size() * words_per_bitmap_page);
    dirty_.reserve(pages_.size());
    writing_.reserve(pages_.size());
}

void MappedBlocks::change(Address address, bool value) {
    PF_ASSERT(address >= start_ && address < end_);
    if (sharing_ && change_shared(address, value)) return;
    PF_ASSERT(is_set(address) != value);
    const uint32_t bit = address - start_;
    prepare_change(bit / blocks_per_bitmap_page);
    words_[bit / 64] ^= uint64_t{1} << (bit % 64);
    count_ += value ? 1 : UINT64_MAX;
}

Address MappedBlocks::first_free_of(const Table& table) const {
    for (const TableEntry& entry : table.entries) {
        if (is_data(entry.address) && !is_set(entry.address)) return entry.address;
    }
    return unmapped_address;
}

// True: another owner came or went, and the bit stays.
bool MappedBlocks::change_shared(Address address, bool value) {
    if (value) {
        if (!is_set(address)) return false;
        ++shared_[address];
        return true;
    }
    const auto found = shared_.find(address);
    if (found == shared_.end()) return false;
    if (--found->second == 0) shared_.erase(found);
    return true;
}

void MappedBlocks::prepare_change(uint32_t number) {
    Page& page = pages_[number];
    if (page.dirty) return;
    if (page.writing) {
        page.frozen = frozen_.take();
        std::ranges::copy(words_of(number), page.frozen->words.begin());
    }
    page.dirty = true;
    dirty_.push_back(number);
}

void MappedBlocks::restore(uint32_t page, BlockLink stored, const BitmapPage& bits) {
    pages_[page].stored = stored;
    std::ranges::copy(bits.words, words_of(page).begin());
    for (const uint64_t word : bits.words) count_ += static_cast<uint64_t>(std::popcount(word));
}

void MappedBlocks::reset() {
    count_ = 0;
    shared_.clear();
    std::ranges::fill(words_, 0);
    for (uint32_t page = 0; page < page_count(); ++page) {
        pages_[page].stored = {unmapped_address, 0};
        prepare_change(page);
    }
}

void MappedBlocks::begin_checkpoint() {
    PF_ASSERT(writing_.empty());
    writing_.swap(dirty_);
    for (const uint32_t page : writing_) {
        pages_[page].dirty = false;
        pages_[page].writing = true;
    }
}

void MappedBlocks::take_page(uint32_t number, MutableBytes to) {
    Page& page = pages_[number];
    PF_ASSERT(page.writing && to.size() == sizeof(BitmapPage));
    if (page.frozen != nullptr && !planted("bitmap_after_the_cut")) {
        std::memcpy(to.data(), page.frozen->words.data(), to.size());
        frozen_.give_back(std::exchange(page.frozen, nullptr));
    } else {
        std::memcpy(to.data(), words_of(number).data(), to.size());
    }
    page.writing = false;
}

void MappedBlocks::end_checkpoint() {
    writing_.clear();
}

}  // namespace pf::tray

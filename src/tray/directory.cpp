#include "tray/directory.hpp"

#include "base/assert.hpp"

namespace pf::tray {

Directory::~Directory() {
    for (ChunkVersion* version : writing_tables_) {
        if (version != nullptr && version->removed) delete version;
    }
    for (ChunkVersion* version : dirty_tables_) {
        if (version->removed) delete version;
    }
    for (DirectoryPage& page : pages_) {
        for (ChunkVersion* version : page.slots) delete version;
    }
}

void Directory::place(ChunkVersion& version, uint32_t page_number) {
    DirectoryPage& page = pages_[page_number];
    if (page.slots.empty()) page.slots.resize(entries_per_page);
    for (uint32_t slot = 0; slot < entries_per_page; ++slot) {
        if (page.slots[slot] != nullptr) continue;
        page.slots[slot] = &version;
        ++page.used;
        version.page = page_number;
        version.slot = slot;
        return;
    }
    PF_ASSERT(false);
}

ChunkVersion* Directory::create(Generation& generation, uint32_t chunk) {
    while (!pages_with_room_.empty() && pages_[pages_with_room_.back()].used == entries_per_page) {
        pages_with_room_.pop_back();
    }
    if (pages_with_room_.empty()) {
        pages_with_room_.push_back(static_cast<uint32_t>(pages_.size()));
        pages_.emplace_back();
    }
    return restore(generation, chunk, pages_with_room_.back());
}

ChunkVersion* Directory::restore(Generation& generation, uint32_t chunk, uint32_t page) {
    auto* version = new ChunkVersion;
    version->generation = &generation;
    version->chunk = chunk;
    place(*version, page);
    ++versions_;
    return version;
}

void Directory::add_restored_page(BlockLink stored) {
    pages_with_room_.push_back(static_cast<uint32_t>(pages_.size()));
    pages_.emplace_back();
    pages_.back().stored = stored;
}

Address Directory::remove(ChunkVersion& version) {
    PF_ASSERT(!checkpointing_);
    DirectoryPage& page = pages_[version.page];
    page.slots[version.slot] = nullptr;
    if (page.used-- == entries_per_page) pages_with_room_.push_back(version.page);
    mark_page_dirty(version.page);
    const Address stored = version.stored.address;
    if (version.table != nullptr) tables_.give_back(version.table);
    version.table = nullptr;
    version.removed = true;
    if (version.dirty_epoch != epoch_) destroy(&version);
    return stored;
}

ChunkVersion* Directory::at(uint32_t page, uint32_t slot) const {
    return pages_[page].slots.empty() ? nullptr : pages_[page].slots[slot];
}

bool Directory::is_clean(const ChunkVersion& version) const {
    if (version.stored.address == unmapped_address || version.dirty_epoch == epoch_) return false;
    return !checkpointing_ || version.dirty_epoch != epoch_ - 1;
}

void Directory::destroy(ChunkVersion* version) {
    --versions_;
    delete version;
}

void Directory::mark_page_dirty(uint32_t page) {
    if (pages_[page].dirty_epoch == epoch_) return;
    pages_[page].dirty_epoch = epoch_;
    dirty_pages_.push_back(page);
}

void Directory::prepare_change(ChunkVersion& version) {
    if (version.dirty_epoch == epoch_) return;
    const uint64_t writing = epoch_ - 1;
    if (checkpointing_ && version.dirty_epoch == writing && version.written_epoch != writing) {
        version.frozen = tables_.take();
        *version.frozen = *version.table;
        version.frozen_last = version.last;
    }
    version.dirty_epoch = epoch_;
    dirty_tables_.push_back(&version);
    mark_page_dirty(version.page);
}

uint64_t Directory::begin_checkpoint() {
    PF_ASSERT(!checkpointing_);
    checkpointing_ = true;
    writing_tables_.swap(dirty_tables_);
    writing_pages_.swap(dirty_pages_);
    dirty_tables_.clear();
    dirty_pages_.clear();
    return epoch_++;
}

void Directory::release_frozen(ChunkVersion& version) {
    if (version.frozen == nullptr) return;
    tables_.give_back(version.frozen);
    version.frozen = nullptr;
}

void Directory::end_checkpoint() {
    checkpointing_ = false;
    writing_tables_.clear();
    writing_pages_.clear();
}

}  // namespace pf::tray

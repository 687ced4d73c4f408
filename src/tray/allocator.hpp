// Which blocks of the data area are in use: a bitmap in memory, made at mount from the bitmap of
// mapped blocks and the metadata that the directory names.
// Next-fit, contiguous first: one write lands in one extent and many writes land one after the
// other. Metadata is allocated from a cursor of its own, so that it does not break up runs of data.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "tray/log_format.hpp"

namespace pf::tray {

class Allocator {
  public:
    enum class Purpose : uint8_t { data, metadata };

    Allocator(Address start, Address end);

    // False if it is in use already.
    [[nodiscard]] bool mark_used(Address address);
    [[nodiscard]] bool is_used(Address address) const;
    void prefetch(Address address) const {
        __builtin_prefetch(&words_[(address - start_) / 64], 1);
    }
    // The same for many: words of bits, from data_start on. Nothing is marked if one was in use.
    [[nodiscard]] bool mark_used(std::span<const uint64_t> words);
    void free(Address address, uint32_t count);
    // T7: one more owner of a block in use. It becomes free when all have let go of it.
    void share(Address address);
    [[nodiscard]] uint64_t shared_blocks() const { return shared_.size(); }

    // Takes `count` blocks in as few extents as a bounded search finds and writes them to `to`
    // (room for `count`). Returns the number of extents. The caller checked free_blocks().
    uint32_t allocate(uint32_t count, Extent* to, Purpose purpose = Purpose::data);

    [[nodiscard]] uint64_t free_blocks() const { return free_; }
    [[nodiscard]] uint64_t capacity_blocks() const { return end_ - start_; }

  private:
    static constexpr uint32_t group_bits = 4096;  // blocks that one free count covers
    static constexpr uint32_t max_groups_searched = 64;

    struct Run {
        uint32_t first = 0;
        uint32_t count = 0;
    };
    // The first free run at or after bit `from` of its group, cut at the group's end; an empty run
    // if there is none.
    [[nodiscard]] Run next_run(uint32_t from, uint32_t wanted) const;
    [[nodiscard]] uint32_t group_end(uint32_t bit) const;
    void take(Run run);
    bool one_of_several(Address address);  // takes an owner away, if it was not the last

    Address start_;
    Address end_;
    uint32_t bits_;
    uint64_t free_;
    std::vector<uint64_t> words_;  // a set bit is a block in use
    std::vector<uint16_t> free_in_group_;
    std::map<Address, uint32_t> shared_;  // owners besides the first; empty but after a loss
    uint32_t cursors_[2] = {0, 0};        // by purpose
};

}  // namespace pf::tray

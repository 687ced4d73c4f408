#include "tray/allocator.hpp"

#include <algorithm>
#include <bit>

#include "base/assert.hpp"

namespace pf::tray {

Allocator::Allocator(Address start, Address end)
    : start_(start), end_(end), bits_(end - start), free_(bits_) {
    PF_ASSERT(end > start);
    words_.resize((bits_ + 63) / 64);
    free_in_group_.resize((bits_ + group_bits - 1) / group_bits);
    for (size_t group = 0; group < free_in_group_.size(); ++group) {
        const uint64_t first = group * group_bits;
        free_in_group_[group] =
            static_cast<uint16_t>(std::min<uint64_t>(group_bits, bits_ - first));
    }
    cursors_[static_cast<size_t>(Purpose::metadata)] = bits_ - bits_ / 16;
}

bool Allocator::is_used(Address address) const {
    PF_ASSERT(address >= start_ && address < end_);
    const uint32_t bit = address - start_;
    return (words_[bit / 64] >> (bit % 64) & 1) != 0;
}

bool Allocator::mark_used(Address address) {
    if (is_used(address)) return false;
    take({address - start_, 1});
    return true;
}

bool Allocator::mark_used(std::span<const uint64_t> words) {
    for (size_t i = words_.size(); i < words.size(); ++i) PF_ASSERT(words[i] == 0);
    const size_t count = std::min(words.size(), words_.size());
    for (size_t i = 0; i < count; ++i) {
        if ((words_[i] & words[i]) != 0) return false;
    }
    for (size_t i = 0; i < count; ++i) {
        const auto taken = static_cast<uint16_t>(std::popcount(words[i]));
        words_[i] |= words[i];
        auto& left = free_in_group_[i * 64 / group_bits];
        left = static_cast<uint16_t>(left - taken);
        free_ -= taken;
    }
    return true;
}

void Allocator::take(Run run) {
    for (uint32_t bit = run.first; bit < run.first + run.count; ++bit) {
        words_[bit / 64] |= uint64_t{1} << (bit % 64);
    }
    auto& left = free_in_group_[run.first / group_bits];
    left = static_cast<uint16_t>(left - run.count);
    free_ -= run.count;
}

void Allocator::free(Address address, uint32_t count) {
    PF_ASSERT(address >= start_ && address < end_ && count <= end_ - address);
    for (uint32_t bit = address - start_; count > 0; ++bit, --count) {
        if (!shared_.empty() && one_of_several(start_ + bit)) continue;
        const uint64_t mask = uint64_t{1} << (bit % 64);
        PF_ASSERT((words_[bit / 64] & mask) != 0);
        words_[bit / 64] &= ~mask;
        ++free_in_group_[bit / group_bits];
        ++free_;
    }
}

void Allocator::share(Address address) {
    PF_ASSERT(is_used(address));
    ++shared_[address];
}

bool Allocator::one_of_several(Address address) {
    const auto found = shared_.find(address);
    if (found == shared_.end()) return false;
    if (--found->second == 0) shared_.erase(found);
    return true;
}

uint32_t Allocator::group_end(uint32_t bit) const {
    return static_cast<uint32_t>(
        std::min<uint64_t>(bits_, (uint64_t{bit} / group_bits + 1) * group_bits));
}

Allocator::Run Allocator::next_run(uint32_t from, uint32_t wanted) const {
    const uint32_t end = group_end(from);
    uint32_t bit = from;
    while (bit < end) {  // skip what is in use
        const uint64_t free_bits = ~words_[bit / 64] >> (bit % 64);
        if (free_bits != 0) {
            bit += static_cast<uint32_t>(std::countr_zero(free_bits));
            break;
        }
        bit = (bit / 64 + 1) * 64;
    }
    Run run{bit, 0};
    while (bit < end && run.count < wanted) {  // measure what is free
        const uint64_t used_bits = words_[bit / 64] >> (bit % 64);
        const uint32_t in_word = 64 - bit % 64;
        const auto length =
            used_bits == 0 ? in_word : static_cast<uint32_t>(std::countr_zero(used_bits));
        run.count += length;
        bit += length;
        if (length < in_word) break;
    }
    run.count = std::min({run.count, wanted, run.first < end ? end - run.first : 0});
    return run;
}

uint32_t Allocator::allocate(uint32_t count, Extent* to, Purpose purpose) {
    PF_ASSERT(count > 0 && count <= free_);
    uint32_t& cursor = cursors_[static_cast<size_t>(purpose)];
    const auto advance = [&](uint32_t bit) { return bit >= bits_ ? 0 : bit; };
    // One run for all of it, if a bounded search finds one.
    uint32_t at = advance(cursor);
    for (uint32_t groups = 0; groups < max_groups_searched && groups <= free_in_group_.size();) {
        const Run run = free_in_group_[at / group_bits] == 0 ? Run{} : next_run(at, count);
        if (run.count == count) {
            take(run);
            cursor = advance(run.first + run.count);
            to[0] = {start_ + run.first, count};
            return 1;
        }
        const uint32_t end = group_end(at);
        if (run.count == 0 || run.first + run.count >= end) {
            at = advance(end);
            ++groups;
        } else {
            at = run.first + run.count;
        }
    }
    // Otherwise whatever comes next.
    uint32_t extents = 0;
    at = advance(cursor);
    while (count > 0) {
        const Run run = free_in_group_[at / group_bits] == 0 ? Run{} : next_run(at, count);
        if (run.count == 0) {
            at = advance(group_end(at));
            continue;
        }
        take(run);
        count -= run.count;
        at = advance(run.first + run.count);
        Extent* last = extents > 0 ? &to[extents - 1] : nullptr;
        if (last != nullptr && last->start + last->count == start_ + run.first) {
            last->count += run.count;
        } else {
            to[extents++] = {start_ + run.first, run.count};
        }
    }
    cursor = at;
    return extents;
}

}  // namespace pf::tray

#include "runtime/sim/medium.hpp"

#include <algorithm>
#include <bit>

#include "base/assert.hpp"

namespace pf::runtime::sim {

namespace {

constexpr uint64_t odd_constant = 0x9e3779b97f4a7c15;

uint64_t mix(uint64_t value) {
    value = (value ^ (value >> 31)) * 0xbf58476d1ce4e5b9;
    return value ^ (value >> 29);
}

// Position-dependent; an absent child (hash 0) adds nothing.
uint64_t at_position(uint64_t hash, uint64_t position) {
    return hash == 0 ? 0 : mix(hash + (position + 1) * odd_constant);
}

}  // namespace

uint64_t Page::hash() const {
    if (hashed) return hash_value;
    std::array<uint64_t, 4> lanes{1, 2, 3, 4};
    uint64_t any = 0;
    for (size_t at = 0; at < bytes.size(); at += sizeof(lanes)) {
        for (size_t lane = 0; lane < lanes.size(); ++lane) {
            const auto word = load<uint64_t>(bytes, at + lane * sizeof(uint64_t));
            any |= word;
            lanes[lane] = std::rotl((lanes[lane] ^ word) * odd_constant, 29);
        }
    }
    uint64_t sum = 0;
    for (size_t lane = 0; lane < lanes.size(); ++lane) sum += at_position(lanes[lane], lane);
    hash_value = any == 0 ? 0 : mix(sum) | 1;
    hashed = true;
    return hash_value;
}

template <class Child>
uint64_t Medium::Branch<Child>::hash() const {
    if (hashed) return hash_value;
    hash_value = 0;
    for (size_t i = 0; i < fanout; ++i) {
        if (children[i]) hash_value += at_position(children[i].get()->hash(), i);
    }
    hashed = true;
    return hash_value;
}

uint64_t Medium::hash() const {
    uint64_t sum = size_bytes_ * odd_constant;
    for (size_t i = 0; i < roots_.size(); ++i) {
        if (roots_[i]) sum += at_position(roots_[i].get()->hash(), i);
    }
    return mix(sum);
}

Medium::Medium(uint64_t size_bytes) : size_bytes_(size_bytes) {
    PF_ASSERT(size_bytes % block_bytes == 0);
    constexpr uint64_t root_pages = fanout * fanout;
    roots_.resize((size_bytes / block_bytes + root_pages - 1) / root_pages);
}

const Page* Medium::page(uint64_t index) const {
    const Middle* middle = roots_[index / (fanout * fanout)].get();
    if (middle == nullptr) return nullptr;
    const Leaf* leaf = middle->children[index / fanout % fanout].get();
    return leaf == nullptr ? nullptr : leaf->children[index % fanout].get();
}

PageRef& Medium::slot(uint64_t index) {
    Middle& middle = roots_[index / (fanout * fanout)].own();
    middle.hashed = false;
    Leaf& leaf = middle.children[index / fanout % fanout].own();
    leaf.hashed = false;
    return leaf.children[index % fanout];
}

void Medium::read(uint64_t offset, MutableBytes to) const {
    PF_ASSERT(offset <= size_bytes_ && to.size() <= size_bytes_ - offset);
    while (!to.empty()) {
        const size_t inside = offset % block_bytes;
        const size_t count = std::min<size_t>(to.size(), block_bytes - inside);
        if (const Page* from = page(offset / block_bytes)) {
            std::memcpy(to.data(), from->bytes.data() + inside, count);
        } else {
            std::memset(to.data(), 0, count);
        }
        to = to.subspan(count);
        offset += count;
    }
}

void Medium::write(uint64_t offset, Bytes from) {
    PF_ASSERT(offset <= size_bytes_ && from.size() <= size_bytes_ - offset);
    while (!from.empty()) {
        const size_t inside = offset % block_bytes;
        const size_t count = std::min<size_t>(from.size(), block_bytes - inside);
        Page& to = slot(offset / block_bytes).own();
        to.hashed = false;
        std::memcpy(to.bytes.data() + inside, from.data(), count);
        from = from.subspan(count);
        offset += count;
    }
}

void Medium::erase(uint64_t offset, uint64_t length) {
    PF_ASSERT(offset <= size_bytes_ && length <= size_bytes_ - offset);
    while (length > 0) {
        const size_t inside = offset % block_bytes;
        const size_t count = std::min<size_t>(length, block_bytes - inside);
        if (page(offset / block_bytes) != nullptr) {
            PageRef& to = slot(offset / block_bytes);
            if (count == block_bytes) {
                to = PageRef();
            } else {
                Page& partial = to.own();
                partial.hashed = false;
                std::memset(partial.bytes.data() + inside, 0, count);
            }
        }
        offset += count;
        length -= count;
    }
}

void Medium::flip_bit(uint64_t offset, unsigned bit) {
    PF_ASSERT(offset < size_bytes_ && bit < 8);
    Page& to = slot(offset / block_bytes).own();
    to.hashed = false;
    to.bytes[offset % block_bytes] ^= std::byte{1} << bit;
}

void Medium::apply_at(const WriteData& data, uint64_t offset) {
    PF_ASSERT(offset <= size_bytes_ && data.length <= size_bytes_ - offset);
    if (data.pages.empty()) return erase(offset, data.length);
    for (size_t i = 0; i < data.pages.size(); ++i) {
        slot(offset / block_bytes + i) = data.pages[i];
    }
}

void Medium::apply_sector(const WriteData& data, uint64_t sector) {
    PF_ASSERT(sector < data.sectors());
    const uint64_t inside = sector * sector_bytes;
    if (data.pages.empty()) return erase(data.offset + inside, sector_bytes);
    const Page* from = data.pages[inside / block_bytes].get();
    const Bytes bytes(from->bytes);
    write(data.offset + inside, bytes.subspan(inside % block_bytes, sector_bytes));
}

}  // namespace pf::runtime::sim

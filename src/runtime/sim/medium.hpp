// The bytes of a simulated disk: sparse 4 KiB pages in a copy-on-write tree. Copying a Medium costs
// next to nothing and shares every page, so thousands of crash states can be mounted per second;
// its hash is kept per subtree, so hashing a variant costs only the pages that differ.
//
// Unwritten bytes read as zeros, and a page of zeros hashes like a missing one: equal bytes, equal
// hash. Not thread-safe; media that share pages stay on one thread.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/bytes.hpp"
#include "base/units.hpp"
#include "runtime/sim/counted.hpp"

namespace pf::runtime::sim {

struct Page {
    Page() = default;
    Page(const Page& other) : bytes(other.bytes) {}
    Page& operator=(const Page&) = delete;

    uint32_t references = 0;
    mutable bool hashed = false;
    mutable uint64_t hash_value = 0;
    alignas(64) std::array<std::byte, block_bytes> bytes{};

    [[nodiscard]] uint64_t hash() const;
};
using PageRef = Counted<Page>;  // empty: zeros

// What one write carries, shared between the cache, the media and every captured crash point.
struct WriteData {
    uint64_t offset = 0;
    uint64_t length = 0;
    std::vector<PageRef> pages;  // one per 4 KiB; empty for a discard
    [[nodiscard]] uint64_t sectors() const { return length / sector_bytes; }
};

class Medium {
  public:
    explicit Medium(uint64_t size_bytes = 0);

    [[nodiscard]] uint64_t size_bytes() const { return size_bytes_; }
    // Any offset and length inside the medium.
    void read(uint64_t offset, MutableBytes to) const;
    void write(uint64_t offset, Bytes from);
    void erase(uint64_t offset, uint64_t length);
    void flip_bit(uint64_t offset, unsigned bit);

    // Whole write, at `data.offset` or at another place. Shares the pages.
    void apply(const WriteData& data) { apply_at(data, data.offset); }
    void apply_at(const WriteData& data, uint64_t offset);
    // One 512-byte sector of a write (a torn write persists some of its sectors).
    void apply_sector(const WriteData& data, uint64_t sector);

    [[nodiscard]] uint64_t hash() const;

  private:
    static constexpr size_t fanout = 64;
    template <class Child>
    struct Branch {
        Branch() = default;
        Branch(const Branch& other) : children(other.children) {}
        Branch& operator=(const Branch&) = delete;

        uint32_t references = 0;
        mutable bool hashed = false;
        mutable uint64_t hash_value = 0;
        std::array<Counted<Child>, fanout> children;

        [[nodiscard]] uint64_t hash() const;
    };
    using Leaf = Branch<Page>;
    using Middle = Branch<Leaf>;

    [[nodiscard]] const Page* page(uint64_t index) const;
    // The slot of a page, with every node above it owned and its cached hash dropped.
    [[nodiscard]] PageRef& slot(uint64_t index);

    uint64_t size_bytes_ = 0;
    std::vector<Counted<Middle>> roots_;
};

}  // namespace pf::runtime::sim

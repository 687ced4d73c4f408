#include "base/crc32c.hpp"

#include <isa-l/crc.h>

#include <algorithm>
#include <array>

#include "base/assert.hpp"

namespace pf {

uint32_t crc32c(Bytes bytes, uint32_t previous) noexcept {
    // ISA-L takes a length as int and does neither of the two inversions.
    uint32_t state = ~previous;
    while (!bytes.empty()) {
        const size_t step = std::min<size_t>(bytes.size(), size_t{1} << 30);
        auto* data = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(bytes.data()));
        state = crc32_iscsi(data, static_cast<int>(step), state);
        bytes = bytes.subspan(step);
    }
    return ~state;
}

uint32_t copy_crc32c(MutableBytes to, Bytes from, uint32_t previous) noexcept {
    PF_ASSERT(to.size() == from.size());
    // 4 KiB at a time, so that the CRC pass reads what the copy just left in the first-level cache.
    constexpr size_t step_bytes = 4096;
    uint32_t crc = previous;
    for (size_t at = 0; at < from.size(); at += step_bytes) {
        const size_t step = std::min(step_bytes, from.size() - at);
        std::memcpy(to.data() + at, from.data() + at, step);
        crc = crc32c(Bytes(to.data() + at, step), crc);
    }
    return crc;
}

uint32_t crc32c_of_zero_block() noexcept {
    static const uint32_t value = [] {
        const std::array<std::byte, 4096> zeros{};
        return crc32c(zeros);
    }();
    return value;
}

}  // namespace pf

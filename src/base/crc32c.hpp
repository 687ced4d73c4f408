// CRC32C (Castagnoli), the one checksum of this project: block CRCs end to end, headers, log chain.
#pragma once

#include <cstdint>

#include "base/bytes.hpp"

namespace pf {

// The standard CRC32C of `bytes` (initial value and final xor 0xffffffff).
// Chaining: crc32c(b, crc32c(a)) == crc32c(a followed by b).
[[nodiscard]] uint32_t crc32c(Bytes bytes, uint32_t previous = 0) noexcept;

// Copies `from` to `to` and returns the CRC of what was *copied*, so that a source that changes
// meanwhile (guest memory, T13) yields a CRC of the bytes at hand. Ranges must not overlap.
uint32_t copy_crc32c(MutableBytes to, Bytes from, uint32_t previous = 0) noexcept;

// CRC of 4096 zero bytes, for zero and unmapped blocks.
[[nodiscard]] uint32_t crc32c_of_zero_block() noexcept;

}  // namespace pf

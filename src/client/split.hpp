// How one user I/O becomes pieces, and how checksums are laid over user memory. Pure functions.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>

#include "base/bytes.hpp"
#include "base/units.hpp"
#include "client/volume.hpp"

namespace pf::client {

struct Cut {
    uint64_t length = 0;          // of the piece, from the given offset on
    bool nothing = false;         // a discard does nothing to parts of blocks
    bool zeroes_as_data = false;  // a part of a block to be zeroed travels as a write of zeros
};

// The first piece of [offset, offset + length): it stays inside one shard (a multiple of chunks)
// and one chunk, and inside what one command carries. A write of up to 1 MiB inside one chunk is
// always one piece: that is what makes it atomic.
[[nodiscard]] Cut first_piece(IoKind kind, uint64_t offset, uint64_t length);

// Walks a vector front to back.
struct IovCursor {
    size_t index = 0;
    size_t within = 0;  // bytes of `iov[index]` already taken
};

// How many entries slice() will write for `length` bytes from the cursor on.
[[nodiscard]] size_t slices_needed(std::span<const iovec> iov, IovCursor at, uint64_t length);
// Writes the entries that cover `length` bytes to `out` and moves the cursor past them.
size_t slice(std::span<const iovec> iov, IovCursor& at, uint64_t length, iovec* out);

// One CRC32C for each block that [offset, offset + length) touches; a first or last part of a
// block is summed as it is. `out` has wire::blocks_touched() entries.
void block_crcs(std::span<const iovec> data, uint64_t offset, uint64_t length,
                std::span<uint32_t> out);
// The same over a copy made in the same pass (T13): the sums are of the bytes in `to`.
void copy_block_crcs(MutableBytes to, std::span<const iovec> data, uint64_t offset, uint64_t length,
                     std::span<uint32_t> out);

[[nodiscard]] uint64_t total_bytes(std::span<const iovec> iov);

}  // namespace pf::client

#include "client/split.hpp"

#include <algorithm>

#include "base/assert.hpp"
#include "base/crc32c.hpp"
#include "wire/message.hpp"

namespace pf::client {

namespace {

// Reads travel as whole blocks, so the limit counts from the block the piece begins in.
uint64_t read_limit(uint64_t offset) {
    return round_down(offset, block_bytes) + wire::max_data_bytes;
}

// A cut that the limit forces is moved to a block border, so that it costs no merge at the store.
uint64_t write_limit(uint64_t offset, uint64_t end) {
    const uint64_t limit = offset + wire::max_data_bytes;
    return end > limit ? round_down(limit, block_bytes) : limit;
}

// The border up to which [offset, end) is one part of a block, or `offset` if it begins with a
// whole block.
uint64_t partial_end(uint64_t offset, uint64_t end) {
    const uint64_t next_block = round_down(offset, block_bytes) + block_bytes;
    return offset % block_bytes != 0 || end < next_block ? std::min(next_block, end) : offset;
}

Cut first_zero_piece(uint64_t offset, uint64_t end) {
    const uint64_t partial = partial_end(offset, end);
    if (partial != offset) return {.length = partial - offset, .zeroes_as_data = true};
    return {.length = round_down(end, block_bytes) - offset};
}

Cut first_discard_piece(uint64_t offset, uint64_t end) {
    const uint64_t partial = partial_end(offset, end);
    if (partial != offset) return {.length = partial - offset, .nothing = true};
    return {.length = round_down(end, block_bytes) - offset};
}

template <class Sum>
void for_each_block(std::span<const iovec> data, uint64_t offset, uint64_t length,
                    std::span<uint32_t> out, Sum sum) {
    IovCursor at;
    uint64_t done = 0;
    for (uint32_t& crc : out) {
        uint64_t left = std::min(length - done, block_bytes - (offset + done) % block_bytes);
        crc = 0;
        while (left > 0) {
            const iovec& entry = data[at.index];
            const uint64_t take = std::min<uint64_t>(left, entry.iov_len - at.within);
            const auto* from = static_cast<const std::byte*>(entry.iov_base) + at.within;
            crc = sum(Bytes{from, take}, done, crc);
            done += take;
            left -= take;
            at.within += take;
            if (at.within == entry.iov_len) at = {at.index + 1, 0};
        }
    }
    PF_ASSERT(done == length);
}

}  // namespace

Cut first_piece(IoKind kind, uint64_t offset, uint64_t length) {
    const uint64_t chunk_end = round_down(offset, chunk_bytes) + chunk_bytes;
    uint64_t end = std::min(offset + length, chunk_end);
    switch (kind) {
        case IoKind::read:
            end = std::min(end, read_limit(offset));
            break;
        case IoKind::write:
        case IoKind::compare_and_write:
            end = std::min(end, write_limit(offset, end));
            break;
        case IoKind::write_zeroes:
            return first_zero_piece(offset, end);
        case IoKind::discard:
            return first_discard_piece(offset, end);
        case IoKind::flush:
            break;
        case IoKind::block_states:
            end = offset + length;
            break;
    }
    return {.length = end - offset};
}

size_t slices_needed(std::span<const iovec> iov, IovCursor at, uint64_t length) {
    size_t count = 0;
    while (length > 0) {
        length -= std::min<uint64_t>(length, iov[at.index].iov_len - at.within);
        at = {at.index + 1, 0};
        ++count;
    }
    return count;
}

size_t slice(std::span<const iovec> iov, IovCursor& at, uint64_t length, iovec* out) {
    size_t count = 0;
    while (length > 0) {
        const iovec& entry = iov[at.index];
        const uint64_t take = std::min<uint64_t>(length, entry.iov_len - at.within);
        if (take > 0)
            out[count++] = {static_cast<std::byte*>(entry.iov_base) + at.within, size_t{take}};
        length -= take;
        at.within += take;
        if (at.within == entry.iov_len) at = {at.index + 1, 0};
    }
    return count;
}

void block_crcs(std::span<const iovec> data, uint64_t offset, uint64_t length,
                std::span<uint32_t> out) {
    for_each_block(data, offset, length, out,
                   [](Bytes from, uint64_t, uint32_t crc) { return crc32c(from, crc); });
}

void copy_block_crcs(MutableBytes to, std::span<const iovec> data, uint64_t offset, uint64_t length,
                     std::span<uint32_t> out) {
    for_each_block(data, offset, length, out, [&](Bytes from, uint64_t at, uint32_t crc) {
        return copy_crc32c(to.subspan(at, from.size()), from, crc);
    });
}

uint64_t total_bytes(std::span<const iovec> iov) {
    uint64_t total = 0;
    for (const iovec& entry : iov) total += entry.iov_len;
    return total;
}

}  // namespace pf::client

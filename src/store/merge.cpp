// T14: commands that do not cover whole blocks, and compare-and-write. All of it runs under the
// range lock, against committed data, and every old block was verified before it is merged;
// replicas and the log get whole blocks only.
#include <algorithm>
#include <cstring>

#include "base/crc32c.hpp"
#include "base/planted.hpp"
#include "store/shard.hpp"

namespace pf::pfs {

using runtime::Task;

namespace {

// The parts of an edge scratch (Scratch::edge_bytes).
constexpr size_t last_block_at = block_bytes;
constexpr size_t crcs_at = size_t{2} * block_bytes;
constexpr size_t vectors_at = size_t{3} * block_bytes;
static_assert(crcs_at + tray::max_write_blocks * sizeof(uint32_t) <= vectors_at);
constexpr size_t max_vectors =
    size_t{tray::max_write_blocks} * block_bytes / Scratch::zeros_bytes + 4;
static_assert(vectors_at + max_vectors * sizeof(iovec) <= Scratch::edge_bytes);

uint32_t block_crc(const std::byte* block) {
    return crc32c({block, block_bytes});
}

}  // namespace

Task<Shard::Answer> Shard::prepare(Mutation& operation) {
    switch (operation.command.opcode) {
        case wire::Opcode::write:
            return merge_write(operation);
        case wire::Opcode::compare_and_write:
            return compare(operation);
        default:
            return merge_zeroes(operation);
    }
}

Task<Errc> Shard::read_old(uint32_t block, uint32_t count, MutableBytes to,
                           std::span<uint32_t> crcs) {
    tray::ReadRequest request;
    request.shard = state_.shard;
    request.snap_seq = state_.snap_seq;
    request.block = block;
    request.count = count;
    request.to = to;
    request.crcs = crcs;
    Task<Status> reading = tray_.read(request);
    const Status read = co_await reading;
    if (!read && read.error().code == Errc::corrupt && planted("skip_rmw_verify")) {
        co_return Errc::ok;
    }
    co_return read ? Errc::ok : read.error().code;
}

// The old content of the blocks that are covered in part: the first block in the first 4 KiB of the
// scratch, the last one, if it is another, in the second.
Task<Errc> Shard::read_edges(Mutation& operation) {
    ScratchPool& pool = context_.scratch.edges;
    while (!pool.available()) co_await pool.wait();
    operation.scratch = pool.take();
    std::byte* at = operation.scratch.data();
    const bool one_block = operation.block_count == 1;
    uint32_t crc = 0;
    if (operation.lead_bytes() != 0 || one_block) {
        Task<Errc> reading = read_old(operation.first_block, 1, {at, block_bytes}, {&crc, 1});
        const Errc status = co_await reading;
        if (status != Errc::ok) co_return status;
    }
    if (operation.tail_bytes() != 0 && !one_block) {
        const uint32_t last = operation.first_block + operation.block_count - 1;
        Task<Errc> reading = read_old(last, 1, {at + last_block_at, block_bytes}, {&crc, 1});
        const Errc status = co_await reading;
        if (status != Errc::ok) co_return status;
    }
    ++context_.stats.merged_writes;
    co_return Errc::ok;
}

// Puts what the client did not send around what it sent, in the buffer it was received into.
Task<Shard::Answer> Shard::merge_write(Mutation& operation) {
    net::Incoming& incoming = operation.incoming;
    const uint32_t lead = operation.lead_bytes();
    const uint32_t tail = operation.tail_bytes();
    PF_ASSERT(incoming.crc_count == operation.block_count);
    Task<Errc> reading = read_edges(operation);
    const Errc status = co_await reading;
    if (status != Errc::ok) co_return status;

    const std::byte* old = operation.scratch.data();
    std::byte* first = incoming.data.data();
    std::byte* last = first + size_t{operation.block_count - 1} * block_bytes;
    auto* crcs = const_cast<uint32_t*>(incoming.crcs().data());
    if (lead != 0) std::memcpy(first, old, lead);
    if (tail != 0) {
        const std::byte* old_last = operation.block_count == 1 ? old : old + last_block_at;
        std::memcpy(last + tail, old_last + tail, block_bytes - tail);
    }
    crcs[0] = block_crc(first);
    if (tail != 0) crcs[operation.block_count - 1] = block_crc(last);
    co_return Answer{};
}

// An unaligned zero range becomes one data record: zeros in the middle, merged blocks at the ends.
// One record under one name, so that a resend finds all of it or nothing (R8).
Task<Shard::Answer> Shard::merge_zeroes(Mutation& operation) {
    Task<Errc> reading = read_edges(operation);
    const Errc status = co_await reading;
    if (status != Errc::ok) co_return status;

    const uint32_t lead = operation.lead_bytes();
    const uint32_t tail = operation.tail_bytes();
    std::byte* first = operation.scratch.data();
    std::byte* last = operation.block_count == 1 ? first : first + last_block_at;
    const std::span<uint32_t> crcs(reinterpret_cast<uint32_t*>(first + crcs_at),
                                   operation.block_count);
    auto* vectors = reinterpret_cast<iovec*>(first + vectors_at);
    uint32_t vector_count = 0;
    std::fill(crcs.begin(), crcs.end(), crc32c_of_zero_block());
    uint32_t zero_blocks = operation.block_count;
    if (operation.block_count == 1) {
        std::memset(first + lead, 0, operation.command.length);
    } else {
        if (lead != 0) std::memset(first + lead, 0, block_bytes - lead);
        if (tail != 0) std::memset(last, 0, tail);
    }
    if (lead != 0 || operation.block_count == 1) {
        crcs.front() = block_crc(first);
        vectors[vector_count++] = {first, block_bytes};
        --zero_blocks;
    }
    const bool merged_last = tail != 0 && operation.block_count > 1;
    if (merged_last) {
        crcs.back() = block_crc(last);
        --zero_blocks;
    }
    for (size_t left = size_t{zero_blocks} * block_bytes; left > 0;) {
        const size_t piece = std::min(left, Scratch::zeros_bytes);
        vectors[vector_count++] = {context_.scratch.zeros.data(), piece};
        left -= piece;
    }
    if (merged_last) vectors[vector_count++] = {last, block_bytes};
    operation.record.kind = tray::WriteKind::data;
    operation.record.data = {vectors, vector_count};
    operation.record.crcs = crcs;
    co_return Answer{};
}

// Compares with what is committed; the new bytes are then laid over the old blocks.
Task<Shard::Answer> Shard::compare(Mutation& operation) {
    ScratchPool& pool = context_.scratch.compares;
    while (!pool.available()) co_await pool.wait();
    operation.scratch = pool.take();
    std::byte* old = operation.scratch.data();
    const std::span<uint32_t> crcs(
        reinterpret_cast<uint32_t*>(old + Scratch::compare_blocks * block_bytes),
        operation.block_count);
    const size_t bytes = size_t{operation.block_count} * block_bytes;
    Task<Errc> reading = read_old(operation.first_block, operation.block_count, {old, bytes}, crcs);
    const Errc status = co_await reading;
    if (status != Errc::ok) co_return status;

    const uint32_t length = operation.command.length;
    std::byte* target = old + operation.lead_bytes();
    if (std::memcmp(target, operation.incoming.part(0).data(), length) != 0) {
        co_return Errc::miscompare;
    }
    std::memcpy(target, operation.incoming.part(1).data(), length);
    for (uint32_t i = 0; i < operation.block_count; ++i) {
        crcs[i] = block_crc(old + size_t{i} * block_bytes);
    }
    operation.whole = {old, bytes};
    operation.record.data = {&operation.whole, 1};
    operation.record.crcs = crcs;
    co_return Answer{};
}

}  // namespace pf::pfs

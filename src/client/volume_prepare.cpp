// From a piece of an I/O to the command that carries it: which bytes travel, in which memory they
// land.
#include <algorithm>

#include "client/volume_core.hpp"

namespace pf::client {

namespace {

alignas(block_bytes) const std::byte zero_block[block_bytes] = {};

wire::Opcode opcode_of(IoKind kind) {
    switch (kind) {
        case IoKind::read:
            return wire::Opcode::read;
        case IoKind::write:
            return wire::Opcode::write;
        case IoKind::flush:
            return wire::Opcode::flush;
        case IoKind::discard:
            return wire::Opcode::discard;
        case IoKind::write_zeroes:
            return wire::Opcode::write_zeroes;
        case IoKind::compare_and_write:
            return wire::Opcode::compare_and_write;
        case IoKind::block_states:
            return wire::Opcode::block_states;
    }
    return wire::Opcode::ping;
}

}  // namespace

// Everything of the command that stays the same however often it is sent. False: no memory now.
bool VolumeCore::prepare(Piece& piece, OpenIo& open, Cut part) {
    const Io& io = *open.io;
    wire::Command& command = piece.command;
    command.opcode = part.zeroes_as_data ? wire::Opcode::write : opcode_of(io.kind);
    command.flags = wire::flag_none;
    if (command.opcode == wire::Opcode::write_zeroes && io.no_hole)
        command.flags = wire::flag_no_hole;
    command.offset = piece.offset % info_.shard_bytes;
    command.length = static_cast<uint32_t>(piece.length);
    command.snap_seq = wire::head_generation;
    command.request_id = 0;
    command.writer_token = piece.is_write ? writer_token_ : 0;
    command.lowest_outstanding_delta = 0;
    piece.crcs = {};
    piece.data = {};
    piece.into = {};
    piece.crcs_into = {};
    piece.sent = piece.wants_copy = piece.done = piece.expired = false;
    piece.tries = 0;
    piece.result = Errc::ok;

    IovCursor cursor = open.cursor;
    bool ready = true;
    if (io.kind == IoKind::read) {
        ready = prepare_read(piece, io, cursor);
    } else if (io.kind == IoKind::block_states) {
        ready = prepare_block_states(piece);
    } else if (command.opcode == wire::Opcode::write ||
               command.opcode == wire::Opcode::compare_and_write) {
        ready = prepare_write(piece, io, cursor, part.zeroes_as_data);
    }
    if (ready) open.cursor = cursor;
    return ready;
}

// Reads travel as whole blocks (T14): what the user did not ask for lands in bounce blocks.
bool VolumeCore::prepare_read(Piece& piece, const Io& io, IovCursor& cursor) {
    const uint64_t begin = round_down(piece.offset, block_bytes);
    const uint64_t end = round_up(piece.offset + piece.length, block_bytes);
    const size_t lead = piece.offset - begin;
    const size_t tail = end - piece.offset - piece.length;
    piece.command.offset -= lead;
    piece.command.length = static_cast<uint32_t>(end - begin);
    if (lead == 0 && tail == 0 && piece.length == io.length) {
        piece.into = io.data;
        return true;
    }
    if (lead != 0 || tail != 0) {
        piece.memory = reactor_.buffers().try_allocate(size_t{2} * block_bytes);
        if (!piece.memory) return false;
    }
    iovec* slices = take_slices(piece, slices_needed(io.data, cursor, piece.length) + 2);
    if (slices == nullptr) return false;
    size_t count = 0;
    if (lead != 0) slices[count++] = {piece.memory.data(), lead};
    count += slice(io.data, cursor, piece.length, slices + count);
    if (tail != 0) slices[count++] = {piece.memory.data() + block_bytes, tail};
    piece.into = {slices, count};
    return true;
}

// Not before it is this one's turn: who holds memory and waits in line behind a piece that waits
// for memory would wait for ever.
bool VolumeCore::prepare_block_states(Piece& piece) {
    piece.memory = reactor_.buffers().try_allocate(wire::max_block_runs * sizeof(wire::BlockRun));
    piece.slices[0] = {piece.memory.data(), piece.memory.size()};
    piece.into = {piece.slices.data(), 1};
    return bool(piece.memory);
}

bool VolumeCore::prepare_write(Piece& piece, const Io& io, IovCursor& cursor, bool zeroes_as_data) {
    const uint32_t blocks = wire::blocks_touched(piece.offset, piece.length);
    const std::span<uint32_t> crcs{piece.crc_values.data(), blocks};
    piece.crcs = crcs;
    if (zeroes_as_data) {
        piece.slices[0] = {const_cast<std::byte*>(zero_block), size_t{piece.length}};
        piece.data = {piece.slices.data(), 1};
        block_crcs(piece.data, piece.offset, piece.length, crcs);
        return true;
    }
    if (io.kind == IoKind::compare_and_write) {
        iovec* slices = take_slices(piece, io.expected.size() + io.data.size());
        if (slices == nullptr) return false;
        std::ranges::copy(io.expected, slices);
        std::ranges::copy(io.data, slices + io.expected.size());
        piece.data = {slices, io.expected.size() + io.data.size()};
        const std::span<uint32_t> both{piece.crc_values.data(), 2 * size_t{blocks}};
        piece.crcs = both;
        if (piece.data.size() > net::max_data_vectors) return make_stable_copy(piece);
        block_crcs(io.expected, piece.offset, piece.length, both.first(blocks));
        block_crcs(io.data, piece.offset, piece.length, both.last(blocks));
        return true;
    }
    if (piece.length == io.length) {
        piece.data = io.data;
    } else {
        iovec* slices = take_slices(piece, slices_needed(io.data, cursor, piece.length));
        if (slices == nullptr) return false;
        const size_t count = slice(io.data, cursor, piece.length, slices);
        piece.data = {slices, count};
    }
    // More vectors than one send takes are copied together.
    if (piece.data.size() > net::max_data_vectors) return make_stable_copy(piece);
    block_crcs(piece.data, piece.offset, piece.length, crcs);
    return true;
}

iovec* VolumeCore::take_slices(Piece& piece, size_t count) {
    if (count <= Piece::inline_slices) return piece.slices.data();
    piece.slice_memory = reactor_.buffers().try_allocate(count * sizeof(iovec));
    return reinterpret_cast<iovec*>(piece.slice_memory.data());
}

}  // namespace pf::client

// One write-like command (write, discard, write_zeroes, compare_and_write) while it runs. It lives
// in the coroutine frame of Shard::mutate, and everything that queues it is embedded here, so that
// running one allocates nothing.
//
// A command is one record under one request name (R8): the client splits at chunk borders and gives
// every piece a name of its own. That is why a range may not cross a chunk.
#pragma once

#include <optional>

#include "net/channel.hpp"
#include "store/in_flight.hpp"
#include "store/range_lock.hpp"
#include "tray/tray.hpp"

namespace pf::pfs {

struct Mutation : ListHook {  // in Shard::numbered_, in the order of sequence numbers
    Mutation(uint64_t session, net::Incoming& from)
        : incoming(from),
          command(from.command),
          name(session, command.request_id),
          first_block(static_cast<uint32_t>(command.offset / block_bytes)),
          block_count(wire::blocks_touched(command.offset, command.length)),
          range(first_block, block_count) {}

    [[nodiscard]] uint32_t lead_bytes() const {
        return static_cast<uint32_t>(command.offset % block_bytes);
    }
    // Bytes of the range in its last block; 0: up to its end.
    [[nodiscard]] uint32_t tail_bytes() const {
        return static_cast<uint32_t>((command.offset + command.length) % block_bytes);
    }
    [[nodiscard]] bool unaligned() const { return lead_bytes() != 0 || tail_bytes() != 0; }

    net::Incoming& incoming;
    const wire::Command& command;
    InFlight::Entry name;
    uint32_t first_block;
    uint32_t block_count;
    RangeLock::Range range;

    // What goes to the tray.
    tray::WriteRequest record;
    tray::Reservation reservation;
    iovec whole{};            // data in one piece
    runtime::Buffer scratch;  // old blocks; back to its ScratchPool at the end

    // Where the time went, for the slow I/O log.
    runtime::Nanos started_at = 0;
    runtime::Nanos locked_at = 0;
    runtime::Nanos submitted_at = 0;
    runtime::Nanos durable_at = 0;
};

}  // namespace pf::pfs

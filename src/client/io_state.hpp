// What a volume keeps for each I/O in flight. All of it is made when the volume is opened: an
// OpenIo for each I/O that `depth` allows, and Pieces that they share. Nothing here allocates
// later, except that unusual pieces borrow pool memory.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "base/list.hpp"
#include "client/split.hpp"
#include "client/volume.hpp"
#include "net/channel.hpp"
#include "runtime/buffer_pool.hpp"
#include "runtime/pause.hpp"
#include "runtime/sync.hpp"
#include "runtime/timer.hpp"

namespace pf::client {

class VolumeCore;
struct OpenIo;
struct ShardLink;

// A list element that says whose it is: one object can be in several lists.
template <class T>
struct Link : ListHook {
    explicit Link(T& of) : owner(of) {}
    T& owner;
};

// One command's worth of an I/O: its name (R8) stays the same however often it is sent.
struct Piece : net::Request {
    explicit Piece(VolumeCore& of) : core(of) {}

    VolumeCore& core;
    OpenIo* io = nullptr;
    ShardLink* shard = nullptr;
    Link<Piece> in_shard{*this};  // the shard's writes or reads in flight, in request-id order

    uint64_t offset = 0;  // within the volume
    uint64_t length = 0;

    bool is_write = false;    // has a request id
    bool in_channel = false;  // the request is with the channel, and so is its memory
    bool sent = false;        // some store may have seen it
    bool wants_copy = false;  // T13: to be copied before it is sent again
    bool done = false;        // `result` is final; waiting only for the channel to let go
    // Past its deadline: of a write only an abort goes out now, and its answer decides (R10); a
    // read ends when the channel lets go of its memory.
    bool expired = false;
    bool abort_in_channel = false;
    uint8_t tries = 0;  // rereads or payload copies
    Errc result = Errc::ok;
    struct Abort : net::Request {
        explicit Abort(Piece& of) : piece(of) {}
        Piece& piece;
    } abort{*this};

    static constexpr size_t inline_slices = 4;
    std::array<iovec, inline_slices> slices{};
    iovec only_slice{};            // of a copied payload
    runtime::Buffer slice_memory;  // when there are more
    // Bounce blocks of a read, the stable copy of a write (T13), or block states.
    runtime::Buffer memory;

    // 1 MiB that starts inside a block touches 257 blocks.
    static constexpr size_t max_crcs = wire::max_data_bytes / block_bytes + 1;
    std::array<uint32_t, max_crcs> crc_values{};

    // What the ordered list of the shard is sorted by.
    [[nodiscard]] uint64_t request_id() const { return command.request_id; }
};

// One accepted I/O. Its pieces are cut off the front as piece slots become free.
struct OpenIo {
    Io* io = nullptr;
    Link<OpenIo> in_queue{*this};   // to be cut, or held behind an aborted write; or free
    Link<OpenIo> in_writes{*this};  // everything a later flush waits for, and flushes
    Link<OpenIo> in_deadlines{*this};
    uint64_t cut_bytes = 0;  // of io->length, already handed to pieces
    IovCursor cursor;
    uint32_t pieces = 0;  // in flight
    Errc result = Errc::ok;
    runtime::Nanos deadline = runtime::never;
    bool held = false;
};

struct VolumeTimer : runtime::Timer {
    VolumeTimer(Fire fire_function, VolumeCore& of) : Timer(fire_function), core(of) {}
    VolumeCore& core;
};

// The way to one shard: where its primary is, the connection to it, and what is in flight there.
// Everything in `writes` and `reads` that is not in the channel waits for the next issue_pending().
struct ShardLink {
    explicit ShardLink(uint32_t shard_index) : index(shard_index) {}

    uint32_t index;
    uint64_t shard_id = 0;
    uint32_t epoch = 0;
    std::string address;  // empty: not known
    std::unique_ptr<net::ClientChannel> channel;

    List<Link<Piece>> writes;  // by request id: the front is the lowest outstanding one
    List<Link<Piece>> reads;
    uint64_t next_request_id = 1;  // R8: requests of a session are numbered from 1 in each shard

    bool running = false;         // its coroutine is alive
    bool watching = false;        // the coroutine that waits for the disconnect is alive
    bool session_open = false;    // the store has our session, durably
    bool refresh_wanted = false;  // the location or epoch we know is refused
    bool drop_wanted = false;     // end the connection: a read is past its deadline
    bool ever_connected = false;
    bool parting = false;  // ends the connection because others are needed more
    bool woken = false;
    uint64_t last_used = 0;  // in commands of the volume
    uint32_t failures = 0;   // since something last succeeded: paces the attempts
    runtime::WaitQueue wake_queue;
    runtime::Pause pause;

    void wake() {
        woken = true;
        wake_queue.wake_all();
    }
    [[nodiscard]] bool usable() const {
        return channel != nullptr && channel->connected() && !refresh_wanted && !drop_wanted;
    }
    [[nodiscard]] bool wanted() { return !writes.empty() || !reads.empty(); }
};

}  // namespace pf::client

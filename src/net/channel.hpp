// The transport seam: one upper layer over TCP now, shared memory and RDMA later.
//
// A ClientChannel issues commands and matches completions; a ServerChannel receives commands and
// sends completions. Both batch: one large receive per turn is parsed for as many messages as it
// holds, and everything queued in a turn leaves in one send. Data up to `copy_limit_bytes` is
// copied once out of the receive batch, with its checksum in the same pass; larger data is received
// straight into place.
//
// Thread rule: one reactor. Bounded: commands in flight by the credits of the handshake; a peer
// that exceeds them, or sends anything malformed, is disconnected with one log line.
#pragma once

#include <sys/uio.h>

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "runtime/reactor.hpp"
#include "runtime/sync.hpp"
#include "wire/message.hpp"

namespace pf::net {

inline constexpr uint32_t copy_limit_bytes = 32u << 10;
inline constexpr uint32_t max_connections = 4096;   // of one server; more are refused
inline constexpr uint32_t max_data_vectors = 1000;  // of one request

// --- client side ---

// One command in flight, embedded in its issuer. Memory named here stays valid until `complete`.
// The same object may be issued again (resend) after it completed.
struct Request : ListHook {
    wire::Command command;  // command_id, version, payload_length and crc are filled in here
    std::span<const uint32_t> crcs;  // of the data sent; empty for commands without data
    std::span<const iovec>
        data;  // data sent: `command.length` bytes (twice that for compare-and-write)
    std::span<const iovec>
        into;  // where data received goes; shorter than the reply: protocol error
    std::span<uint32_t> crcs_into;  // out: CRCs that came with it; may be empty
    wire::Completion completion;    // out, if `outcome` is ok
    // ok: a completion arrived (look at its status). corrupt: received data did not match its CRCs.
    // disconnected: outcome unknown, the channel is gone.
    Errc outcome = Errc::ok;
    void (*complete)(Request&) = nullptr;  // from the reactor loop, once per issue
    void* context = nullptr;               // for whoever set `complete`
    // Gives the memory for a reply whose length only the peer knows, instead of `into`. Called once
    // the length was found within its limit.
    std::span<const iovec> (*make_room)(Request&, uint32_t bytes) = nullptr;
};

struct ClientOptions {
    wire::Role role = wire::Role::client;
    uint16_t depth = 128;
    uint64_t session = 0;
    uint64_t shard = 0;
    runtime::Nanos connect_timeout = 4 * runtime::seconds;  // including the handshake
};

class ClientChannel {
  public:
    [[nodiscard]] static runtime::Task<Result<std::unique_ptr<ClientChannel>>> connect(
        runtime::Address address, ClientOptions options);
    virtual ~ClientChannel() = default;

    // Queues the request; when credits are used up it waits in line here. Allocates nothing.
    virtual void issue(Request& request) = 0;
    // co_await call(request): issues and waits; look at request.outcome afterwards.
    class CallAwaiter;
    [[nodiscard]] CallAwaiter call(Request& request);

    // Ends the connection; everything in flight completes with `disconnected`. Wait for it before
    // destroying the channel.
    [[nodiscard]] virtual runtime::Task<void> close() = 0;
    [[nodiscard]] virtual bool connected() const = 0;
    // co_await: returns when the connection is gone, for whatever reason.
    [[nodiscard]] virtual runtime::Task<void> wait_disconnected() = 0;
    [[nodiscard]] virtual uint32_t in_flight() const = 0;
    [[nodiscard]] virtual const wire::HelloReply& hello() const = 0;
    // Why the connection ended, once it has.
    [[nodiscard]] virtual const Error& failure() const = 0;
};

class ClientChannel::CallAwaiter {
  public:
    CallAwaiter(ClientChannel& channel, Request& request) : channel_(channel), request_(request) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter);
    void await_resume() const noexcept {}

  private:
    ClientChannel& channel_;
    Request& request_;
};

inline ClientChannel::CallAwaiter ClientChannel::call(Request& request) {
    return {*this, request};
}

// --- server side ---

class ServerChannel;

// A received command. Its data was checked against its CRCs while it was received; `payload_ok`
// says how that ended (T13: the handler answers bad_payload). Buffers go back to the pool with it.
struct Incoming {
    wire::Command command;
    // Aligned, whole blocks. The two halves of a compare-and-write follow each other, each in whole
    // blocks of its own: see part().
    runtime::Buffer data;
    runtime::Buffer crcs_memory;  // used when there are more than inline_crcs
    static constexpr uint32_t inline_crcs = 10;
    uint32_t crcs_inline[inline_crcs] = {};
    uint32_t crc_count = 0;
    bool payload_ok = true;
    runtime::Nanos received_at = 0;

    [[nodiscard]] std::span<const uint32_t> crcs() const {
        const auto* at = crc_count <= inline_crcs
                             ? crcs_inline
                             : reinterpret_cast<const uint32_t*>(crcs_memory.data());
        return {at, crc_count};
    }
    // For a write whose range is not block-aligned: data begins this far into the first block of
    // `data`, so that whole blocks are in place for read-modify-write (T14).
    [[nodiscard]] uint32_t lead_bytes() const {
        return static_cast<uint32_t>(command.offset % block_bytes);
    }
    // The bytes that were sent, `command.length` of them; for a compare-and-write, half 0 is to
    // compare and half 1 to write.
    [[nodiscard]] MutableBytes part(uint32_t half = 0) const {
        const size_t area =
            size_t{wire::blocks_touched(command.offset, command.length)} * block_bytes;
        return {data.data() + half * area + lead_bytes(), command.length};
    }
};

// What goes back. `data` is moved in and returns to the pool when it was sent. Data of a read that
// succeeded is cut into CRC pieces at the volume's block borders, all other data from its own
// start; up to inline_crcs pieces may be left to the channel to compute (crc_count 0). Data that
// goes with an error is its message, as text.
struct Reply {
    wire::Completion
        completion;  // opcode, command_id, lengths and crc are filled in by the channel
    runtime::Buffer data;
    uint32_t data_begin = 0;  // where in `data` the bytes to send begin
    uint32_t data_length = 0;
    runtime::Buffer crcs_memory;
    uint32_t crcs_inline[Incoming::inline_crcs] = {};
    uint32_t crc_count = 0;
    [[nodiscard]] std::span<uint32_t> make_crcs(runtime::Buffer memory_if_large, uint32_t count);
};

class Handler;

// Who serves a connection, and on which reactor.
struct Route {
    runtime::Reactor* reactor = nullptr;
    Handler* handler = nullptr;
};

// Implemented by the store and the conductor.
class Handler {
  public:
    virtual ~Handler() = default;
    // On the listening reactor, after a Hello was decoded there: the connection is handed to this
    // handler on its reactor, where everything below is called. Both outlive the server.
    [[nodiscard]] virtual Route route(const wire::Hello& hello) {
        static_cast<void>(hello);
        return {&runtime::Reactor::current(), this};
    }
    // First of a connection: accept (grant depth in `reply`, fill cluster and incarnation) or
    // refuse with an error, which is sent and ends the connection.
    [[nodiscard]] virtual Status on_hello(ServerChannel& channel, const wire::Hello& hello,
                                          wire::HelloReply& reply) = 0;
    // One command. Runs as a coroutine of its own for each; must end with exactly one
    // channel.reply(). `channel` stays valid until all its commands are answered.
    [[nodiscard]] virtual runtime::Task<void> on_command(ServerChannel& channel,
                                                         Incoming incoming) = 0;
    // After on_hello accepted, the connection is gone and every command was answered: the last that
    // is heard of `channel`.
    virtual void on_disconnect(ServerChannel& channel) = 0;
    // A peer was disconnected for what it sent or failed to do: one line for the log.
    virtual void on_peer_error(const runtime::Address& peer, const Error& error) {
        static_cast<void>(peer);
        static_cast<void>(error);
    }
};

class ServerChannel {
  public:
    virtual ~ServerChannel() = default;
    // Answers `command`; leaves with the other answers of this turn. After a disconnect it is
    // dropped.
    virtual void reply(const wire::Command& command, Reply reply) = 0;
    [[nodiscard]] virtual const wire::Hello& hello() const = 0;
    [[nodiscard]] virtual const runtime::Address& peer() const = 0;
    virtual void disconnect() = 0;

    void* user = nullptr;  // for the handler
};

// Listens and serves until stop(). One per port. Accepts and receives hellos on the reactor that
// made it and hands each connection on (Handler::route); who is slow to say hello holds up nobody.
//
// Thread rule: the reactor that made it. Destroyed without stop() only where no other reactor
// serves connections of it.
class Server {
  public:
    [[nodiscard]] static Result<std::unique_ptr<Server>> listen(const runtime::Address& address,
                                                                Handler& handler);
    virtual ~Server() = default;
    [[nodiscard]] virtual const runtime::Address& local() const = 0;
    // Stops accepting, disconnects everyone, waits until every command was answered.
    [[nodiscard]] virtual runtime::Task<void> stop() = 0;
    [[nodiscard]] virtual uint32_t connections() const = 0;
};

}  // namespace pf::net

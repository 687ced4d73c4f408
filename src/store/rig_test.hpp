// A store on a simulated node and raw wire connections to it, for the tests of this folder.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/crc32c.hpp"
#include "runtime/sim/simulation.hpp"
#include "store/store.hpp"

namespace pf::pfs {

namespace sim = runtime::sim;
using runtime::Task;
using Data = std::vector<std::byte>;

inline Data filled(size_t bytes, uint8_t value) {
    return Data(bytes, std::byte{value});
}

inline Task<void> drop_channel(std::unique_ptr<net::ClientChannel> channel) {
    channel.reset();
    co_return;
}

// One connection of a client, with the names and versions that its commands carry. Destroyed
// outside the reactor's loop, so it ends its channel in there.
struct Peer {
    Peer() = default;
    Peer(const Peer&) = delete;
    Peer& operator=(const Peer&) = delete;
    ~Peer() {
        if (channel) reactor->spawn(drop_channel(std::move(channel)));
    }

    runtime::Reactor* reactor = nullptr;
    std::unique_ptr<net::ClientChannel> channel;
    uint64_t session = 0;
    uint64_t shard = 0;
    uint32_t epoch = 1;
    uint64_t token = 7;
    uint64_t next_request = 1;
    wire::Completion last;  // of the latest call
};

struct Call {
    wire::Opcode opcode = wire::Opcode::write;
    uint64_t offset = 0;
    uint32_t length = 0;
    uint64_t request = 0;  // 0: the peer's next
    uint64_t lowest = 0;   // 0: the request itself
    uint16_t flags = 0;
    Data data;             // sent
    bool damaged = false;  // the checksum does not match the data
    Data* into = nullptr;  // received
};

inline std::vector<uint32_t> piece_crcs(uint64_t offset, const std::byte* data, size_t bytes) {
    std::vector<uint32_t> crcs;
    for (size_t at = 0; at < bytes;) {
        const size_t piece =
            std::min<size_t>(block_bytes - (offset + at) % block_bytes, bytes - at);
        crcs.push_back(crc32c({data + at, piece}));
        at += piece;
    }
    return crcs;
}

inline Task<Errc> run_call(Peer& peer, Call call) {
    net::Request request;
    request.command.opcode = call.opcode;
    request.command.shard = peer.shard;
    request.command.offset = call.offset;
    request.command.length = call.length;
    request.command.flags = call.flags;
    request.command.epoch = peer.epoch;
    const bool named = call.opcode == wire::Opcode::write || call.opcode == wire::Opcode::discard ||
                       call.opcode == wire::Opcode::write_zeroes ||
                       call.opcode == wire::Opcode::compare_and_write ||
                       call.opcode == wire::Opcode::abort;
    if (named) {
        if (call.request == 0) call.request = peer.next_request++;
        request.command.request_id = call.request;
        const uint64_t lowest = call.lowest == 0 ? call.request : call.lowest;
        request.command.lowest_outstanding_delta = static_cast<uint32_t>(call.request - lowest);
    }
    request.command.writer_token = peer.token;
    std::vector<uint32_t> crcs;
    const iovec out{call.data.data(), call.data.size()};
    if (!call.data.empty()) {
        for (size_t at = 0; at < call.data.size(); at += call.length) {
            for (uint32_t crc : piece_crcs(call.offset, call.data.data() + at, call.length)) {
                crcs.push_back(crc);
            }
        }
        if (call.damaged) crcs[0] ^= 1;
        request.crcs = crcs;
        request.data = {&out, 1};
    }
    iovec in{};
    std::vector<uint32_t> crcs_in(wire::max_data_bytes / block_bytes);
    if (call.into != nullptr) {
        call.into->resize(call.opcode == wire::Opcode::read ? call.length : 64u << 10);
        in = {call.into->data(), call.into->size()};
        request.into = {&in, 1};
    }
    co_await peer.channel->call(request);
    if (request.outcome != Errc::ok) co_return request.outcome;
    peer.last = request.completion;
    co_return static_cast<Errc>(request.completion.status);
}

class Rig {
  public:
    static constexpr uint64_t shard_id = (uint64_t{1} << 20) | 0;
    static constexpr uint64_t session = 42;
    static constexpr uint32_t shard_blocks = 4096;

    explicit Rig(uint64_t seed = 1, uint64_t disk_bytes = uint64_t{64} << 20)
        : simulation({.seed = seed}),
          server(simulation.add_node("server")),
          client(simulation.add_node("client")),
          disk(server.add_disk("disk0", {.size_bytes = disk_bytes})) {
        server.start([this](sim::SimReactor& reactor) { return boot(reactor); });
        client.start();
        EXPECT_TRUE(simulation.run_until([&] { return process->ready; },
                                         simulation.now() + 60 * runtime::seconds));
    }

    // Formats the tray and creates the shard: done once.
    void create() {
        ASSERT_TRUE(on_server(add_tray()));
        ASSERT_TRUE(on_server(apply(1, 7)));
    }
    void restart() {
        server.restart();
        ASSERT_TRUE(simulation.run_until([&] { return process->ready; },
                                         simulation.now() + 60 * runtime::seconds));
    }
    [[nodiscard]] Store& store() { return *process->store; }

    // A connection with an open session.
    std::unique_ptr<Peer> connect(uint64_t of_session = session, bool open = true) {
        auto peer = std::make_unique<Peer>();
        peer->session = of_session;
        peer->shard = shard_id;
        const Errc status = try_connect(*peer, open);
        if (status != Errc::ok) ADD_FAILURE() << "connect: " << describe(status);
        return peer;
    }
    Errc try_connect(Peer& peer, bool open = true) {
        const auto status = simulation.run_task(client, dial(peer, open));
        EXPECT_TRUE(status.has_value()) << "connecting did not end";
        return status.value_or(Errc::timed_out);
    }
    void disconnect(Peer& peer) {
        EXPECT_TRUE(simulation.run_task(client, close_channel(*peer.channel)));
        simulation.run_for(runtime::milliseconds);
    }
    // close() acts at once: only inside the client's reactor.
    static runtime::Task<void> close_channel(net::ClientChannel& channel) {
        co_await channel.close();
    }
    Errc call(Peer& peer, Call call) {
        const auto status = simulation.run_task(client, run_call(peer, std::move(call)));
        EXPECT_TRUE(status.has_value()) << "the call did not end";
        return status.value_or(Errc::timed_out);
    }
    Errc write(Peer& peer, uint64_t offset, Data data, uint64_t request = 0) {
        Call one;
        one.offset = offset;
        one.length = static_cast<uint32_t>(data.size());
        one.request = request;
        one.data = std::move(data);
        return call(peer, std::move(one));
    }
    Errc abort(Peer& peer, uint64_t request) {
        Call one;
        one.opcode = wire::Opcode::abort;
        one.request = request;
        return call(peer, std::move(one));
    }
    Errc zero(Peer& peer, wire::Opcode opcode, uint64_t offset, uint32_t length) {
        Call one;
        one.opcode = opcode;
        one.offset = offset;
        one.length = length;
        return call(peer, std::move(one));
    }
    Errc compare_and_write(Peer& peer, uint64_t offset, const Data& expected, const Data& fresh) {
        Call one;
        one.opcode = wire::Opcode::compare_and_write;
        one.offset = offset;
        one.length = static_cast<uint32_t>(fresh.size());
        one.data = expected;
        one.data.insert(one.data.end(), fresh.begin(), fresh.end());
        return call(peer, std::move(one));
    }
    Errc read(Peer& peer, uint64_t offset, uint32_t length, Data& into) {
        Call one;
        one.opcode = wire::Opcode::read;
        one.offset = offset;
        one.length = length;
        one.into = &into;
        return call(peer, std::move(one));
    }
    // The bytes there, or an empty vector and a test failure.
    Data bytes(Peer& peer, uint64_t offset, uint32_t length) {
        const uint64_t first = round_down(offset, block_bytes);
        const uint64_t end = round_up(offset + length, block_bytes);
        Data all;
        const Errc status = read(peer, first, static_cast<uint32_t>(end - first), all);
        EXPECT_EQ(status, Errc::ok) << describe(status);
        if (status != Errc::ok) return {};
        const auto begin = all.begin() + static_cast<ptrdiff_t>(offset - first);
        return {begin, begin + length};
    }

    Status on_server(Task<Status> task) {
        auto result = simulation.run_task(server, std::move(task));
        return result.has_value() ? *result : Status(fail(Errc::timed_out));
    }
    Task<Status> add_tray() {
        pureflash::v1::AddTrayRequest request;
        request.set_path("disk0");
        Task<Result<pureflash::v1::Tray>> adding = store().add_tray(request);
        PF_CO_TRY_ASSIGN(const pureflash::v1::Tray tray, co_await adding);
        tray_uuid = tray.uuid();
        co_return Status{};
    }
    Task<Status> apply(uint32_t epoch, uint64_t token, uint32_t blocks = shard_blocks) {
        pureflash::v1::ApplyShardsRequest all;
        pureflash::v1::ApplyShard& request = *all.add_shards();
        request.set_tray_uuid(tray_uuid);
        request.set_replica_uuid(Uuid::from_random(1, 2).text());
        request.set_fresh(!lost_before);
        request.mutable_shard()->set_id(shard_id);
        request.mutable_shard()->set_epoch(epoch);
        request.mutable_shard()->set_snap_seq(1);
        request.mutable_shard()->set_writer_token(token);
        request.mutable_shard()->set_size_bytes(uint64_t{blocks} * block_bytes);
        Task<Status> applying = store().apply_shards(all);
        Status applied = co_await applying;
        co_return applied;
    }

    struct Process {
        std::unique_ptr<Store> store;
        bool ready = false;
    };

    sim::Simulation simulation;
    sim::SimNode& server;
    sim::SimNode& client;
    sim::SimDisk& disk;
    Process* process = nullptr;    // the node's; replaced when it is started again
    std::vector<TrayPlace> trays;  // the list that is kept for the next start
    bool list_fails = false;       // it cannot be written
    std::string tray_uuid;
    bool lost_before = false;  // the shard is not new: apply() says that it has to be there

  private:
    std::shared_ptr<void> boot(sim::SimReactor& reactor) {
        auto fresh = std::make_shared<Process>();
        process = fresh.get();
        reactor.spawn(start_store(reactor, *fresh));
        return fresh;
    }
    Task<void> start_store(sim::SimReactor& reactor, Process& target) {
        StoreOptions options;
        options.id = Uuid::from_random(3, 4);
        options.cluster = Uuid::from_random(5, 6);
        options.trays = trays;
        options.listen = {"server", 49162};
        options.save_trays = [this](const std::vector<TrayPlace>& places) {
            if (list_fails) return Status(fail(Errc::no_space));
            trays = places;
            return Status{};
        };
        Task<Result<std::unique_ptr<Store>>> starting = Store::start(reactor, options);
        Result<std::unique_ptr<Store>> started = co_await starting;
        EXPECT_TRUE(started.has_value());
        if (!started) co_return;
        target.store = std::move(*started);
        target.ready = true;
    }
    Task<Errc> dial(Peer& peer, bool open) {
        net::ClientOptions options;
        options.session = peer.session;
        options.shard = peer.shard;
        const runtime::Address address{"server", 49162};
        Task<Result<std::unique_ptr<net::ClientChannel>>> connecting =
            net::ClientChannel::connect(address, options);
        Result<std::unique_ptr<net::ClientChannel>> connected = co_await connecting;
        if (!connected) co_return connected.error().code;
        peer.reactor = &runtime::Reactor::current();
        peer.channel = std::move(*connected);
        if (!open) co_return Errc::ok;
        Call call;
        call.opcode = wire::Opcode::open_session;
        Data reply;
        call.into = &reply;
        Task<Errc> opening = run_call(peer, call);
        const Errc opened = co_await opening;
        co_return opened;
    }
};

inline Task<void> send_into(Peer& peer, Call call, Errc& status) {
    Task<Errc> running = run_call(peer, std::move(call));
    status = co_await running;
}

inline Call rpc_call(const pureflash::v1::RpcRequest& request, Data& answer) {
    const std::string text = request.SerializeAsString();
    Call call;
    call.opcode = wire::Opcode::rpc;
    call.length = static_cast<uint32_t>(text.size());
    call.data.assign(as_bytes(text).begin(), as_bytes(text).end());
    call.into = &answer;
    return call;
}

}  // namespace pf::pfs

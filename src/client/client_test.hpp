// A conductor and a store in memory, for the client's tests in the simulator. What a real store
// keeps on its trays lives in FakeTray and outlives the store's process: data, sessions, and the
// names of the requests applied (R8) or voided (R10). It refuses whatever would break those rules,
// and counts what tests want to know.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <set>

#include "base/crc32c.hpp"
#include "base/ports.hpp"
#include "client/volume.hpp"
#include "net/channel.hpp"
#include "net/rpc.hpp"
#include "proto/rpc.pb.h"
#include "runtime/sim/simulation.hpp"

namespace pf::client {

inline constexpr uint16_t store_port = 49162;
inline constexpr uint16_t conductor_port = 49182;
inline constexpr uint64_t test_shard_bytes = uint64_t{4} << 20;
inline constexpr uint64_t test_volume_bytes = uint64_t{10} << 20;
inline constexpr uint64_t test_volume_id = 3;

struct FakeTray {
    struct Session {
        std::set<uint64_t> applied;
        std::set<uint64_t> voided;
    };
    std::vector<std::byte> bytes = std::vector<std::byte>(test_volume_bytes);
    std::map<std::pair<uint64_t, uint64_t>, Session> sessions;  // by shard and session
    uint32_t epoch = 1;
    uint64_t applied = 0;   // mutations that ran
    uint64_t answered = 0;  // resends found applied
};

class FakeStore : public net::Handler {
  public:
    explicit FakeStore(FakeTray& tray_of) : tray(tray_of) {}

    Status on_hello(net::ServerChannel&, const wire::Hello&, wire::HelloReply& reply) override {
        if (depth != 0) reply.depth = depth;
        most_connected = std::max(most_connected, ++connected);
        return {};
    }
    void on_disconnect(net::ServerChannel&) override { --connected; }

    runtime::Task<void> on_command(net::ServerChannel& channel, net::Incoming incoming) override {
        if (delay_max > 0)
            co_await runtime::sleep_for(runtime::Reactor::current().rng().below(delay_max));
        const wire::Command& command = incoming.command;
        const bool is_write = command.request_id != 0 && command.opcode != wire::Opcode::abort;
        while (hold_writes && is_write) co_await runtime::sleep_for(runtime::milliseconds);
        while (hold_reads && command.opcode == wire::Opcode::read)
            co_await runtime::sleep_for(runtime::milliseconds);
        while ((hold_opens && command.opcode == wire::Opcode::open_session) ||
               (hold_states && command.opcode == wire::Opcode::block_states))
            co_await runtime::sleep_for(runtime::milliseconds);
        net::Reply reply;
        Errc status = Errc::ok;
        if (is_write && is_last(lose_before)) channel.disconnect();
        if (command.epoch != tray.epoch) {
            status = Errc::stale_epoch;
        } else if (refuse_everything) {
            status = Errc::bad_payload;
        } else {
            switch (command.opcode) {
                case wire::Opcode::read:
                    status = read(command, reply);
                    break;
                case wire::Opcode::open_session:
                    tray.sessions[{command.shard, channel.hello().session}];
                    ++sessions_opened;
                    break;
                case wire::Opcode::close_session:
                    tray.sessions.erase({command.shard, channel.hello().session});
                    break;
                case wire::Opcode::abort:
                    status = abort(command, channel.hello().session);
                    break;
                case wire::Opcode::block_states:
                    status = states(command, reply);
                    break;
                default:
                    status = mutate(incoming, channel.hello().session);
                    break;
            }
        }
        if (is_write && is_last(lose_after)) channel.disconnect();
        reply.completion.status = static_cast<uint16_t>(status);
        channel.reply(command, std::move(reply));
    }

    // Counts one down; true at the one that was waited for.
    static bool is_last(uint32_t& left) {
        if (left == 0) return false;
        --left;
        return left == 0;
    }

    Errc read(const wire::Command& command, net::Reply& reply) {
        EXPECT_EQ(command.offset % block_bytes, 0u);
        EXPECT_EQ(command.length % block_bytes, 0u);
        const uint32_t count = command.length / block_bytes;
        runtime::BufferPool& pool = runtime::Reactor::current().buffers();
        reply.data = pool.try_allocate(command.length);
        runtime::Buffer memory;
        if (count > net::Incoming::inline_crcs) memory = pool.try_allocate(size_t{count} * 4);
        const Bytes from = Bytes(tray.bytes).subspan(at(command), command.length);
        std::memcpy(reply.data.data(), from.data(), from.size());
        reply.data_length = command.length;
        const auto crcs = reply.make_crcs(std::move(memory), count);
        for (uint32_t i = 0; i < count; ++i)
            crcs[i] = crc32c(from.subspan(size_t{i} * block_bytes, block_bytes));
        if (damage_reads > 0) {
            --damage_reads;
            reply.data.data()[7] ^= std::byte{1};
        }
        ++reads;
        return Errc::ok;
    }

    Errc states(const wire::Command& command, net::Reply& reply) {
        std::vector<wire::BlockRun> runs;
        for (uint64_t block = 0; block < command.length / block_bytes; ++block) {
            const Bytes data = Bytes(tray.bytes).subspan(at(command) + block * block_bytes, 4096);
            const uint32_t state =
                std::ranges::all_of(data, [](std::byte b) { return b == std::byte{0}; }) ? 0 : 2;
            if (runs.empty() || runs.back().state != state) {
                if (runs.size() == 8) break;  // fewer than the client has room for
                runs.push_back({0, state});
            }
            ++runs.back().blocks;
        }
        const Bytes bytes = std::as_bytes(std::span(runs));
        reply.data = runtime::Reactor::current().buffers().try_allocate(bytes.size());
        std::memcpy(reply.data.data(), bytes.data(), bytes.size());
        reply.data_length = static_cast<uint32_t>(bytes.size());
        reply.make_crcs({}, 1)[0] = crc32c(bytes);
        return Errc::ok;
    }

    Errc abort(const wire::Command& command, uint64_t session) {
        auto& known = tray.sessions[{command.shard, session}];
        ++aborts;
        if (refuse_aborts > 0) {
            --refuse_aborts;
            return Errc::unavailable;
        }
        if (known.applied.contains(command.request_id)) return Errc::ok;
        known.voided.insert(command.request_id);
        return Errc::never_applied;
    }

    Errc mutate(const net::Incoming& incoming, uint64_t session) {
        const wire::Command& command = incoming.command;
        if (!incoming.payload_ok || refuse_payloads > 0) {
            if (refuse_payloads > 0) --refuse_payloads;
            ++bad_payloads;
            return Errc::bad_payload;
        }
        if (force_status != Errc::ok) return force_status;
        if (command.shard == fenced_shard) return Errc::fenced;
        const auto found = tray.sessions.find({command.shard, session});
        if (found == tray.sessions.end()) return Errc::unknown_session;
        auto& [applied, voided] = found->second;
        const uint64_t lowest = command.request_id - command.lowest_outstanding_delta;
        applied.erase(applied.begin(), applied.lower_bound(lowest));
        voided.erase(voided.begin(), voided.lower_bound(lowest));
        EXPECT_LT(applied.size(), 1024u) << "R8: the client's window";
        EXPECT_EQ(command.offset / chunk_bytes,
                  (command.offset + command.length - 1) / chunk_bytes);
        if (voided.contains(command.request_id)) return Errc::never_applied;
        if (applied.contains(command.request_id)) {
            EXPECT_TRUE((command.flags & wire::flag_resent) != 0) << "a name was used twice";
            ++tray.answered;
            return Errc::ok;
        }
        const auto to = std::span(tray.bytes).subspan(at(command), command.length);
        if (command.opcode == wire::Opcode::write) {
            std::ranges::copy(incoming.part(), to.begin());
        } else if (command.opcode == wire::Opcode::compare_and_write) {
            if (!std::ranges::equal(incoming.part(0), to)) return Errc::miscompare;
            std::ranges::copy(incoming.part(1), to.begin());
        } else {
            EXPECT_EQ(command.offset % block_bytes, 0u);
            EXPECT_EQ(command.length % block_bytes, 0u);
            std::ranges::fill(to, std::byte{0});
        }
        applied.insert(command.request_id);
        ++tray.applied;
        return Errc::ok;
    }

    static uint64_t at(const wire::Command& command) {
        return (command.shard % (1 << 20)) * test_shard_bytes + command.offset;
    }

    FakeTray& tray;
    uint16_t depth = 0;
    runtime::Nanos delay_max = 0;
    bool hold_writes = false;
    bool hold_reads = false;
    bool hold_opens = false;
    std::atomic<bool> hold_states{false};
    uint32_t lose_before = 0;  // disconnect at the n-th write from now, before or after it ran
    uint32_t lose_after = 0;
    uint32_t damage_reads = 0;
    uint32_t refuse_payloads = 0;
    bool refuse_everything = false;  // with bad_payload
    uint32_t refuse_aborts = 0;
    Errc force_status = Errc::ok;
    uint64_t fenced_shard = 0;
    uint64_t reads = 0;
    uint64_t aborts = 0;
    uint64_t bad_payloads = 0;
    uint64_t sessions_opened = 0;
    uint32_t connected = 0;
    uint32_t most_connected = 0;
};

class FakeConductor : public net::Handler {
  public:
    explicit FakeConductor(FakeTray& tray_of) : tray(tray_of) {}

    Status on_hello(net::ServerChannel&, const wire::Hello&, wire::HelloReply&) override {
        return {};
    }
    void on_disconnect(net::ServerChannel&) override {}
    runtime::Task<void> on_command(net::ServerChannel& channel, net::Incoming incoming) override {
        pureflash::v1::RpcRequest request;
        EXPECT_TRUE(request.ParseFromString(std::string(net::rpc_request(incoming))));
        if (hold_calls > 0) {
            --hold_calls;
            while (!release_calls) co_await runtime::sleep_for(runtime::milliseconds);
        }
        net::rpc_reply(channel, incoming.command, answer(request));
        co_return;
    }

    Result<std::string> answer(const pureflash::v1::RpcRequest& request) {
        pureflash::v1::RpcReply reply;
        if (request.has_open_volume()) {
            if (request.open_volume().name() != "v") return fail(Errc::not_found, "no such volume");
            fill(*reply.mutable_open_volume()->mutable_volume());
            if (!request.open_volume().read_only())
                reply.mutable_open_volume()->set_session(++sessions);
            reply.mutable_open_volume()->set_writer_token(1);
            reply.mutable_open_volume()->set_handle(++handles);
        } else if (request.has_list_shards()) {
            ++lists;
            const uint32_t end =
                request.list_shards().first_index() + request.list_shards().count();
            for (uint32_t i = request.list_shards().first_index(); i < std::min(end, 3u); ++i) {
                auto* location = reply.mutable_list_shards()->add_shards();
                location->mutable_shard()->set_id((test_volume_id << 20) + i);
                location->mutable_shard()->set_index(i);
                location->mutable_shard()->set_epoch(tray.epoch);
                location->set_primary_address(store_address);
            }
        } else if (request.has_stat_volume()) {
            fill(*reply.mutable_stat_volume()->mutable_volume());
        } else if (request.has_close_volume()) {
            ++closed;
            reply.mutable_close_volume();
        } else {
            return fail(Errc::unsupported, "not in this test");
        }
        return reply.SerializeAsString();
    }
    static void fill(pureflash::v1::Volume& volume) {
        volume.set_id(test_volume_id);
        volume.set_name("v");
        volume.set_size_bytes(test_volume_bytes);
        volume.set_shard_bytes(test_shard_bytes);
        volume.set_replicas(1);
    }

    FakeTray& tray;
    std::string store_address = fmt::format("store:{}", store_port);
    uint64_t sessions = 0;
    uint64_t handles = 0;
    uint64_t lists = 0;
    std::atomic<uint64_t> closed = 0;
    uint32_t hold_calls = 0;  // the next ones wait for `release_calls`
    bool release_calls = false;
};

// Nodes "store", "conductor" and "client". Handlers and tray outlive the processes.
class ClientTest : public ::testing::Test {
  public:
    explicit ClientTest(runtime::sim::SimOptions options = {}) : sim(options) {
        serve(store_node, store_port, store);
        serve(conductor_node, conductor_port, conductor);
        client.start();
    }
    static void serve(runtime::sim::SimNode& node, uint16_t port, net::Handler& handler) {
        node.start([port, &handler](runtime::sim::SimReactor&) -> std::shared_ptr<void> {
            auto made = net::Server::listen({"", port}, handler);
            EXPECT_TRUE(made.has_value());
            return std::shared_ptr<net::Server>(std::move(*made));
        });
    }
    void run(runtime::Task<void> body, runtime::Nanos limit = 600 * runtime::seconds) {
        EXPECT_TRUE(sim.run_task(client, std::move(body), limit)) << "did not finish";
    }

    FakeTray tray;
    FakeStore store{tray};
    FakeConductor conductor{tray};
    runtime::sim::Simulation sim;
    runtime::sim::SimNode& store_node = sim.add_node("store");
    runtime::sim::SimNode& conductor_node = sim.add_node("conductor");
    runtime::sim::SimNode& client = sim.add_node("client");
};

// A cluster and its volume, for the length of a test coroutine.
struct Opened {
    std::unique_ptr<Cluster> cluster;
    std::unique_ptr<Volume> volume;

    runtime::Task<void> close() {
        const Status closed = co_await volume->close();
        EXPECT_TRUE(closed.has_value());
        co_await cluster->close();
        volume.reset();
        cluster.reset();
    }
};
inline runtime::Task<Opened> open_volume(uint32_t depth = 16, runtime::Nanos io_timeout = 0,
                                         bool read_only = false, uint32_t max_channels = 512) {
    ClusterOptions options;
    options.max_channels = max_channels;
    options.conductor = {"conductor", conductor_port};
    options.client_name = "test";
    options.depth = depth;
    options.io_timeout = io_timeout;
    auto cluster = Cluster::create(options);
    Opened opened;
    opened.cluster = std::move(*cluster);
    std::string name = "v";
    auto volume = co_await opened.cluster->open(name, read_only, false);
    if (!volume) {
        ADD_FAILURE() << volume.error().text();
        std::abort();
    }
    opened.volume = std::move(*volume);
    co_return opened;
}

inline std::vector<std::byte> pattern(size_t bytes, uint64_t seed) {
    std::vector<std::byte> data(bytes);
    Rng rng(seed);
    for (std::byte& byte : data) byte = static_cast<std::byte>(rng.next());
    return data;
}

// One I/O with its memory in pieces of `piece` bytes; give it to Volume::run or submit.
struct TestIo : Io {
    TestIo(IoKind of, uint64_t at, std::vector<std::byte> bytes_of, size_t piece = SIZE_MAX)
        : bytes(std::move(bytes_of)) {
        kind = of;
        offset = at;
        length = bytes.size();
        for (size_t done = 0; done < bytes.size(); done += vectors.back().iov_len)
            vectors.push_back({bytes.data() + done, std::min(piece, bytes.size() - done)});
        data = vectors;
    }
    std::vector<std::byte> bytes;
    std::vector<iovec> vectors;
};

// One that is submitted and looked at later.
struct Observed : TestIo {
    using TestIo::TestIo;
    bool finished = false;
    void watch() {
        complete = [](Io& io) { static_cast<Observed&>(io).finished = true; };
    }
};

inline runtime::Task<Errc> run_io(Volume& volume, Io& io) {
    const Status done = co_await volume.run(io);
    co_return done ? Errc::ok : done.error().code;
}
inline runtime::Task<Errc> write(Volume& volume, uint64_t offset, std::vector<std::byte> bytes) {
    TestIo io(IoKind::write, offset, std::move(bytes));
    co_return co_await run_io(volume, io);
}

}  // namespace pf::client

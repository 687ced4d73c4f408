// What the net tests share: a volume in memory behind a Handler, requests that own their memory,
// and a simulated client and server.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "base/crc32c.hpp"
#include "net/channel.hpp"
#include "net/two_buffers.hpp"
#include "runtime/sim/simulation.hpp"

namespace pf::net {

inline constexpr uint16_t test_port = 49162;
inline constexpr size_t test_volume_bytes = size_t{4} << 20;

inline std::vector<uint32_t> crcs_of(uint64_t offset, Bytes data) {
    std::vector<uint32_t> crcs;
    size_t step = std::min<size_t>(data.size(), block_bytes - offset % block_bytes);
    while (!data.empty()) {
        crcs.push_back(crc32c(data.first(step)));
        data = data.subspan(step);
        step = std::min<size_t>(data.size(), block_bytes);
    }
    return crcs;
}

inline std::vector<std::byte> pattern(size_t bytes, uint64_t seed) {
    std::vector<std::byte> data(bytes);
    Rng rng(seed);
    for (std::byte& byte : data) byte = static_cast<std::byte>(rng.next());
    return data;
}

class MemoryVolume : public Handler {
  public:
    Status on_hello(ServerChannel&, const wire::Hello&, wire::HelloReply& reply) override {
        if (refuse_hello != Errc::ok) return fail(refuse_hello, "refused by the test");
        if (depth != 0) reply.depth = depth;
        reply.incarnation = 7;
        ++connected;
        return {};
    }
    void on_disconnect(ServerChannel&) override { --connected; }
    void on_peer_error(const runtime::Address&, const Error& error) override {
        peer_errors.push_back(error.text());
    }

    runtime::Task<void> on_command(ServerChannel& channel, Incoming incoming) override {
        ++commands;
        if (delay_max > 0)
            co_await runtime::sleep_for(runtime::Reactor::current().rng().below(delay_max));
        while (hold) co_await held.wait();
        const wire::Command& command = incoming.command;
        Reply reply;
        Errc status = Errc::ok;
        if (!incoming.payload_ok) {
            ++bad_payloads;
            status = Errc::bad_payload;
        } else if (command.opcode == wire::Opcode::write) {
            std::ranges::copy(incoming.part(), bytes.begin() + static_cast<long>(command.offset));
        } else if (command.opcode == wire::Opcode::compare_and_write) {
            status = compare_and_write(incoming);
        } else if (command.opcode == wire::Opcode::read) {
            const uint32_t count = wire::blocks_touched(command.offset, command.length);
            runtime::BufferPool& pool = runtime::Reactor::current().buffers();
            runtime::Buffer memory;
            co_await allocate_two(pool, command.length,
                                  count > Incoming::inline_crcs ? count * 4 : 0, reply.data,
                                  memory);
            std::memcpy(reply.data.data(), bytes.data() + command.offset, command.length);
            reply.data_length = command.length;
            const auto crcs = crcs_of(command.offset, {reply.data.data(), command.length});
            std::ranges::copy(crcs, reply.make_crcs(std::move(memory), count).begin());
            if (damage_replies) reply.data.data()[command.length / 2] ^= std::byte{1};
        }
        reply.completion.status = static_cast<uint16_t>(status);
        channel.reply(command, std::move(reply));
    }

    Errc compare_and_write(const Incoming& incoming) {
        const auto at = bytes.begin() + static_cast<long>(incoming.command.offset);
        if (!std::equal(incoming.part(0).begin(), incoming.part(0).end(), at))
            return Errc::miscompare;
        std::ranges::copy(incoming.part(1), at);
        return Errc::ok;
    }

    std::vector<std::byte> bytes = std::vector<std::byte>(test_volume_bytes);
    std::vector<std::string> peer_errors;
    Errc refuse_hello = Errc::ok;
    uint16_t depth = 0;
    runtime::Nanos delay_max = 0;
    bool damage_replies = false;
    bool hold = false;
    runtime::WaitQueue held;
    int connected = 0;
    int commands = 0;
    int bad_payloads = 0;
};

// One I/O with its memory, which is scattered over pieces of odd sizes.
struct TestIo {
    TestIo(wire::Opcode opcode, uint64_t offset, uint32_t length) {
        request.command.opcode = opcode;
        request.command.shard = 5;
        request.command.offset = offset;
        request.command.length = length;
    }
    static TestIo* cast(Request& request) { return static_cast<TestIo*>(request.context); }

    void send_data(const std::vector<std::byte>& from) {
        data = from;
        const uint32_t half = request.command.length;
        for (size_t at = 0; at < data.size(); at += half) {
            const auto more = crcs_of(request.command.offset, Bytes(data).subspan(at, half));
            crcs.insert(crcs.end(), more.begin(), more.end());
        }
        scatter();
        request.data = vectors;
        request.crcs = crcs;
    }
    void receive_data() {
        data.assign(request.command.length, std::byte{0});
        crcs.resize(wire::blocks_touched(request.command.offset, request.command.length));
        scatter();
        request.into = vectors;
        request.crcs_into = crcs;
    }
    void scatter() {
        const size_t piece = data.size() > 5000 ? 4700 : 300;
        for (size_t at = 0; at < data.size(); at += piece)
            vectors.push_back({data.data() + at, std::min(piece, data.size() - at)});
    }
    [[nodiscard]] Errc status() const {
        return request.outcome != Errc::ok ? request.outcome
                                           : static_cast<Errc>(request.completion.status);
    }

    Request request;
    std::vector<std::byte> data;
    std::vector<uint32_t> crcs;
    std::vector<iovec> vectors;
};

inline runtime::Task<Errc> write_to(ClientChannel& channel, uint64_t offset,
                                    const std::vector<std::byte>& data) {
    TestIo io(wire::Opcode::write, offset, static_cast<uint32_t>(data.size()));
    io.send_data(data);
    co_await channel.call(io.request);
    co_return io.status();
}

inline runtime::Task<Errc> read_from(ClientChannel& channel, uint64_t offset,
                                     std::vector<std::byte>& data) {
    TestIo io(wire::Opcode::read, offset, static_cast<uint32_t>(data.size()));
    io.receive_data();
    co_await channel.call(io.request);
    data = io.data;
    if (io.status() == Errc::ok && crcs_of(offset, data) != io.crcs) co_return Errc::internal;
    co_return io.status();
}

// A server node with a MemoryVolume that outlives its process, and a client node.
class NetTest : public ::testing::Test {
  public:
    explicit NetTest(runtime::sim::SimOptions options = {}) : sim(options) {
        start_server();
        client.start();
    }
    void start_server() {
        server.start([this](runtime::sim::SimReactor&) -> std::shared_ptr<void> {
            auto made = Server::listen({"", test_port}, volume);
            EXPECT_TRUE(made.has_value());
            serving = made->get();
            return std::shared_ptr<Server>(std::move(*made));
        });
    }
    // Runs `body` on the client node to its end.
    void run(runtime::Task<void> body, runtime::Nanos limit = 600 * runtime::seconds) {
        EXPECT_TRUE(sim.run_task(client, std::move(body), limit)) << "did not finish";
    }
    // Lets commands go on that `hold` stopped. The server's coroutines are woken on its own
    // reactor.
    void release() {
        volume.hold = false;
        sim.after(0, [this] { server.reactor().spawn(wake(volume)); });
    }
    static runtime::Task<void> wake(MemoryVolume& volume) {
        volume.held.wake_all();
        co_return;
    }
    static runtime::Address server_address() { return {"server", test_port}; }

    // Before the simulation: the handler outlives what its processes still hold when it ends.
    MemoryVolume volume;
    runtime::sim::Simulation sim;
    runtime::sim::SimNode& server = sim.add_node("server");
    runtime::sim::SimNode& client = sim.add_node("client");
    Server* serving = nullptr;
};

// Connects or ends the test.
inline runtime::Task<std::unique_ptr<ClientChannel>> connected(ClientOptions options = {}) {
    auto connecting = ClientChannel::connect(NetTest::server_address(), options);
    auto channel = co_await connecting;
    if (!channel) {
        ADD_FAILURE() << channel.error().text();
        std::abort();
    }
    co_return std::move(*channel);
}

}  // namespace pf::net

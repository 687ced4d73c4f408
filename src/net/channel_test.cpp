// The client and server channels against each other, in the simulator.
#include "net/net_test.hpp"

namespace pf::net {
namespace {

using runtime::Task;

class Channel : public NetTest {};

Task<void> write_and_read_back(const MemoryVolume& volume) {
    auto channel = co_await connected();
    EXPECT_EQ(channel->hello().incarnation, 7u);
    struct Range {
        uint64_t offset;
        uint32_t length;
    };
    const Range ranges[] = {{0, 4096},         {512, 512},          {3584, 1024},
                            {8192, 32u << 10}, {512, 32u << 10},    {4096, 36u << 10},
                            {0, 1u << 20},     {512, 1u << 20},     {7680, (1u << 20) - 512},
                            {1024, 40u << 10}, {2u << 20, 1u << 20}};
    uint64_t seed = 0;
    for (const Range& range : ranges) {
        const auto data = pattern(range.length, ++seed);
        const Errc written = co_await write_to(*channel, range.offset, data);
        EXPECT_EQ(written, Errc::ok);
        EXPECT_TRUE(std::equal(data.begin(), data.end(),
                               volume.bytes.begin() + static_cast<long>(range.offset)));
        std::vector<std::byte> back(range.length);
        const Errc read = co_await read_from(*channel, range.offset, back);
        EXPECT_EQ(read, Errc::ok);
        EXPECT_TRUE(back == data) << range.offset << "+" << range.length;
    }
    co_await channel->close();
    EXPECT_FALSE(channel->connected());
}
TEST_F(Channel, WritesAndReadsBackAllShapes) {
    run(write_and_read_back(volume));
}

Task<void> other_commands() {
    auto channel = co_await connected();
    for (const auto opcode : {wire::Opcode::ping, wire::Opcode::flush, wire::Opcode::open_session,
                              wire::Opcode::discard, wire::Opcode::abort}) {
        TestIo io(opcode, 0, opcode == wire::Opcode::discard ? 4096 : 0);
        if (opcode == wire::Opcode::ping) io.request.command.shard = 0;
        co_await channel->call(io.request);
        EXPECT_EQ(io.status(), Errc::ok);
    }
    co_await channel->close();
}
TEST_F(Channel, CommandsWithoutData) {
    run(other_commands());
}

Task<void> compare_and_write(MemoryVolume& volume) {
    auto channel = co_await connected();
    for (const uint64_t offset : {uint64_t{0}, uint64_t{8192 + 512}}) {
        for (const uint32_t length : {512u, 8192u, 64u << 10}) {
            const auto old_data = pattern(length, offset + length);
            const auto new_data = pattern(length, offset + length + 1);
            auto both = old_data;
            both.insert(both.end(), new_data.begin(), new_data.end());
            const auto at = volume.bytes.begin() + static_cast<long>(offset);
            for (const Errc expected : {Errc::ok, Errc::miscompare}) {
                if (expected == Errc::ok) std::ranges::copy(old_data, at);
                TestIo io(wire::Opcode::compare_and_write, offset, length);
                io.send_data(both);
                co_await channel->call(io.request);
                EXPECT_EQ(io.status(), expected);
                EXPECT_TRUE(std::equal(new_data.begin(), new_data.end(), at));
            }
        }
    }
    co_await channel->close();
}
TEST_F(Channel, CompareAndWriteCarriesTwoHalves) {
    run(compare_and_write(volume));
}

Task<void> worker(ClientChannel& channel, uint64_t id, int rounds, runtime::WaitGroup& group) {
    for (int round = 0; round < rounds; ++round) {
        const auto data = pattern(4096, id * 1000 + static_cast<uint64_t>(round));
        const Errc written = co_await write_to(channel, id * 8192, data);
        EXPECT_EQ(written, Errc::ok);
        std::vector<std::byte> back(4096);
        const Errc read = co_await read_from(channel, id * 8192, back);
        EXPECT_EQ(read, Errc::ok);
        EXPECT_TRUE(back == data);
    }
    group.done();
}

Task<void> pipelined(uint16_t depth, uint64_t workers) {
    ClientOptions options;
    options.depth = depth;
    auto channel = co_await connected(options);
    runtime::WaitGroup group;
    group.add(workers);
    for (uint64_t id = 0; id < workers; ++id)
        runtime::Reactor::current().spawn(worker(*channel, id, 5, group));
    EXPECT_EQ(channel->in_flight(), workers);
    co_await group.wait();
    EXPECT_EQ(channel->in_flight(), 0u);
    co_await channel->close();
}
TEST_F(Channel, PipelinesAtDepth128) {
    run(pipelined(128, 128));
}
TEST_F(Channel, WaitsInLineWithoutCredits) {
    volume.delay_max = runtime::milliseconds;
    run(pipelined(4, 200));
}
TEST_F(Channel, ServerGrantsLessThanAsked) {
    volume.depth = 3;
    run(pipelined(128, 50));
    EXPECT_TRUE(volume.peer_errors.empty());
}

class SmallPool : public NetTest {
  public:
    SmallPool() : NetTest({.buffer_bytes = size_t{4} << 20}) {}
};

Task<void> big_worker(ClientChannel& channel, uint64_t id, runtime::WaitGroup& group) {
    for (int round = 0; round < 4; ++round) {
        const auto data = pattern((1u << 20) - 4096, id);
        const Errc written = co_await write_to(channel, 512, data);
        EXPECT_EQ(written, Errc::ok);
    }
    group.done();
}
Task<void> starved() {
    std::vector<std::unique_ptr<ClientChannel>> channels;
    runtime::WaitGroup group;
    for (uint64_t i = 0; i < 6; ++i) {
        channels.push_back(co_await connected());
        for (uint64_t k = 0; k < 4; ++k) {
            group.add();
            runtime::Reactor::current().spawn(big_worker(*channels[i], k, group));
        }
    }
    co_await group.wait();
    for (auto& channel : channels) co_await channel->close();
}
TEST_F(SmallPool, PayloadsWaitForBuffersAndAllGetThem) {
    volume.delay_max = runtime::milliseconds;
    run(starved());
    EXPECT_TRUE(volume.peer_errors.empty());
    const size_t all = server.reactor().buffers().arena().size();
    sim.run_for(runtime::seconds);
    EXPECT_EQ(server.reactor().buffers().free_bytes(), all);
}

Task<void> bad_payload() {
    auto channel = co_await connected();
    for (const uint32_t length : {4096u, 40960u, 1u << 20}) {
        TestIo io(wire::Opcode::write, 0, length);
        io.send_data(pattern(length, 1));
        io.crcs.back() ^= 1;
        co_await channel->call(io.request);
        EXPECT_EQ(io.status(), Errc::bad_payload);
        // T13: the same object is sent again with a good CRC.
        io.crcs.back() ^= 1;
        co_await channel->call(io.request);
        EXPECT_EQ(io.status(), Errc::ok);
    }
    co_await channel->close();
}
TEST_F(Channel, DamagedDataSentIsToldToTheHandler) {
    run(bad_payload());
    EXPECT_EQ(volume.bad_payloads, 3);
}

Task<void> corrupt_read() {
    auto channel = co_await connected();
    for (const size_t length : {4096u, 1u << 20}) {
        std::vector<std::byte> back(length);
        const Errc read = co_await read_from(*channel, 0, back);
        EXPECT_EQ(read, Errc::corrupt);
    }
    EXPECT_TRUE(channel->connected());
    co_await channel->close();
}
TEST_F(Channel, DamagedDataReceivedIsCorrupt) {
    volume.damage_replies = true;
    run(corrupt_read());
}

Task<void> into_too_short() {
    auto channel = co_await connected();
    TestIo io(wire::Opcode::read, 0, 4096);
    io.receive_data();
    io.request.into = io.request.into.first(1);
    co_await channel->call(io.request);
    EXPECT_EQ(io.status(), Errc::disconnected);
    EXPECT_EQ(channel->failure().code, Errc::protocol) << channel->failure().text();
    co_await channel->wait_disconnected();
}
TEST_F(Channel, ReplyLongerThanItsPlaceEndsTheConnection) {
    run(into_too_short());
}

struct Counted : TestIo {
    explicit Counted(int& total) : TestIo(wire::Opcode::write, 0, 4096), completed(total) {
        send_data(pattern(4096, 3));
        request.context = this;
        request.complete = [](Request& r) {
            auto& self = *static_cast<Counted*>(r.context);
            ++self.completed;
            if (self.again != nullptr && self.status() == Errc::disconnected)
                std::exchange(self.again, nullptr)->issue(r);
        };
    }
    int& completed;
    ClientChannel* again = nullptr;
};

Task<void> lose_connection(NetTest& test) {
    ClientOptions options;
    options.depth = 8;
    auto channel = co_await connected(options);
    int completed = 0;
    std::vector<std::unique_ptr<Counted>> ios;
    for (int i = 0; i < 20; ++i) {
        ios.push_back(std::make_unique<Counted>(completed));
        channel->issue(ios.back()->request);
    }
    ios[3]->again = channel.get();  // issued again on the dead channel: disconnected again
    co_await runtime::sleep_for(10 * runtime::milliseconds);
    EXPECT_EQ(completed, 0);
    test.sim.network().reset_connections(test.client, test.server);
    co_await channel->wait_disconnected();
    co_await runtime::sleep_for(runtime::milliseconds);
    EXPECT_EQ(completed, 21);
    EXPECT_EQ(channel->in_flight(), 0u);
    test.release();
    // The same objects are resent on another connection.
    auto next = co_await connected(options);
    for (auto& io : ios) {
        EXPECT_EQ(io->status(), Errc::disconnected);
        next->issue(io->request);
    }
    co_await runtime::sleep_for(10 * runtime::milliseconds);
    EXPECT_EQ(completed, 41);
    for (auto& io : ios) EXPECT_EQ(io->status(), Errc::ok);
    // After the end nothing completes from inside issue().
    co_await next->close();
    next->issue(ios[0]->request);
    EXPECT_EQ(completed, 41);
    co_await runtime::sleep_for(1);
    EXPECT_EQ(completed, 42);
}
TEST_F(Channel, DisconnectCompletesEverythingOnce) {
    volume.hold = true;
    run(lose_connection(*this));
    sim.run_for(runtime::seconds);
    EXPECT_EQ(volume.connected, 0);
}

// Dropped without close(): nothing is completed any more, nothing dangles.
Task<void> drop_handle(TestIo& io) {
    auto channel = co_await connected();
    channel->issue(io.request);
}
TEST_F(Channel, DroppedHandleCompletesNothing) {
    TestIo io(wire::Opcode::write, 0, 4096);
    io.send_data(pattern(4096, 1));
    io.request.complete = [](Request&) { ADD_FAILURE(); };
    run(drop_handle(io));
    sim.run_for(runtime::seconds);
    EXPECT_EQ(volume.connected, 0);
}

Task<void> refused() {
    ClientOptions options;
    auto connecting = ClientChannel::connect(NetTest::server_address(), options);
    auto channel = co_await connecting;
    EXPECT_FALSE(channel.has_value());
    if (!channel) {
        EXPECT_EQ(channel.error().code, Errc::unavailable);
        EXPECT_NE(channel.error().message.find("server:49162"), std::string::npos);
    }
    auto reaching = ClientChannel::connect(runtime::Address{"server", 1}, options);
    auto nobody = co_await reaching;
    EXPECT_FALSE(nobody.has_value());
}
TEST_F(Channel, RefusedHelloAndNoListener) {
    volume.refuse_hello = Errc::unavailable;
    run(refused());
}

Task<void> stop_server(Server& server, bool& stopped) {
    co_await server.stop();
    stopped = true;
}
Task<void> wait_for_end() {
    auto channel = co_await connected();
    TestIo io(wire::Opcode::ping, 0, 0);
    io.request.command.shard = 0;
    co_await channel->call(io.request);
    EXPECT_EQ(io.status(), Errc::disconnected);
    co_await channel->wait_disconnected();
}
TEST_F(Channel, StopDisconnectsAndWaitsForAnswers) {
    volume.hold = true;
    bool stopped = false;
    sim.after(runtime::seconds, [&] { server.reactor().spawn(stop_server(*serving, stopped)); });
    run(wait_for_end());
    sim.run_for(runtime::seconds);
    EXPECT_FALSE(stopped);
    EXPECT_EQ(serving->connections(), 1u);
    release();
    sim.run_for(runtime::seconds);
    EXPECT_TRUE(stopped);
    EXPECT_EQ(volume.connected, 0);
}

}  // namespace
}  // namespace pf::net

// Streams, partitions, resets and what connecting can end in.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <span>

#include "runtime/sim/simulation.hpp"

namespace pf::runtime::sim {
namespace {

// A server that takes one connection at a time and keeps what it received.
struct Sink {
    std::unique_ptr<Listener> listener;
    std::vector<std::byte> received;
    uint64_t receives = 0;
    uint64_t accepted = 0;
    std::vector<Errc> endings;  // ok: end of stream
};

Task<void> swallow(std::unique_ptr<Connection> connection, Sink& sink) {
    std::vector<std::byte> buffer(64 << 10);
    while (true) {
        const Result<size_t> got = co_await connection->receive(buffer);
        if (!got || *got == 0) {
            sink.endings.push_back(got ? Errc::ok : got.error().code);
            break;
        }
        ++sink.receives;
        sink.received.insert(sink.received.end(), buffer.begin(),
                             buffer.begin() + static_cast<ptrdiff_t>(*got));
    }
    connection->shut_down();
}

Task<void> serve(SimReactor& reactor, Sink& sink) {
    while (true) {
        auto accepted = co_await sink.listener->accept();
        if (!accepted) co_return;
        ++sink.accepted;
        reactor.spawn(swallow(std::move(*accepted), sink));
    }
}

Task<Result<std::unique_ptr<Connection>>> dial(SimReactor& reactor, uint16_t port = 7) {
    const Address server{"server", port};
    return reactor.connect(server, 1 * seconds);
}

Task<Status> send_all(Connection& connection, const std::vector<std::byte>& bytes) {
    co_return co_await connection.send(bytes);
}

Task<Result<size_t>> receive_some(Connection& connection) {
    std::vector<std::byte> buffer(4096);
    co_return co_await connection.receive(buffer);
}

std::vector<std::byte> pattern(size_t count) {
    std::vector<std::byte> bytes(count);
    for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 251);
    return bytes;
}

class SimNetworkTest : public ::testing::Test {
  protected:
    SimNetworkTest() {
        server_.start([this](SimReactor& reactor) {
            sink_ = std::make_shared<Sink>();
            sink_->listener = std::move(*reactor.listen({"", 7}));
            reactor.spawn(serve(reactor, *sink_));
            return sink_;
        });
        client_.start();
    }
    ~SimNetworkTest() override { connection_.reset(); }

    Result<std::unique_ptr<Connection>> connect(uint16_t port = 7) {
        return std::move(*sim_.run_task(client_, dial(client_.reactor(), port)));
    }
    void open() {
        auto connected = connect();
        ASSERT_TRUE(connected.has_value());
        connection_ = std::move(*connected);
    }
    Status send(const std::vector<std::byte>& bytes) {
        return *sim_.run_task(client_, send_all(*connection_, bytes));
    }

    Simulation sim_{SimOptions{.seed = 9, .buffer_bytes = 2 << 20}};
    SimNode& server_ = sim_.add_node("server");
    SimNode& client_ = sim_.add_node("client");
    std::shared_ptr<Sink> sink_;
    std::unique_ptr<Connection> connection_;
};

TEST_F(SimNetworkTest, BytesArriveInOrderInPieces) {
    open();
    const auto bytes = pattern(3 << 20);  // more than the window
    EXPECT_TRUE(send(bytes));
    sim_.run_for(1 * seconds);
    EXPECT_EQ(sink_->received, bytes);
    EXPECT_GT(sink_->receives, 10u);
    connection_->shut_down();
    connection_.reset();
    sim_.run_for(1 * seconds);
    EXPECT_EQ(sink_->endings, std::vector{Errc::ok});
    EXPECT_EQ(sim_.network().connections(), 0u);
}

TEST_F(SimNetworkTest, ASendWaitsForAPeerThatDoesNotRead) {
    open();
    server_.pause();
    const auto bytes = pattern(2 << 20);
    EXPECT_FALSE(sim_.run_task(client_, send_all(*connection_, bytes), 5 * seconds).has_value());
    server_.resume();
    sim_.run_for(1 * seconds);
    EXPECT_EQ(sink_->received.size(), bytes.size());
}

TEST_F(SimNetworkTest, ConnectingIsRefusedOrTimesOut) {
    EXPECT_EQ(connect(8).error().code, Errc::disconnected);
    sim_.network().model().refuse_ppm = 1'000'000;
    EXPECT_EQ(connect().error().code, Errc::disconnected);
    sim_.network().model().refuse_ppm = 0;
    sim_.network().block(client_, server_);
    EXPECT_EQ(connect().error().code, Errc::timed_out);
    sim_.network().heal_all();
    sim_.network().block(server_, client_);
    EXPECT_EQ(connect().error().code, Errc::timed_out);
    sim_.network().heal_all();
    server_.kill();
    EXPECT_EQ(connect().error().code, Errc::disconnected);
    server_.power_loss();
    EXPECT_EQ(connect().error().code, Errc::timed_out);
    server_.restart();
    EXPECT_TRUE(connect().has_value());
}

TEST_F(SimNetworkTest, APausedNodeStillAccepts) {
    server_.pause();
    open();
    EXPECT_EQ(sink_->accepted, 0u);
    server_.resume();
    sim_.run_for(1 * milliseconds);
    EXPECT_EQ(sink_->accepted, 1u);
}

TEST_F(SimNetworkTest, APartitionDelaysBytesUntilItHeals) {
    open();
    sim_.network().block(client_, server_);
    EXPECT_TRUE(send(pattern(1000)));
    sim_.run_for(5 * seconds);
    EXPECT_TRUE(sink_->received.empty());
    sim_.network().heal_all();
    sim_.run_for(1 * seconds);
    EXPECT_EQ(sink_->received, pattern(1000));
}

TEST_F(SimNetworkTest, ALongPartitionBreaksTheConnection) {
    open();
    sim_.network().partition(client_, server_);
    EXPECT_TRUE(send(pattern(1000)));
    const auto got = sim_.run_task(client_, receive_some(*connection_), 60 * seconds);
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(got->error().code, Errc::timed_out);
}

TEST_F(SimNetworkTest, AKilledPeerResets) {
    open();
    EXPECT_TRUE(send(pattern(1000)));
    sim_.run_for(1 * milliseconds);
    server_.kill();
    const Nanos before = sim_.now();
    const auto got = sim_.run_task(client_, receive_some(*connection_));
    EXPECT_EQ(got->error().code, Errc::disconnected);
    EXPECT_GT(sim_.now(), before);
    EXPECT_EQ(send(pattern(10)).error().code, Errc::disconnected);
}

TEST_F(SimNetworkTest, APeerWithoutPowerIsSilentUntilItIsBack) {
    open();
    server_.power_loss();
    EXPECT_EQ(sim_.network().resets(), 0u);
    sim_.run_for(5 * seconds);  // less than the keepalive
    EXPECT_EQ(sim_.network().resets(), 0u);
    server_.restart();
    // The new process knows nothing of the connection: the next bytes are answered by a reset.
    sim_.after(1 * seconds, [this] {
        client_.reactor().spawn([](Connection& connection) -> Task<void> {
            const std::vector<std::byte> bytes = pattern(10);
            const Status sent = co_await connection.send(bytes);
            EXPECT_TRUE(sent);
        }(*connection_));
    });
    sim_.run_for(2 * seconds);
    EXPECT_EQ(send(pattern(10)).error().code, Errc::disconnected);
    EXPECT_TRUE(connect().has_value());
}

TEST_F(SimNetworkTest, LateBytesOfAnOldConnectionArriveAfterANewOne) {
    open();
    sim_.network().model().late_ppm = 1'000'000;
    sim_.network().model().late_extra = 1 * seconds;
    EXPECT_TRUE(send(pattern(1000)));
    sim_.network().model().late_ppm = 0;
    connection_->shut_down();
    connection_.reset();
    open();
    const std::vector<std::byte> marker(5, std::byte{0xAA});
    EXPECT_TRUE(send(marker));
    sim_.run_for(3 * seconds);
    ASSERT_EQ(sink_->received.size(), 1005u);
    EXPECT_EQ(sink_->received[0], std::byte{0xAA});
    EXPECT_EQ(sink_->received[1004], pattern(1000)[999]);
}

TEST_F(SimNetworkTest, CorruptionFlipsOneBit) {
    open();
    sim_.network().corrupt_next(client_, server_);
    const auto bytes = pattern(1000);
    EXPECT_TRUE(send(bytes));
    EXPECT_TRUE(send(bytes));
    sim_.run_for(1 * seconds);
    ASSERT_EQ(sink_->received.size(), 2000u);
    int flipped = 0;
    for (size_t i = 0; i < 2000; ++i) {
        flipped += std::popcount(static_cast<unsigned>(sink_->received[i] ^ bytes[i % 1000]));
    }
    EXPECT_EQ(flipped, 1);
    EXPECT_EQ(sim_.network().corrupted(), 1u);
}

// Seed 6764432810 of sim_run: corruptions planned between store and conductor outlived the faults,
// and with one connection in 5 s the store did not come back in 90 s.
TEST_F(SimNetworkTest, HealingForgetsCorruptionsToCome) {
    open();
    sim_.network().corrupt_next(client_, server_, 5);
    const auto bytes = pattern(1000);
    EXPECT_TRUE(send(bytes));
    sim_.network().heal_all();
    EXPECT_TRUE(send(bytes));
    sim_.run_for(1 * seconds);
    ASSERT_EQ(sink_->received.size(), 2000u);
    EXPECT_TRUE(std::ranges::equal(std::span(sink_->received).last(1000), bytes));
    EXPECT_EQ(sim_.network().corrupted(), 1u);
}

TEST_F(SimNetworkTest, AScriptedResetEndsBothSides) {
    open();
    sim_.run_for(1 * milliseconds);
    EXPECT_EQ(sim_.network().reset_connections(client_, server_), 1u);
    EXPECT_EQ(send(pattern(10)).error().code, Errc::disconnected);
    sim_.run_for(1 * milliseconds);
    EXPECT_EQ(sink_->endings, std::vector{Errc::disconnected});
}

TEST_F(SimNetworkTest, ThePlannedOperationFails) {
    sim_.fail_operation(client_, sim_.operations_so_far(client_) + 1, ECONNREFUSED);
    EXPECT_EQ(connect().error().code, Errc::disconnected);
    open();
    sim_.fail_operation(client_, sim_.operations_so_far(client_) + 1, ECONNRESET);
    EXPECT_EQ(send(pattern(10)).error().code, Errc::disconnected);
}

TEST_F(SimNetworkTest, ShutDownEndsWaitingOperations) {
    open();
    sim_.after(1 * milliseconds, [this] { connection_->shut_down(); });
    const auto got = sim_.run_task(client_, receive_some(*connection_));
    EXPECT_EQ(got->error().code, Errc::disconnected);
    sim_.run_for(1 * milliseconds);
    EXPECT_EQ(sink_->endings, std::vector{Errc::ok});
}

TEST_F(SimNetworkTest, AListenerThatIsShutDownStopsAccepting) {
    server_.call([this] { sink_->listener->shut_down(); });
    sim_.run_for(1 * milliseconds);
    EXPECT_EQ(connect().error().code, Errc::disconnected);
    auto again = server_.reactor().listen({"server", 7});
    EXPECT_TRUE(again.has_value());
    EXPECT_EQ(server_.reactor().listen({"server", 7}).error().code, Errc::busy);
    auto any = server_.reactor().listen({"", 0});
    EXPECT_NE((*any)->local().port, 0);
}

}  // namespace
}  // namespace pf::runtime::sim

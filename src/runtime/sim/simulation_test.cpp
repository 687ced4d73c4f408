// Determinism, process control and speed of the simulator.
#include "runtime/sim/simulation.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>

#include "runtime/sync.hpp"

namespace pf::runtime::sim {
namespace {

constexpr size_t piece = 4096;

// A process that serves an echo on port 7 and keeps a disk busy.
struct Server {
    std::unique_ptr<Listener> listener;
    std::unique_ptr<Disk> disk;
    uint64_t written = 0;
    uint64_t echoed = 0;
};

Task<void> echo(std::unique_ptr<Connection> connection, Server& server) {
    Buffer buffer = co_await Reactor::current().buffers().allocate(piece);
    while (true) {
        const Result<size_t> got = co_await connection->receive(buffer.bytes());
        if (!got || *got == 0) break;
        const Status sent = co_await connection->send(buffer.bytes().first(*got));
        if (!sent) break;
        server.echoed += *got;
    }
    connection->shut_down();
}

Task<void> accept_all(SimReactor& reactor, Server& server) {
    while (true) {
        auto accepted = co_await server.listener->accept();
        if (!accepted) co_return;
        reactor.spawn(echo(std::move(*accepted), server));
    }
}

Task<void> keep_writing(SimReactor& reactor, Server& server) {
    auto opened = co_await reactor.open_disk("disk0", {});
    if (!opened) co_return;
    server.disk = std::move(*opened);
    Buffer buffer = co_await reactor.buffers().allocate(piece);
    std::memset(buffer.data(), 0, piece);
    while (true) {
        const uint64_t offset = reactor.rng().below(256) * piece;
        store(buffer.bytes(), server.written);
        const Status wrote = co_await server.disk->write(offset, buffer.bytes());
        if (wrote) ++server.written;
        const Status flushed = co_await server.disk->flush();
        if (!flushed) co_return;
    }
}

std::shared_ptr<void> start_server(SimReactor& reactor) {
    auto server = std::make_shared<Server>();
    server->listener = std::move(*reactor.listen({"", 7}));
    reactor.spawn(accept_all(reactor, *server));
    reactor.spawn(keep_writing(reactor, *server));
    return server;
}

// Sends and expects the same back; reconnects when the connection breaks.
Task<void> talk(SimReactor& reactor, uint64_t& exchanged) {
    Buffer out = co_await reactor.buffers().allocate(piece);
    Buffer in = co_await reactor.buffers().allocate(piece);
    std::memset(out.data(), 0x5A, piece);
    while (true) {
        const Address server{"server", 7};
        auto connected = co_await reactor.connect(server, 50 * milliseconds);
        if (!connected) {
            co_await sleep_for(1 * milliseconds);
            continue;
        }
        auto& connection = **connected;
        while (true) {
            const size_t count = 1 + reactor.rng().below(piece);
            const Status sent = co_await connection.send(out.bytes().first(count));
            if (!sent) break;
            const Result<size_t> got = co_await connection.receive(in.bytes());
            if (!got || *got == 0) break;
            exchanged += *got;
        }
        connection.shut_down();
    }
}

struct Outcome {
    uint64_t hash;
    uint64_t events;
    uint64_t exchanged;
    bool operator==(const Outcome&) const = default;
};

Outcome run_workload(uint64_t seed) {
    FaultProfile faults;
    faults.disk.slow_ppm = 1000;
    faults.network.reset_ppm = 2000;
    faults.network.late_ppm = 1000;
    faults.stall_ppm = 100;
    faults.stall_max = 5 * milliseconds;
    Simulation sim({.seed = seed, .faults = faults});
    SimNode& server = sim.add_node("server");
    SimNode& client = sim.add_node("client");
    server.add_disk("disk0", {.size_bytes = 1 << 20});
    uint64_t exchanged = 0;
    server.start(start_server);
    client.start([&](SimReactor& reactor) {
        reactor.spawn(talk(reactor, exchanged));
        return nullptr;
    });
    sim.after(50 * milliseconds, [&] { server.restart(); });
    sim.after(100 * milliseconds, [&] { sim.network().partition(server, client); });
    sim.after(130 * milliseconds, [&] { sim.network().heal_all(); });
    sim.after(150 * milliseconds, [&] { server.power_loss(); });
    sim.after(170 * milliseconds, [&] { server.restart(); });
    sim.run_for(250 * milliseconds);
    return {sim.trace_hash(), sim.events_so_far(), exchanged};
}

TEST(Simulation, TheSameSeedGivesTheSameRun) {
    const Outcome first = run_workload(42);
    EXPECT_EQ(first, run_workload(42));
    EXPECT_NE(first.hash, run_workload(43).hash);
    EXPECT_GT(first.exchanged, 100'000u);
}

// Debug, release, gcc and clang must agree. The value changes when the simulator's model does; then
// replace it here, in one build, and see that the others agree.
TEST(Simulation, TheTraceHashIsTheSameInEveryBuild) {
    EXPECT_EQ(run_workload(7).hash, 15353607510389989932u);
}

Task<void> tick(uint64_t& ticks, Nanos period) {
    while (true) {
        co_await sleep_for(period);
        ++ticks;
    }
}

TEST(Simulation, KilledMidFlightLeavesNothingBehind) {
    Simulation sim({.seed = 5});
    SimNode& server = sim.add_node("server");
    SimNode& client = sim.add_node("client");
    server.add_disk("disk0", {.size_bytes = 1 << 20});
    uint64_t exchanged = 0;
    server.start(start_server);
    client.start([&](SimReactor& reactor) {
        for (int i = 0; i < 8; ++i) reactor.spawn(talk(reactor, exchanged));
        return nullptr;
    });
    for (int round = 0; round < 200; ++round) {
        sim.run_for(10 * microseconds + sim.rng().below(2 * milliseconds));
        SimNode& victim = round % 3 == 0 ? client : server;
        if (round % 2 == 0) {
            victim.kill();
        } else {
            victim.power_loss();
        }
        sim.run_for(sim.rng().below(500 * microseconds));
        victim.restart();
    }
    EXPECT_GT(exchanged, 0u);
    EXPECT_GT(server.incarnation(), 100u);
}

TEST(Simulation, KillFromInsideHappensAtTheEndOfTheTurn) {
    Simulation sim;
    SimNode& node = sim.add_node("a");
    uint64_t ticks = 0;
    node.start([&](SimReactor& reactor) {
        reactor.spawn([](SimNode& self, uint64_t& count) -> Task<void> {
            co_await sleep_for(1 * milliseconds);
            self.kill();
            ++count;  // the turn goes on
            co_await sleep_for(1 * milliseconds);
            ++count;
        }(node, ticks));
        return nullptr;
    });
    sim.run_for(1 * seconds);
    EXPECT_FALSE(node.running());
    EXPECT_EQ(ticks, 1u);
}

TEST(Simulation, PauseStopsTheNodeAndFreshNowShowsIt) {
    Simulation sim;
    SimNode& node = sim.add_node("a");
    struct Seen {
        uint64_t ticks = 0;
        Nanos now = 0;
        Nanos fresh = 0;
    } seen;
    node.start([&](SimReactor& reactor) {
        reactor.spawn([](Seen& to) -> Task<void> {
            while (true) {
                co_await sleep_for(1 * milliseconds);
                co_await yield();
                ++to.ticks;
                to.now = Reactor::current().now();
                to.fresh = Reactor::current().fresh_now();
            }
        }(seen));
        return nullptr;
    });
    sim.run_for(100 * milliseconds);
    const uint64_t before = seen.ticks;
    EXPECT_GT(before, 90u);
    EXPECT_EQ(seen.now, seen.fresh);
    node.pause();
    // A call that arrived before the pause is handled by a loop with an old clock.
    struct Call : PostedCall {
        Nanos now = 0;
        Nanos fresh = 0;
    } call;
    call.run = [](PostedCall& posted) {
        static_cast<Call&>(posted).now = Reactor::current().now();
        static_cast<Call&>(posted).fresh = Reactor::current().fresh_now();
    };
    node.reactor().post(call);
    sim.run_for(5 * seconds);
    EXPECT_EQ(seen.ticks, before);
    node.resume();
    sim.run_for(2 * milliseconds);
    EXPECT_GT(seen.ticks, before);
    EXPECT_EQ(call.fresh - call.now, 5 * seconds);
    EXPECT_EQ(seen.now, seen.fresh);
}

TEST(Simulation, RestartRunsTheFactoryAgain) {
    Simulation sim;
    SimNode& node = sim.add_node("a");
    std::vector<Nanos> starts;
    node.start([&](SimReactor& reactor) {
        starts.push_back(reactor.now());
        return nullptr;
    });
    sim.run_for(1 * seconds);
    node.restart();
    node.kill();
    sim.run_for(1 * seconds);
    node.restart();
    ASSERT_EQ(starts.size(), 3u);
    EXPECT_EQ(starts[1] - starts[0], 1 * seconds);
    EXPECT_EQ(starts[2] - starts[0], 2 * seconds);
}

Task<Status> write_then_flush(SimReactor& reactor) {
    PF_CO_TRY_ASSIGN(auto disk, co_await reactor.open_disk("disk0", {}));
    Buffer buffer = co_await reactor.buffers().allocate(piece);
    std::memset(buffer.data(), 1, piece);
    PF_CO_TRY(co_await disk->write(0, buffer.bytes()));
    PF_CO_TRY(co_await disk->flush());
    co_return co_await disk->read(0, buffer.bytes());
}

TEST(Simulation, EveryOperationCanBeMadeToFail) {
    uint64_t operations = 1;
    for (uint64_t n = 1; n <= operations + 1; ++n) {
        Simulation sim;
        SimNode& node = sim.add_node("a");
        node.add_disk("disk0", {});
        node.start();
        sim.fail_operation(node, n, EIO);
        const auto status = sim.run_task(node, write_then_flush(node.reactor()));
        ASSERT_TRUE(status.has_value());
        if (n > 3) {
            EXPECT_TRUE(status->has_value());
        } else {
            EXPECT_EQ(status->error().code, Errc::io_error);
        }
        operations = sim.operations_so_far(node);
    }
    EXPECT_EQ(operations, 3u);
}

Task<void> sleep_task(Nanos duration) {
    co_await sleep_for(duration);
}

Task<void> spin_for(Nanos duration) {
    const Nanos end = Reactor::current().now() + duration;
    while (Reactor::current().now() < end) co_await yield();
}

TEST(Simulation, RunTaskGivesNothingWhenItDoesNotFinish) {
    Simulation sim;
    SimNode& node = sim.add_node("a");
    node.start();
    EXPECT_FALSE(sim.run_task(node, sleep_task(2 * seconds), 1 * seconds));
    EXPECT_TRUE(sim.run_task(node, sleep_task(2 * seconds), 3 * seconds));
}

TEST(Simulation, ABusyLoopMovesTime) {
    Simulation sim;
    SimNode& node = sim.add_node("a");
    node.start();
    EXPECT_TRUE(sim.run_task(node, spin_for(10 * microseconds)));
}

TEST(Simulation, RunsManyEventsPerSecond) {
    Simulation sim;
    SimNode& node = sim.add_node("a");
    uint64_t ticks = 0;
    node.start([&](SimReactor& reactor) {
        for (int i = 0; i < 32; ++i) {
            reactor.spawn(tick(ticks, 100 * microseconds + static_cast<Nanos>(i)));
        }
        return nullptr;
    });
    const auto begin = std::chrono::steady_clock::now();
    sim.run_for(2 * seconds);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    EXPECT_GT(ticks, 500'000u);
    RecordProperty("events_per_second",
                   std::to_string(static_cast<double>(sim.events_so_far()) / took.count()));
    std::printf("%.2f million events/s\n",
                static_cast<double>(sim.events_so_far()) / took.count() / 1e6);
}

}  // namespace
}  // namespace pf::runtime::sim

// R8 and what connections do to I/O: stores, conductors and connections come and go, fall silent or
// have moved on, and everything still ends, once.
#include "client/client_test.hpp"

namespace pf::client {
namespace {

using runtime::Task;

Task<void> until_zero(const uint32_t& left) {
    while (left > 0) co_await runtime::sleep_for(runtime::milliseconds);
}

// R8: a write whose answer was lost is resent under its name and answered, not run again.
Task<void> resends(ClientTest& test, bool before) {
    Opened opened = co_await open_volume();
    Volume& volume = *opened.volume;
    for (uint64_t round = 0; round < 20; ++round) {
        (before ? test.store.lose_before : test.store.lose_after) =
            static_cast<uint32_t>(1 + round % 4);
        std::vector<std::unique_ptr<TestIo>> ios;
        uint32_t left = 8;
        for (uint64_t i = 0; i < 8; ++i) {
            auto& io = ios.emplace_back(
                std::make_unique<TestIo>(IoKind::write, i << 20, pattern(4096, round * 8 + i)));
            io->user = &left;
            io->complete = [](Io& done) {
                EXPECT_EQ(done.result, Errc::ok);
                --*static_cast<uint32_t*>(done.user);
            };
            const Status submitted = volume.submit(*io);
            EXPECT_TRUE(submitted.has_value());
        }
        co_await until_zero(left);
        for (const auto& io : ios)
            EXPECT_EQ(std::memcmp(test.tray.bytes.data() + io->offset, io->bytes.data(), 4096), 0);
    }
    EXPECT_EQ(test.tray.applied, 160u) << "each write ran once";
    EXPECT_GE(volume.counters().reconnected, 10u);
    EXPECT_GT(volume.counters().resent, 0u);
    co_await opened.close();
}
TEST_F(ClientTest, rule_R8_ResendsWhatWasLostBeforeItRan) {
    run(resends(*this, true));
}
TEST_F(ClientTest, rule_R8_ResendsWhatWasLostAfterItRan) {
    run(resends(*this, false));
    EXPECT_GT(tray.answered, 0u);
}

// The data path outlives the control plane, and store restarts.
Task<void> restarts(ClientTest& test) {
    Opened opened = co_await open_volume();
    Errc written = co_await write(*opened.volume, 0, pattern(4096, 1));
    EXPECT_EQ(written, Errc::ok);
    test.conductor_node.kill();
    for (uint64_t i = 0; i < 5; ++i) {
        test.sim.after(100 * runtime::milliseconds, [&test] { test.store_node.restart(); });
        co_await runtime::sleep_for(99 * runtime::milliseconds);
        written = co_await write(*opened.volume, i * 4096, pattern(200u << 10, i));
        EXPECT_EQ(written, Errc::ok);
    }
    const uint64_t handles = test.conductor.handles;
    test.conductor_node.restart();
    co_await runtime::sleep_for(12 * runtime::seconds);
    EXPECT_EQ(test.conductor.handles, handles + 1) << "the handle is announced again";
    co_await opened.close();
}
TEST_F(ClientTest, OutlivesTheConductorAndStoreRestarts) {
    run(restarts(*this));
}

// The conductor's host is silent: connecting to it takes 4 s to fail. What a volume knows of its
// shards is tried without it, and one failed attempt is enough for all who waited for it.
Task<void> silent_conductor(ClientTest& test, runtime::Nanos down, runtime::Nanos bound) {
    Opened opened = co_await open_volume();
    for (uint64_t shard = 0; shard < 3; ++shard) {
        const Errc done = co_await write(*opened.volume, shard * test_shard_bytes, pattern(512, 1));
        EXPECT_EQ(done, Errc::ok);
    }
    test.sim.after(0, [&test] { test.conductor_node.power_loss(); });
    co_await runtime::sleep_for(60 * runtime::seconds);
    std::vector<std::unique_ptr<Observed>> ios;
    test.sim.after(0, [&test] { test.store_node.kill(); });
    co_await runtime::sleep_for(runtime::milliseconds);
    for (uint64_t shard = 0; shard < 3; ++shard) {
        auto& io = ios.emplace_back(std::make_unique<Observed>(
            IoKind::write, shard * test_shard_bytes, pattern(4096, shard)));
        io->watch();
        EXPECT_TRUE(opened.volume->submit(*io).has_value());
    }
    co_await runtime::sleep_for(down);
    test.sim.after(0, [&test] { test.store_node.restart(); });
    const runtime::Nanos began = runtime::Reactor::current().now();
    for (const auto& io : ios) {
        while (!io->finished) co_await runtime::sleep_for(runtime::milliseconds);
        EXPECT_EQ(io->result, Errc::ok);
    }
    EXPECT_LT(runtime::Reactor::current().now() - began, bound);
    co_await opened.close();
}
TEST_F(ClientTest, regression_AStoreRestartNeedsNoAnswerOfASilentConductor) {
    run(silent_conductor(*this, runtime::milliseconds, runtime::seconds));
}
TEST_F(ClientTest, regression_ShardsDoNotQueueForASilentConductor) {
    run(silent_conductor(*this, 20 * runtime::seconds, 6 * runtime::seconds));
}

Task<void> one_call(Cluster& cluster, uint32_t& left) {
    const auto volumes = co_await cluster.list();
    EXPECT_FALSE(volumes.has_value());
    --left;
}
Task<void> one_refresh(Volume& volume, uint32_t& left) {
    const Status refreshed = co_await volume.refresh();
    EXPECT_FALSE(refreshed.has_value());
    --left;
}
Task<void> calls_share_an_attempt(ClientTest& test) {
    Opened opened = co_await open_volume();
    runtime::Reactor& reactor = runtime::Reactor::current();
    test.sim.after(0, [&test] { test.conductor_node.power_loss(); });
    co_await runtime::sleep_for(60 * runtime::seconds);
    runtime::Nanos began = reactor.now();
    uint32_t left = 10;
    for (uint32_t i = 0; i < 10; ++i) reactor.spawn(one_refresh(*opened.volume, left));
    co_await until_zero(left);
    EXPECT_LT(reactor.now() - began, 9 * runtime::seconds);
    began = reactor.now();
    left = 10;
    for (uint32_t i = 0; i < 10; ++i) reactor.spawn(one_call(*opened.cluster, left));
    co_await until_zero(left);
    EXPECT_LT(reactor.now() - began, 20 * runtime::seconds);
    co_await opened.close();
}
TEST_F(ClientTest, regression_CallsShareTheAttemptToReachTheConductor) {
    run(calls_share_an_attempt(*this));
}

// As many calls as a connection carries are never answered: the next ones go by a new
// connection.
Task<void> calls_unanswered(ClientTest& test) {
    Opened opened = co_await open_volume();
    test.conductor.hold_calls = 16;
    uint32_t left = 20;
    for (uint32_t i = left; i > 0; --i)
        runtime::Reactor::current().spawn(one_call(*opened.cluster, left));
    co_await until_zero(left);
    const Status refreshed = co_await opened.volume->refresh();
    EXPECT_TRUE(refreshed.has_value());
    test.conductor.release_calls = true;
    co_await opened.close();
}
TEST_F(ClientTest, regression_AConnectionThatAnswersNothingIsMadeAgain) {
    run(calls_unanswered(*this));
}

Task<void> stale_epoch(ClientTest& test) {
    Opened opened = co_await open_volume();
    Errc written = co_await write(*opened.volume, 0, pattern(4096, 1));
    EXPECT_EQ(written, Errc::ok);
    ++test.tray.epoch;
    written = co_await write(*opened.volume, 0, pattern(4096, 2));
    EXPECT_EQ(written, Errc::ok);
    EXPECT_EQ(test.conductor.lists, 2u);
    co_await opened.close();
}
TEST_F(ClientTest, RefreshesTheLocationAfterAStaleEpoch) {
    run(stale_epoch(*this));
}

Task<void> close_without_store(ClientTest& test) {
    Opened opened = co_await open_volume();
    test.sim.after(0, [&test] { test.store_node.kill(); });
    co_await runtime::sleep_for(runtime::milliseconds);
    Observed io(IoKind::write, 0, pattern(4096, 2));
    io.watch();
    EXPECT_TRUE(opened.volume->submit(io).has_value());
    co_await opened.close();
    EXPECT_TRUE(io.finished);
    EXPECT_EQ(io.result, Errc::cancelled);
}
TEST_F(ClientTest, CloseEndsWithoutAStore) {
    run(close_without_store(*this));
}

// The store takes what is sent and answers nothing, the opening of the session first of all: reads
// keep their deadline, and the volume can be closed.
Task<void> silent_at_open(ClientTest& test) {
    Opened opened = co_await open_volume(16, runtime::seconds);
    test.store.hold_opens = test.store.hold_reads = true;
    Observed write(IoKind::write, 0, pattern(4096, 1));
    write.watch();
    EXPECT_TRUE(opened.volume->submit(write).has_value());
    co_await runtime::sleep_for(100 * runtime::milliseconds);
    const runtime::Nanos began = runtime::Reactor::current().now();
    TestIo read(IoKind::read, 0, std::vector<std::byte>(4096));
    const Errc done = co_await run_io(*opened.volume, read);
    EXPECT_EQ(done, Errc::timed_out);
    EXPECT_TRUE(write.finished);
    EXPECT_EQ(write.result, Errc::timed_out);
    Observed last(IoKind::write, 0, pattern(4096, 2));
    last.watch();
    EXPECT_TRUE(opened.volume->submit(last).has_value());
    co_await runtime::sleep_for(500 * runtime::milliseconds);
    co_await opened.close();
    EXPECT_TRUE(last.finished);
    EXPECT_LT(runtime::Reactor::current().now() - began, 5 * runtime::seconds);
}
TEST_F(ClientTest, regression_AStoreThatNeverOpensTheSessionHoldsUpNothing) {
    run(silent_at_open(*this));
}

}  // namespace
}  // namespace pf::client

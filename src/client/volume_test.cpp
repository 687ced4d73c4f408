// The client core against a conductor and a store in memory, in the simulator.
#include "client/client_test.hpp"
#include "client/split.hpp"

namespace pf::client {
namespace {

using runtime::Task;

Task<void> all_shapes(ClientTest& test) {
    Opened opened = co_await open_volume();
    Volume& volume = *opened.volume;
    struct Range {
        uint64_t offset;
        uint64_t length;
    };
    const Range ranges[] = {{0, 512},
                            {512, 512},
                            {3584, 1024},
                            {4096, 65536},
                            {512, 1u << 20},
                            {(2u << 20) - 512, 1024},
                            {(4u << 20) - 4096, 8192},
                            {0, test_volume_bytes},
                            {test_volume_bytes - 512, 512},
                            {1536, 5u << 20}};
    uint64_t seed = 0;
    for (const Range& range : ranges) {
        for (const size_t piece : {SIZE_MAX, size_t{4096}, size_t{1536}}) {
            const auto bytes = pattern(range.length, ++seed);
            TestIo io(IoKind::write, range.offset, bytes, piece);
            const Errc written = co_await run_io(volume, io);
            EXPECT_EQ(written, Errc::ok);
            EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(),
                                   test.tray.bytes.begin() + static_cast<long>(range.offset)));
            TestIo back(IoKind::read, range.offset, std::vector<std::byte>(range.length), piece);
            const Errc read = co_await run_io(volume, back);
            EXPECT_EQ(read, Errc::ok);
            EXPECT_TRUE(back.bytes == bytes) << range.offset << "+" << range.length;
        }
    }
    EXPECT_EQ(volume.counters().resent, 0u);
    co_await opened.close();
}
TEST_F(ClientTest, WritesAndReadsBackAllShapes) {
    run(all_shapes(*this));
    EXPECT_EQ(conductor.closed, 1u);
    EXPECT_EQ(tray.sessions.size(), 0u) << "sessions are closed";
}

Task<void> few_connections(ClientTest& test) {
    Opened opened = co_await open_volume(16, 0, false, 1);
    Volume& volume = *opened.volume;
    std::vector<std::byte> expected(test_volume_bytes);
    for (uint64_t round = 0; round < 60; ++round) {
        const auto bytes = pattern(8192, round);
        // Every shard in turn, and across the border of two at times.
        const uint64_t offset = round % 7 == 6
                                    ? test_shard_bytes - 4096
                                    : round % 3 * test_shard_bytes + round * 8192 % (1u << 20);
        std::ranges::copy(bytes, expected.begin() + static_cast<long>(offset));
        TestIo io(IoKind::write, offset, bytes, SIZE_MAX);
        const Errc written = co_await run_io(volume, io);
        EXPECT_EQ(written, Errc::ok);
    }
    EXPECT_TRUE(test.tray.bytes == expected);
    EXPECT_EQ(volume.counters().resent, 0u);
    co_await opened.close();
}
TEST_F(ClientTest, EndsIdleConnectionsWhenItNeedsOthers) {
    run(few_connections(*this));
    // The one for the new shard is made while the idle one goes; a write over a border needs two.
    EXPECT_EQ(store.most_connected, 2u);
    EXPECT_EQ(store.sessions_opened, 3u) << "a session outlives its connection";
}

Task<void> zeroes_and_discards(ClientTest& test) {
    Opened opened = co_await open_volume();
    Volume& volume = *opened.volume;
    for (const IoKind kind : {IoKind::write_zeroes, IoKind::discard}) {
        std::vector<std::byte> expected = pattern(test_volume_bytes, 5);
        test.tray.bytes = expected;
        Io io;
        io.kind = kind;
        io.offset = 4096 * 3 + 512;
        io.length = (5u << 20) + 1024;
        const Errc done = co_await run_io(volume, io);
        EXPECT_EQ(done, Errc::ok);
        uint64_t begin = io.offset;
        uint64_t end = io.offset + io.length;
        if (kind == IoKind::discard) {
            begin = round_up(begin, block_bytes);
            end = round_down(end, block_bytes);
        }
        std::fill(expected.begin() + static_cast<long>(begin),
                  expected.begin() + static_cast<long>(end), std::byte{0});
        EXPECT_TRUE(test.tray.bytes == expected);
    }
    Io small;
    small.kind = IoKind::discard;
    small.offset = 512;
    small.length = 1024;
    const Errc done = co_await run_io(volume, small);
    EXPECT_EQ(done, Errc::ok);
    co_await opened.close();
}
TEST_F(ClientTest, ZeroesExactlyAndDiscardsWholeBlocks) {
    run(zeroes_and_discards(*this));
}

Task<void> refusals(ClientTest& test) {
    Opened opened = co_await open_volume();
    Volume& volume = *opened.volume;
    const auto refused = [&](IoKind kind, uint64_t offset, size_t length) {
        TestIo io(kind, offset, std::vector<std::byte>(length));
        const Status submitted = volume.submit(io);
        return submitted ? Errc::ok : submitted.error().code;
    };
    EXPECT_EQ(refused(IoKind::read, 0, 0), Errc::invalid_argument);
    EXPECT_EQ(refused(IoKind::write, 100, 512), Errc::invalid_argument);
    EXPECT_EQ(refused(IoKind::write, 0, 100), Errc::invalid_argument);
    EXPECT_EQ(refused(IoKind::read, test_volume_bytes, 512), Errc::out_of_range);
    EXPECT_EQ(refused(IoKind::read, UINT64_MAX - 511, 512), Errc::out_of_range);
    EXPECT_EQ(refused(IoKind::compare_and_write, 0, 4096), Errc::invalid_argument);
    co_await opened.close();
    Opened reader = co_await open_volume(16, 0, true);
    TestIo io(IoKind::write, 0, std::vector<std::byte>(512));
    const Status submitted = reader.volume->submit(io);
    EXPECT_EQ(submitted.error().code, Errc::read_only);
    TestIo back(IoKind::read, 0, std::vector<std::byte>(512));
    const Errc read = co_await run_io(*reader.volume, back);
    EXPECT_EQ(read, Errc::ok);
    co_await reader.close();
    EXPECT_EQ(test.store.sessions_opened, 0u);
}
TEST_F(ClientTest, RefusesWhatCanNotBe) {
    run(refusals(*this));
}

Task<void> compare_and_write(ClientTest& test) {
    Opened opened = co_await open_volume();
    for (const uint64_t offset : {uint64_t{0}, uint64_t{8192 + 512}}) {
        const auto old_bytes = pattern(64u << 10, 1);
        std::ranges::copy(old_bytes, test.tray.bytes.begin() + static_cast<long>(offset));
        for (const Errc expected : {Errc::ok, Errc::miscompare}) {
            TestIo io(IoKind::compare_and_write, offset, pattern(64u << 10, 2), 3072);
            TestIo compared(IoKind::read, offset, old_bytes, 5120);
            io.expected = compared.vectors;
            const Errc done = co_await run_io(*opened.volume, io);
            EXPECT_EQ(done, expected);
        }
    }
    co_await opened.close();
}
TEST_F(ClientTest, ComparesAndWrites) {
    run(compare_and_write(*this));
}

Task<void> states(ClientTest& test) {
    Opened opened = co_await open_volume();
    for (uint64_t block = 0; block < test_volume_bytes / block_bytes; block += 3)
        test.tray.bytes[block * block_bytes] = std::byte{1};
    auto extents = co_await opened.volume->block_states(512, test_volume_bytes - 1024, 100000);
    EXPECT_TRUE(extents.has_value());
    uint64_t total = 0;
    for (const Extent& extent : *extents) total += extent.length_bytes;
    EXPECT_EQ(total, test_volume_bytes - 1024);
    EXPECT_EQ((*extents)[0].length_bytes, block_bytes - 512);
    EXPECT_EQ((*extents)[0].state, 2u);
    EXPECT_EQ((*extents)[1].length_bytes, 2 * block_bytes);
    auto two = co_await opened.volume->block_states(0, test_volume_bytes, 2);
    EXPECT_EQ(two->size(), 2u);
    co_await opened.close();
}
TEST_F(ClientTest, TellsBlockStates) {
    run(states(*this));
}

// R8: a write whose answer was lost is resent under its name and answered, not run again.
Task<void> resends(ClientTest& test, bool before) {
    Opened opened = co_await open_volume();
    Volume& volume = *opened.volume;
    for (uint32_t round = 0; round < 20; ++round) {
        (before ? test.store.lose_before : test.store.lose_after) = 1 + round % 4;
        std::vector<std::unique_ptr<TestIo>> ios;
        uint32_t left = 8;
        for (uint64_t i = 0; i < 8; ++i) {
            auto& io = ios.emplace_back(std::make_unique<TestIo>(IoKind::write, i * (1u << 20),
                                                                 pattern(4096, round * 8 + i)));
            io->user = &left;
            io->complete = [](Io& done) {
                EXPECT_EQ(done.result, Errc::ok);
                --*static_cast<uint32_t*>(done.user);
            };
            const Status submitted = volume.submit(*io);
            EXPECT_TRUE(submitted.has_value());
        }
        while (left > 0) co_await runtime::sleep_for(runtime::milliseconds);
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
    while (left > 0) co_await runtime::sleep_for(runtime::milliseconds);
    EXPECT_LT(reactor.now() - began, 9 * runtime::seconds);
    began = reactor.now();
    left = 10;
    for (uint32_t i = 0; i < 10; ++i) reactor.spawn(one_call(*opened.cluster, left));
    while (left > 0) co_await runtime::sleep_for(runtime::milliseconds);
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
    while (left > 0) co_await runtime::sleep_for(runtime::milliseconds);
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

// T13: memory that changed under way is copied and resent; the write succeeds.
Task<void> unstable_memory(ClientTest& test) {
    Opened opened = co_await open_volume();
    test.store.refuse_payloads = 2;
    TestIo io(IoKind::write, 512, pattern(100u << 10, 1), 1536);
    Errc done = co_await run_io(*opened.volume, io);
    EXPECT_EQ(done, Errc::ok);
    EXPECT_EQ(opened.volume->counters().copied, 2u);
    EXPECT_TRUE(std::equal(io.bytes.begin(), io.bytes.end(), test.tray.bytes.begin() + 512));
    test.store.refuse_payloads = 1;
    TestIo swap(IoKind::compare_and_write, 512, pattern(4096, 2));
    const std::vector<std::byte> first(io.bytes.begin(), io.bytes.begin() + 4096);
    TestIo compared(IoKind::read, 512, first, 1024);
    swap.expected = compared.vectors;
    done = co_await run_io(*opened.volume, swap);
    EXPECT_EQ(done, Errc::ok);
    co_await opened.close();
}
TEST_F(ClientTest, rule_T13_CopiesUnstableMemoryAndResends) {
    run(unstable_memory(*this));
}

Task<void> damaged_reads(ClientTest& test) {
    Opened opened = co_await open_volume();
    test.store.damage_reads = 1;
    TestIo io(IoKind::read, 0, std::vector<std::byte>(4096));
    Errc done = co_await run_io(*opened.volume, io);
    EXPECT_EQ(done, Errc::ok);
    EXPECT_EQ(opened.volume->counters().reread, 1u);
    test.store.damage_reads = 2;
    done = co_await run_io(*opened.volume, io);
    EXPECT_EQ(done, Errc::corrupt);
    co_await opened.close();
}
TEST_F(ClientTest, ReadsAgainOnceWhenBytesAreDamaged) {
    run(damaged_reads(*this));
}

Task<void> reads_time_out(ClientTest& test) {
    Opened opened = co_await open_volume(16, runtime::seconds);
    test.store.hold_reads = true;
    TestIo io(IoKind::read, 0, std::vector<std::byte>(4096));
    const Errc done = co_await run_io(*opened.volume, io);
    EXPECT_EQ(done, Errc::timed_out);
    test.store.hold_reads = false;
    const Errc again = co_await run_io(*opened.volume, io);
    EXPECT_EQ(again, Errc::ok);
    co_await opened.close();
}
TEST_F(ClientTest, ReadsFailAtTheirDeadline) {
    run(reads_time_out(*this));
}

// R10: a write at its deadline is aborted; it fails only once the store said it never happens, and
// an overlapping write waits until then.
Task<void> writes_time_out(ClientTest& test) {
    Opened opened = co_await open_volume(16, runtime::seconds);
    Errc done = co_await write(*opened.volume, 0, pattern(4096, 1));
    EXPECT_EQ(done, Errc::ok);
    test.store.hold_writes = true;
    test.sim.after(1500 * runtime::milliseconds, [&test] { test.store.hold_writes = false; });
    const runtime::Nanos began = runtime::Reactor::current().now();
    done = co_await write(*opened.volume, 0, pattern(4096, 2));
    EXPECT_EQ(done, Errc::timed_out);
    EXPECT_GE(runtime::Reactor::current().now() - began, 1400 * runtime::milliseconds);
    EXPECT_EQ(opened.volume->counters().aborted, 1u);
    const auto kept = pattern(4096, 1);
    EXPECT_TRUE(std::equal(kept.begin(), kept.end(), test.tray.bytes.begin()));
    done = co_await write(*opened.volume, 0, pattern(4096, 3));
    EXPECT_EQ(done, Errc::ok);
    co_await opened.close();
}
TEST_F(ClientTest, rule_R10_AbortsAWriteAtItsDeadline) {
    run(writes_time_out(*this));
}

// The abort was not decided, and only then the write itself comes back as damaged under way: the
// abort is asked for again.
Task<void> bad_payload_after_deadline(ClientTest& test) {
    Opened opened = co_await open_volume(16, runtime::seconds);
    test.store.hold_writes = true;
    test.store.refuse_aborts = 1;
    test.store.refuse_payloads = 1;
    Observed io(IoKind::write, 0, pattern(4096, 1));
    io.watch();
    EXPECT_TRUE(opened.volume->submit(io).has_value());
    co_await runtime::sleep_for(2 * runtime::seconds);
    EXPECT_EQ(test.store.aborts, 1u);
    EXPECT_FALSE(io.finished);
    test.store.hold_writes = false;
    co_await runtime::sleep_for(runtime::seconds);
    EXPECT_TRUE(io.finished);
    EXPECT_EQ(io.result, Errc::timed_out);
    EXPECT_EQ(test.store.aborts, 2u);
    co_await opened.close();
}
TEST_F(ClientTest, regression_AnExpiredWriteWithABadPayloadIsAbortedAgain) {
    run(bad_payload_after_deadline(*this));
}

// The store is gone at the deadline: nothing is reported, and overlapping writes wait, until it is
// back and has decided.
Task<void> unreachable_at_deadline(ClientTest& test) {
    Opened opened = co_await open_volume(16, runtime::seconds);
    Errc done = co_await write(*opened.volume, 0, pattern(4096, 1));
    EXPECT_EQ(done, Errc::ok);
    test.store.hold_writes = true;
    Observed first(IoKind::write, 0, pattern(8192, 2));
    first.watch();
    EXPECT_TRUE(opened.volume->submit(first).has_value());
    co_await runtime::sleep_for(500 * runtime::milliseconds);
    test.sim.after(0, [&test] { test.store_node.kill(); });
    co_await runtime::sleep_for(2 * runtime::seconds);
    EXPECT_FALSE(first.finished);
    Observed second(IoKind::write, 4096, pattern(4096, 3));
    second.watch();
    Observed apart(IoKind::write, 8192, pattern(4096, 4));
    apart.watch();
    EXPECT_TRUE(opened.volume->submit(second).has_value());
    test.store.hold_writes = false;
    test.sim.after(0, [&test] { test.store_node.restart(); });
    EXPECT_TRUE(opened.volume->submit(apart).has_value());
    while (!first.finished || !second.finished || !apart.finished)
        co_await runtime::sleep_for(10 * runtime::milliseconds);
    EXPECT_EQ(first.result, Errc::timed_out);
    EXPECT_EQ(apart.result, Errc::ok);
    EXPECT_EQ(second.result, Errc::ok);
    EXPECT_TRUE(
        std::equal(second.bytes.begin(), second.bytes.end(), test.tray.bytes.begin() + 4096));
    co_await opened.close();
}
TEST_F(ClientTest, rule_R10_AFateUnknownIsNotReported) {
    run(unreachable_at_deadline(*this));
}

Task<void> fenced(ClientTest& test) {
    Opened opened = co_await open_volume();
    test.store.force_status = Errc::fenced;
    Errc done = co_await write(*opened.volume, 0, pattern(4096, 1));
    EXPECT_EQ(done, Errc::fenced);
    co_await runtime::sleep_for(runtime::milliseconds);
    TestIo io(IoKind::read, 0, std::vector<std::byte>(512));
    const Status submitted = opened.volume->submit(io);
    EXPECT_EQ(submitted.error().code, Errc::fenced);
    co_await opened.close();
}
TEST_F(ClientTest, rule_R11_AFencedHandleIsFinished) {
    run(fenced(*this));
}

// One shard refuses the session: the handle is finished, but what was sent to another one completes
// only when that will not apply it any more. Whoever reopens may write there at once.
Task<void> fenced_elsewhere(ClientTest& test, uint32_t refused_aborts) {
    Opened opened = co_await open_volume();
    for (uint64_t shard = 0; shard < 2; ++shard) {
        const Errc done = co_await write(*opened.volume, shard * test_shard_bytes, pattern(512, 1));
        EXPECT_EQ(done, Errc::ok);
    }
    runtime::sim::NetworkModel& network = test.sim.network().model();
    network.late_extra = 2 * runtime::seconds;
    network.late_ppm = 1'000'000;
    Observed late(IoKind::write, test_shard_bytes, pattern(4096, 2));
    late.watch();
    EXPECT_TRUE(opened.volume->submit(late).has_value());
    co_await runtime::sleep_for(runtime::milliseconds);
    network.late_ppm = 0;
    test.store.fenced_shard = test_volume_id << 20;
    test.store.refuse_aborts = refused_aborts;
    const runtime::Nanos began = runtime::Reactor::current().now();
    const Errc done = co_await write(*opened.volume, 0, pattern(4096, 3));
    EXPECT_EQ(done, Errc::fenced);
    while (!late.finished) co_await runtime::sleep_for(runtime::milliseconds);
    EXPECT_EQ(late.result, Errc::fenced);
    EXPECT_LT(runtime::Reactor::current().now() - began, 31 * runtime::seconds);
    const auto fresh = pattern(4096, 4);
    std::ranges::copy(fresh, test.tray.bytes.begin() + static_cast<long>(test_shard_bytes));
    co_await runtime::sleep_for(5 * runtime::seconds);
    EXPECT_TRUE(std::equal(fresh.begin(), fresh.end(),
                           test.tray.bytes.begin() + static_cast<long>(test_shard_bytes)));
    co_await opened.close();
}
TEST_F(ClientTest, rule_R10_AFencedHandleKnowsTheFateOfItsWritesElsewhere) {
    run(fenced_elsewhere(*this, 0));
    EXPECT_EQ(store.aborts, 1u);
}
TEST_F(ClientTest, rule_R10_AFencedHandleDoesNotWaitForEver) {
    run(fenced_elsewhere(*this, UINT32_MAX));
}

Task<void> flushes(ClientTest& test) {
    Opened opened = co_await open_volume();
    Io flush;
    flush.kind = IoKind::flush;
    Errc done = co_await run_io(*opened.volume, flush);
    EXPECT_EQ(done, Errc::ok);
    test.store.delay_max = 10 * runtime::milliseconds;
    Observed first(IoKind::write, 0, pattern(3u << 20, 2));
    first.watch();
    EXPECT_TRUE(opened.volume->submit(first).has_value());
    done = co_await run_io(*opened.volume, flush);
    EXPECT_EQ(done, Errc::ok);
    EXPECT_TRUE(first.finished) << "a flush waits for the writes before it";
    co_await opened.close();
}
TEST_F(ClientTest, FlushWaitsForTheWritesBeforeIt) {
    run(flushes(*this));
}

struct Chain : Io {
    Volume* volume = nullptr;
    uint32_t completed = 0;
    bool stop = false;
};
Task<void> chains(IoKind kind) {
    Opened opened = co_await open_volume();
    Chain chain;
    chain.kind = kind;
    chain.length = kind == IoKind::flush ? 0 : 1024;
    chain.volume = opened.volume.get();
    chain.complete = [](Io& io) {
        auto& self = static_cast<Chain&>(io);
        if (self.stop || ++self.completed == 100'000) return;
        EXPECT_TRUE(self.volume->submit(self).has_value());
    };
    EXPECT_TRUE(opened.volume->submit(chain).has_value());
    co_await runtime::sleep_for(1);
    EXPECT_GT(chain.completed, 0u);
    EXPECT_LT(chain.completed, 100u);
    chain.stop = true;
    co_await opened.close();
}
TEST_F(ClientTest, regression_AChainOfFlushesLeavesTurnsToOthers) {
    run(chains(IoKind::flush));
}
TEST_F(ClientTest, regression_AChainOfDiscardsOfNothingLeavesTurnsToOthers) {
    run(chains(IoKind::discard));
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

// Splitting: pieces cover the range exactly, in order, each inside a chunk and a command, and what
// can be atomic is one piece.
TEST(Split, PiecesCoverTheRange) {
    Rng rng(1);
    for (int round = 0; round < 20000; ++round) {
        const auto kind = static_cast<IoKind>(rng.below(6));
        if (kind == IoKind::flush || kind == IoKind::compare_and_write) continue;
        const uint64_t offset = rng.below(8u << 20) / sector_bytes * sector_bytes;
        const uint64_t length =
            (1 + rng.below(rng.chance_ppm(500'000) ? 64 : 12000)) * sector_bytes;
        uint64_t done = 0;
        int pieces = 0;
        for (; done < length; ++pieces) {
            const uint64_t at = offset + done;
            const Cut cut = first_piece(kind, at, length - done);
            ASSERT_GT(cut.length, 0u);
            ASSERT_LE(cut.length, length - done);
            ASSERT_EQ(at / chunk_bytes, (at + cut.length - 1) / chunk_bytes);
            const uint64_t widened =
                round_up(at + cut.length, block_bytes) - round_down(at, block_bytes);
            if (kind == IoKind::read) {
                ASSERT_LE(widened, wire::max_data_bytes);
            }
            if (kind == IoKind::write) {
                ASSERT_LE(cut.length, wire::max_data_bytes);
            }
            const bool whole = at % block_bytes == 0 && cut.length % block_bytes == 0;
            if (kind == IoKind::discard) {
                ASSERT_EQ(cut.nothing, !whole);
            }
            if (kind == IoKind::write_zeroes) {
                ASSERT_EQ(cut.zeroes_as_data, !whole);
            }
            done += cut.length;
        }
        if (kind == IoKind::write && length <= max_atomic_write_bytes &&
            offset / chunk_bytes == (offset + length - 1) / chunk_bytes) {
            ASSERT_EQ(pieces, 1);
        }
    }
}

TEST(Split, CrcsDoNotDependOnTheVectors) {
    const auto bytes = pattern(20000, 3);
    const iovec whole{const_cast<std::byte*>(bytes.data()), 8192 + 1024};
    std::vector<uint32_t> expected(4);
    block_crcs({&whole, 1}, 512, whole.iov_len, std::span(expected).first(3));
    EXPECT_EQ(expected[0], crc32c(Bytes(bytes).first(3584)));
    EXPECT_EQ(expected[1], crc32c(Bytes(bytes).subspan(3584, 4096)));
    std::vector<iovec> parts;
    for (size_t at = 0; at < whole.iov_len; at += 700)
        parts.push_back(
            {const_cast<std::byte*>(bytes.data()) + at, std::min<size_t>(700, whole.iov_len - at)});
    std::vector<uint32_t> again(3);
    block_crcs(parts, 512, whole.iov_len, again);
    EXPECT_TRUE(std::equal(again.begin(), again.end(), expected.begin()));
    std::vector<std::byte> copy(whole.iov_len);
    copy_block_crcs(copy, parts, 512, whole.iov_len, again);
    EXPECT_TRUE(std::equal(copy.begin(), copy.end(), bytes.begin()));
    EXPECT_TRUE(std::equal(again.begin(), again.end(), expected.begin()));
}

}  // namespace
}  // namespace pf::client

// Goal: the tray keeps what tray.hpp promises. Method: each promise alone, on a simulated disk.
#include <gtest/gtest.h>

#include "tray/inspect.hpp"
#include "tray/on_disk_test.hpp"
#include "tray/tray_rig_test.hpp"

namespace pf::tray {
namespace {

using Tags = std::vector<uint32_t>;

struct TrayTest : testing::Test {
    void start(RigOptions options = {}) {
        rig = std::make_unique<TrayRig>(options);
        const Status formatted = rig->format();
        ASSERT_TRUE(formatted) << formatted.error().text();
        mount();
        ASSERT_TRUE(rig->create_shard(1, 4096));
    }
    void mount() {
        const Status mounted = rig->mount();
        ASSERT_TRUE(mounted) << mounted.error().text();
    }
    void expect_read(SnapSeq snap_seq, uint32_t block, const Tags& tags, ShardId shard = 1) {
        const auto read = rig->read(shard, snap_seq, block, static_cast<uint32_t>(tags.size()));
        ASSERT_TRUE(read) << read.error().text();
        EXPECT_EQ(*read, tags);
    }
    std::unique_ptr<TrayRig> rig;
};

TEST_F(TrayTest, ReadsWhatWasWritten) {
    start();
    ASSERT_TRUE(rig->write(1, 1, 7, 3, 100));
    expect_read(1, 6, {0, 100, 101, 102, 0});
    ASSERT_TRUE(rig->write(1, 1, 8, 1, 200));
    expect_read(1, 6, {0, 100, 200, 102, 0});
    ASSERT_TRUE(rig->write(1, 1, 7, 1, 0, WriteKind::zero));
    ASSERT_TRUE(rig->write(1, 1, 9, 1, 0, WriteKind::unmap));
    expect_read(1, 6, {0, 0, 200, 0, 0});
    const auto states = rig->run(rig->tray().block_states({1, 1}, 6, 5));
    ASSERT_TRUE(states);
    ASSERT_EQ(states->size(), 4u);
    EXPECT_EQ((*states)[1].state, BlockState::zero);
    EXPECT_EQ((*states)[2].state, BlockState::data);
    EXPECT_EQ((*states)[3].count, 2u);
    rig->settle();
    EXPECT_EQ(rig->tray().usage().user_blocks, 1u);
    rig->check_space();
}

// One command may ask about a shard of 64 GiB: what is built is bounded by what can be sent.
TEST_F(TrayTest, BlockStatesEndAfterAsManyRunsAsAskedFor) {
    start();
    for (uint32_t block = 0; block < 10; block += 2) ASSERT_TRUE(rig->write(1, 1, block, 1, 100));
    const auto all = rig->run(rig->tray().block_states({1, 1}, 0, 600));
    ASSERT_TRUE(all);
    EXPECT_EQ(all->size(), 10u);
    uint32_t block = 0;
    for (size_t at = 0; at < all->size();) {
        const auto some = rig->run(rig->tray().block_states({1, 1}, block, 600 - block, 3));
        ASSERT_TRUE(some);
        ASSERT_EQ(some->size(), std::min<size_t>(3, all->size() - at));
        for (const BlockRun& run : *some) {
            EXPECT_EQ(run.state, (*all)[at].state);
            EXPECT_EQ(run.count, (*all)[at].count) << "a run is whole";
            block += run.count;
            ++at;
        }
    }
    EXPECT_EQ(block, 600u);
}

TEST_F(TrayTest, SurvivesStopAndCrash) {
    start();
    ASSERT_TRUE(rig->write(1, 1, 0, 257, 1000));
    rig->stop();
    mount();
    expect_read(1, 256, {1256, 0});
    ASSERT_TRUE(rig->write(1, 1, 600, 2, 50));
    rig->crash(false);
    mount();
    expect_read(1, 599, {0, 50, 51, 0});
    ASSERT_TRUE(rig->write(1, 1, 601, 1, 60));
    rig->crash(true);
    mount();
    expect_read(1, 599, {0, 50, 60, 0});
    expect_read(1, 0, {1000, 1001});
    rig->settle();
    rig->check_space();
}

TEST_F(TrayTest, GenerationsAreATree) {
    start();
    ASSERT_TRUE(rig->write(1, 1, 0, 4, 10));
    ASSERT_TRUE(rig->run(rig->tray().create_generation({1, 2}, {1, 1}, true)));
    EXPECT_EQ(rig->write(1, 1, 0, 1, 99).error().code, Errc::invalid_argument);
    ASSERT_TRUE(rig->write(1, 2, 1, 1, 20));
    expect_read(1, 0, {10, 11, 12, 13});
    expect_read(2, 0, {10, 20, 12, 13});
    // Roll back to 1, write, and clone 2 into another shard.
    ASSERT_TRUE(rig->run(rig->tray().create_generation({1, 3}, {1, 1}, true)));
    ASSERT_TRUE(rig->write(1, 3, 2, 1, 30));
    ASSERT_TRUE(rig->create_shard(2, 4096, {1, 2}));
    ASSERT_TRUE(rig->write(2, 1, 3, 1, 40));
    rig->crash(true);
    mount();
    expect_read(1, 0, {10, 11, 12, 13});
    expect_read(2, 0, {10, 20, 12, 13});
    expect_read(3, 0, {10, 11, 30, 13});
    expect_read(1, 0, {10, 20, 12, 40}, 2);
    EXPECT_EQ(rig->run(rig->tray().delete_generation({1, 3})).error().code, Errc::busy);
    // 1 has two children: it stays, nameless. Then 2 goes into the clone.
    ASSERT_TRUE(rig->run(rig->tray().delete_generation({1, 1})));
    rig->settle();
    EXPECT_TRUE(rig->tray().generations(1)[0].nameless);
    EXPECT_FALSE(rig->read(1, 1, 0, 1));
    ASSERT_TRUE(rig->run(rig->tray().delete_generation({1, 2})));
    rig->settle();
    expect_read(3, 0, {10, 11, 30, 13});
    expect_read(1, 0, {10, 20, 12, 40}, 2);
    EXPECT_EQ(rig->tray().usage().user_blocks, 7u);
    ASSERT_TRUE(rig->run(rig->tray().delete_shard(1)));
    rig->settle();
    rig->crash(true);
    mount();
    rig->settle();
    expect_read(1, 0, {10, 20, 12, 40}, 2);
    EXPECT_EQ(rig->tray().usage().user_blocks, 4u);
    rig->check_space();
    ASSERT_TRUE(rig->run(rig->tray().delete_shard(2)));
    rig->settle();
    ASSERT_TRUE(rig->run(rig->tray().checkpoint()));
    rig->settle();
    EXPECT_EQ(rig->tray().usage().user_blocks, 0u);
    rig->check_space();
}

TEST_F(TrayTest, RequestsHaveNames) {
    start();
    const RequestName first{7, 1, 1};
    const RequestName second{7, 2, 1};
    EXPECT_EQ(rig->write(1, 1, 0, 1, 5, WriteKind::data, first).error().code,
              Errc::unknown_session);
    ASSERT_TRUE(rig->run(rig->tray().open_session(1, 7)));
    ASSERT_TRUE(rig->write(1, 1, 0, 1, 5, WriteKind::data, first));
    ASSERT_TRUE(rig->run(rig->tray().void_request(1, second)));
    for (const bool checkpoint : {false, true}) {
        if (checkpoint) {
            ASSERT_TRUE(rig->run(rig->tray().checkpoint()));
        }
        rig->crash(true);
        mount();
        EXPECT_EQ(rig->tray().request_state(1, first), RequestState::applied);
        EXPECT_EQ(rig->tray().request_state(1, second), RequestState::voided);
        EXPECT_EQ(rig->tray().request_state(1, {7, 3, 1}), RequestState::not_applied);
        EXPECT_EQ(rig->tray().request_state(1, {8, 1, 1}), RequestState::unknown_session);
    }
    ASSERT_TRUE(rig->run(rig->tray().close_session(1, 7)));
    rig->crash(true);
    mount();
    EXPECT_EQ(rig->tray().request_state(1, first), RequestState::unknown_session);
}

// T5: the log moves past a write that nobody commits; it is visible after the next mount.
TEST_F(TrayTest, UncommittedWritesAreLoggedAgain) {
    start();
    ASSERT_TRUE(rig->write(1, 1, 5, 1, 1));
    ASSERT_TRUE(rig->run(rig->do_write(1, 1, 5, 2, 77, WriteKind::data, {}, false)));
    expect_read(1, 5, {1, 0});
    for (uint32_t i = 0; i < 100; ++i) ASSERT_TRUE(rig->write(1, 1, 100 + i, 1, i + 1));
    EXPECT_GT(rig->tray().counters().checkpoints, 3u);
    expect_read(1, 5, {1, 0});
    rig->crash(true);
    mount();
    expect_read(1, 5, {77, 78});
    rig->settle();
    rig->check_space();
}

// T8: full is refused before the write; reads, discards and deletes go on; space comes back.
TEST_F(TrayTest, FullIsNotDead) {
    start({.disk_bytes = 4u << 20});
    std::vector<uint32_t> written;
    Status status;
    for (uint32_t block = 0; block < 4096; ++block) {
        status = rig->write(1, 1, block, 1, block + 1);
        if (!status) break;
        written.push_back(block);
    }
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, Errc::no_space);
    EXPECT_GT(written.size(), 700u);
    expect_read(1, 10, {11, 12});
    rig->crash(true);
    mount();
    expect_read(1, 10, {11, 12});
    ASSERT_TRUE(rig->write(1, 1, 0, 512, 0, WriteKind::unmap));
    rig->settle();
    ASSERT_TRUE(rig->write(1, 1, 0, 100, 5000));
    expect_read(1, 98, {5098, 5099, 0});
    ASSERT_TRUE(rig->run(rig->tray().delete_shard(1)));
    rig->settle();
    ASSERT_TRUE(rig->run(rig->tray().checkpoint()));
    rig->settle();
    EXPECT_EQ(rig->tray().usage().user_blocks, 0u);
    rig->check_space();
}

TEST_F(TrayTest, FailedWriteFailsTheTray) {
    start();
    runtime::sim::DiskFault fault;
    fault.operations = runtime::sim::DiskFault::on_write;
    rig->disk().inject(fault);
    EXPECT_EQ(rig->write(1, 1, 0, 1, 1).error().code, Errc::io_error);
    EXPECT_TRUE(rig->tray().failed());
    EXPECT_EQ(rig->write(1, 1, 0, 1, 1).error().code, Errc::io_error);
    EXPECT_EQ(rig->read(1, 1, 0, 1).error().code, Errc::io_error);
}

TEST_F(TrayTest, RefusesWhatItShould) {
    start();
    rig->stop();
    EXPECT_EQ(rig->format().error().code, Errc::already_exists);
    // Both superblocks damaged: refused; one: used around.
    rig->disk().flip_bit(100, 1);
    mount();
    EXPECT_EQ(rig->tray().warnings().size(), 1u);
    rig->stop();
    mount();
    EXPECT_TRUE(rig->tray().warnings().empty());
    rig->stop();
    rig->disk().flip_bit(100, 1);
    rig->disk().flip_bit((uint64_t{16} << 20) - block_bytes + 40, 1);
    EXPECT_EQ(rig->mount().error().code, Errc::corrupt);
    EXPECT_EQ(rig->format().error().code, Errc::already_exists);
    EXPECT_TRUE(rig->format(true));
    mount();
    EXPECT_TRUE(rig->tray().shards().empty());
    rig->stop();
}

// After a crash the inspector sees what the next mount will, and finds rot in any live block.
TEST_F(TrayTest, InspectionFindsEveryDamagedBlock) {
    start();
    ASSERT_TRUE(rig->write(1, 1, 0, 100, 10));
    ASSERT_TRUE(rig->run(rig->tray().checkpoint()));
    ASSERT_TRUE(rig->write(1, 1, 50, 20, 500));
    rig->settle();
    rig->crash(true);
    auto report = rig->run(verify_disk());
    ASSERT_TRUE(report) << report.error().text();
    EXPECT_TRUE(report->damage.empty()) << report->damage.front().what;
    EXPECT_EQ(report->blocks, 100u);
    // Every block of the data area in turn.
    const Superblock superblock = *choose_geometry(uint64_t{16} << 20, uint64_t{64} << 10);
    uint32_t found = 0;
    for (Address address = superblock.data_start; address < superblock.data_start + 140;
         ++address) {
        rig->disk().flip_bit(uint64_t{address} * block_bytes + 77, 3);
        report = rig->run(verify_disk());
        ASSERT_TRUE(report) << report.error().text();
        found += report->damage.empty() ? 0 : 1;
        rig->disk().flip_bit(uint64_t{address} * block_bytes + 77, 3);
    }
    EXPECT_EQ(found, 100u);
    mount();
    expect_read(1, 48, {58, 59, 500, 501});
    rig->stop();
}

// stop() does not wait for a commit that will not come; the write is there at the next mount.
TEST_F(TrayTest, StopsWithAnUncommittedWrite) {
    start();
    ASSERT_TRUE(rig->run(rig->do_write(1, 1, 5, 2, 77, WriteKind::data, {}, false)));
    rig->stop();
    mount();
    expect_read(1, 5, {77, 78});
}

// A full tray stays full, and what takes no more room goes on.
TEST_F(TrayTest, OverwritesGoOnWhenFull) {
    start({.disk_bytes = 4u << 20});
    uint32_t blocks = 0;
    while (rig->write(1, 1, blocks, 1, blocks + 1)) ++blocks;
    for (uint32_t i = 0; i < 2000; ++i) {
        const Status status = rig->write(1, 1, i % blocks, 1, 100000 + i);
        ASSERT_TRUE(status) << i << ": " << status.error().text();
    }
    EXPECT_EQ(rig->write(1, 1, blocks, 1, 1).error().code, Errc::no_space);
    rig->crash(true);
    mount();
    rig->settle();
    rig->check_space();
}

// T9: a root that never reached the disk is noticed, because the log is newer than the other one.
TEST_F(TrayTest, RefusesAnOlderRootThanTheLogNames) {
    start();
    ASSERT_TRUE(rig->write(1, 1, 0, 4, 10));
    runtime::sim::DiskFault fault;
    fault.kind = runtime::sim::FaultKind::lost_write;
    fault.operations = runtime::sim::DiskFault::on_write;
    fault.offset = uint64_t{first_root_address} * block_bytes;
    fault.length = uint64_t{root_slots} * block_bytes;
    rig->disk().inject(fault);
    ASSERT_TRUE(rig->run(rig->tray().checkpoint()));
    rig->crash(true);
    const Status mounted = rig->mount();
    ASSERT_FALSE(mounted);
    EXPECT_EQ(mounted.error().code, Errc::corrupt);
    EXPECT_NE(mounted.error().message.find("newer than the root"), std::string::npos);
}

// What an earlier format left behind is never taken for ours, even with the same random numbers.
TEST_F(TrayTest, FormatsOverAnOlderTray) {
    start();
    for (uint32_t i = 0; i < 60; ++i) ASSERT_TRUE(rig->write(1, 1, i, 1, i + 1));
    rig->crash(true);
    const auto used = rig->disk().contents();
    rig = std::make_unique<TrayRig>();
    rig->disk().replace(used);
    ASSERT_TRUE(rig->format(true));
    mount();
    EXPECT_TRUE(rig->tray().shards().empty());
    ASSERT_TRUE(rig->create_shard(1, 4096));
    expect_read(1, 0, {0, 0});
    for (uint32_t i = 0; i < 60; ++i) {
        ASSERT_TRUE(rig->write(1, 1, i, 1, 1000 + i));
        if (i % 7 != 0) continue;
        rig->crash(true);
        mount();
        expect_read(1, i, {1000 + i, 0});
    }
}

runtime::Task<Status> write_one_per_chunk(TrayRig& rig, uint32_t chunks, uint32_t tag) {
    for (uint32_t chunk = chunks; chunk > 0; --chunk) {
        const uint32_t block = (chunk - 1) * blocks_per_chunk + tag % blocks_per_chunk;
        PF_CO_TRY(co_await rig.do_write(1, 1, block, 1, tag + chunk, WriteKind::data, {}));
    }
    co_return Status{};
}

// T4: tables that change while a checkpoint is being written are in it as they were at its cut.
TEST_F(TrayTest, CheckpointsAreOfALogPosition) {
    constexpr uint32_t chunks = 200;  // several batches of tables
    rig = std::make_unique<TrayRig>(RigOptions{.log_bytes = uint64_t{4} << 20});
    ASSERT_TRUE(rig->format());
    mount();
    ASSERT_TRUE(rig->create_shard(1, chunks * blocks_per_chunk));
    for (uint32_t round = 0; round < 6; ++round) {
        const uint32_t tag = 1 + round * 1000;
        ASSERT_TRUE(rig->run(write_one_per_chunk(*rig, chunks, tag)));
        // A checkpoint runs while the same tables are written again.
        bool written = false;
        const uint64_t before = rig->tray().counters().checkpoints;
        rig->node().call([&] {
            auto checkpoint = [](Tray& tray) -> runtime::Task<void> {
                EXPECT_TRUE(co_await tray.checkpoint());
            };
            auto write = [](TrayRig& to, uint32_t from, bool& done) -> runtime::Task<void> {
                EXPECT_TRUE(co_await write_one_per_chunk(to, chunks, from));
                done = true;
            };
            runtime::Reactor::current().spawn(checkpoint(rig->tray()));
            runtime::Reactor::current().spawn(write(*rig, tag + 300, written));
        });
        const auto finished = [&] {
            return written && rig->tray().counters().checkpoints > before;
        };
        ASSERT_TRUE(rig->sim().run_until(finished, rig->sim().now() + 60 * runtime::seconds));
        rig->crash(round % 2 == 0);
        mount();
        for (uint32_t chunk = 1; chunk <= chunks; ++chunk) {
            const uint32_t first = (chunk - 1) * blocks_per_chunk;
            expect_read(1, first + tag % blocks_per_chunk, {tag + chunk});
            expect_read(1, first + (tag + 300) % blocks_per_chunk, {tag + 300 + chunk});
        }
        rig->settle();
        rig->check_space();
    }
}

runtime::Task<void> hog(bool& stop) {
    auto& pool = runtime::Reactor::current().buffers();
    while (!stop) {
        const runtime::Buffer piece = co_await pool.allocate(size_t{1} << 20);
        co_await runtime::sleep_for(100 * runtime::microseconds);
    }
}

// A tray is added to a store whose clients keep all of its memory busy: the mount waits its turn.
TEST_F(TrayTest, MountsWhereMemoryIsShort) {
    start();
    rig->stop();
    bool stop = false;
    rig->node().call([&] {
        for (int i = 0; i < 64; ++i) runtime::Reactor::current().spawn(hog(stop));
    });
    rig->settle(5 * runtime::milliseconds);
    EXPECT_TRUE(rig->mount());
    stop = true;
    rig->settle();
}

// What the chain vouches for is applied while the end is still to be found.
TEST(Mount, ReadsTheLogOnce) {
    TrayRig rig({.disk_bytes = uint64_t{64} << 20, .log_bytes = uint64_t{16} << 20});
    ASSERT_TRUE(rig.format());
    ASSERT_TRUE(rig.mount());
    ASSERT_TRUE(rig.create_shard(1, 512));
    constexpr uint32_t writes = 1900;  // a log block each
    for (uint32_t i = 0; i < writes; ++i) ASSERT_TRUE(rig.write(1, 1, i % 512, 1, 1000 + i));
    const uint64_t used = rig.tray().usage().log_used_bytes;
    ASSERT_GE(used, writes * uint64_t{block_bytes});
    rig.settle();
    rig.crash(false);
    const uint64_t before = rig.disk().counters().read_bytes;
    ASSERT_TRUE(rig.mount());
    EXPECT_LT(rig.disk().counters().read_bytes - before, 3 * used / 2);
    EXPECT_EQ(rig.read(1, 1, (writes - 1) % 512, 1), std::vector<uint32_t>{999 + writes});
}

// Found by a review: between finding the end and looking behind it the mount read the log again. A
// block that could not be read at first and could then passed for a torn tail, though it was acked.
TEST(Mount, ABlockThatIsReadableInTheEndCostsNoWrites) {
    uint64_t kept = 0;
    for (uint64_t failures = 0; failures < 12; ++failures) {
        TrayRig rig({.log_bytes = uint64_t{1} << 20});
        ASSERT_TRUE(rig.format());
        ASSERT_TRUE(rig.mount());
        ASSERT_TRUE(rig.create_shard(1, 512));
        for (uint32_t i = 0; i < 20; ++i) ASSERT_TRUE(rig.write(1, 1, i, 1, 100 + i));
        rig.crash(true);
        const runtime::sim::Medium medium = rig.disk().contents();
        OnDisk on_disk(medium);
        runtime::sim::DiskFault fault;
        fault.operations = runtime::sim::DiskFault::on_read;
        fault.offset = uint64_t{on_disk.log_address(on_disk.newest_log_sequence())} * block_bytes;
        fault.length = block_bytes;
        fault.count = failures;
        rig.disk().inject(fault);
        ASSERT_TRUE(rig.mount());
        const auto read = rig.read(1, 1, 19, 1);
        if (read)
            EXPECT_EQ(*read, std::vector<uint32_t>{119}) << failures << " failed reads";
        else
            EXPECT_EQ(read.error().code, Errc::data_lost) << failures << " failed reads";
        kept += read ? 1 : 0;
    }
    EXPECT_GE(kept, 5u);
}

// Found by a review: the mount took any block that decoded once it knew the end of the log, so one
// read that went astray put other records in the place of acked ones, for good.
TEST(Mount, AReadThatGoesAstrayCostsNoWrites) {
    constexpr uint32_t blocks = 64;
    uint64_t mounted = 0;
    for (uint64_t slot = 0; slot < 140; slot += 9) {
        for (uint64_t nth = 0; nth < 60; ++nth) {
            TrayRig rig({.log_bytes = uint64_t{1} << 20, .seed = nth + 1});
            ASSERT_TRUE(rig.format());
            ASSERT_TRUE(rig.mount());
            ASSERT_TRUE(rig.create_shard(1, 4096));
            std::vector<uint32_t> tags(blocks);
            for (uint32_t i = 0; i < 2 * blocks; ++i) {
                ASSERT_TRUE(rig.write(1, 1, i % blocks, 1, 1000 + i));
                tags[i % blocks] = 1000 + i;
            }
            rig.settle();
            rig.crash(false);
            runtime::sim::DiskFault fault;
            fault.kind = runtime::sim::FaultKind::misdirected_read;
            fault.operations = runtime::sim::DiskFault::on_read;
            fault.skip = nth;
            fault.other_offset = (log_start_address + slot) * block_bytes;
            rig.disk().inject(fault);
            const Status done = rig.mount();
            if (rig.disk().injected(fault.kind) == 0) break;
            if (!done) continue;  // refused by name: tried again, it is there
            ++mounted;
            EXPECT_EQ(rig.read(1, 1, 0, blocks), tags) << "read " << nth << " of slot " << slot;
        }
    }
    EXPECT_GT(mounted, 10u);
}

}  // namespace
}  // namespace pf::tray

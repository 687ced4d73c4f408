// Goal: tables of older generations are a cache with a budget (T11) and the bitmap of mapped blocks
// spares a mount from reading them, without a difference to be seen. Method: each promise alone, on
// a simulated disk, with room for hardly any table.
#include <gtest/gtest.h>

#include "tray/inspect.hpp"
#include "tray/on_disk_test.hpp"
#include "tray/tray_rig_test.hpp"

namespace pf::tray {
namespace {

constexpr uint32_t chunks = 48;
constexpr uint64_t budget_tables = 8;

struct TrayCacheTest : testing::Test {
    void start(RigOptions options = {.disk_bytes = uint64_t{64} << 20,
                                     .log_bytes = uint64_t{1} << 20,
                                     .cache_bytes = budget_tables * block_bytes}) {
        rig = std::make_unique<TrayRig>(options);
        ASSERT_TRUE(rig->format());
        mount();
        ASSERT_TRUE(rig->create_shard(1, chunks * blocks_per_chunk));
    }
    void mount() {
        const Status mounted = rig->mount();
        ASSERT_TRUE(mounted) << mounted.error().text();
    }
    [[nodiscard]] static uint32_t tag_of(SnapSeq snap_seq, uint32_t chunk) {
        return 1 + snap_seq * 1000 + chunk;
    }
    // Block 0 of each chunk says which generation wrote it last, block `snap_seq` that it did.
    void write_all(SnapSeq snap_seq) {
        for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
            const uint32_t block = chunk * blocks_per_chunk;
            ASSERT_TRUE(rig->write(1, snap_seq, block, 1, tag_of(snap_seq, chunk)));
            ASSERT_TRUE(rig->write(1, snap_seq, block + snap_seq, 1, tag_of(snap_seq, chunk)));
        }
    }
    void snapshot(SnapSeq from, SnapSeq to) {
        ASSERT_TRUE(rig->run(rig->tray().create_generation({1, to}, {1, from}, true)));
    }
    void make_generations(SnapSeq count) {
        write_all(1);
        for (SnapSeq made = 2; made <= count; ++made) {
            snapshot(made - 1, made);
            write_all(made);
        }
    }
    void expect_tag(SnapSeq snap_seq, uint32_t chunk) {
        const auto read = rig->read(1, snap_seq, chunk * blocks_per_chunk, 1);
        ASSERT_TRUE(read) << read.error().text();
        EXPECT_EQ((*read)[0], tag_of(snap_seq, chunk));
    }
    [[nodiscard]] uint64_t loads() const { return rig->tray().counters().table_loads; }
    [[nodiscard]] uint64_t reads() { return rig->disk().counters().operations[0]; }
    void flip(Address address) { rig->disk().flip_bit(uint64_t{address} * block_bytes + 200, 2); }
    void check_space() {
        rig->settle();
        rig->check_space();
    }
    std::unique_ptr<TrayRig> rig;
};

// However many generations there are, memory has the head's tables, the budget, and nothing else.
TEST_F(TrayCacheTest, ManyGenerationsStayWithinTheBudget) {
    start();
    constexpr SnapSeq count = 20;
    make_generations(count);
    ASSERT_TRUE(rig->run(rig->tray().checkpoint()));
    for (const bool restarted : {false, true}) {
        if (restarted) {
            rig->crash(true);
            mount();
        }
        Usage usage = rig->tray().usage();
        EXPECT_EQ(usage.tables, uint64_t{count} * chunks);
        EXPECT_LE(usage.old_tables, budget_tables);
        EXPECT_LE(usage.resident_tables, chunks + budget_tables);
        EXPECT_EQ(usage.user_blocks, uint64_t{count} * chunks * 2);
        for (SnapSeq snap_seq = 1; snap_seq <= count; ++snap_seq) {
            for (uint32_t chunk = 0; chunk < chunks; chunk += 5) expect_tag(snap_seq, chunk);
            usage = rig->tray().usage();
            EXPECT_LE(usage.old_tables, budget_tables);
            EXPECT_LE(usage.resident_tables, chunks + budget_tables);
        }
        EXPECT_GT(loads(), 100u);
        check_space();
    }
}

// Deleting all but the head reads every old table once or twice, frees what is theirs, and adds up.
TEST_F(TrayCacheTest, DeletionsAddUpWithoutACache) {
    start();
    constexpr SnapSeq count = 10;
    make_generations(count);
    rig->crash(true);
    mount();
    // From both ends and from the middle.
    for (const SnapSeq snap_seq : {5u, 1u, 9u, 2u, 8u, 6u, 3u, 7u, 4u}) {
        ASSERT_TRUE(rig->run(rig->tray().delete_generation({1, snap_seq})));
        rig->settle();
        EXPECT_LE(rig->tray().usage().old_tables, budget_tables + rig->tray().usage().tables / 10);
        expect_tag(count, snap_seq);
    }
    ASSERT_TRUE(rig->run(rig->tray().checkpoint()));
    check_space();
    const Usage usage = rig->tray().usage();
    EXPECT_EQ(usage.tables, chunks);
    // The head has its own two blocks of each chunk, and each deleted generation's other one.
    EXPECT_EQ(usage.user_blocks, uint64_t{chunks} * (1 + count));
    rig->stop();
    const auto report = rig->run(verify_disk());
    ASSERT_TRUE(report) << report.error().text();
    EXPECT_TRUE(report->damage.empty()) << report->damage.front().what;
}

// After a snapshot the head still reads through the old tables: they stay, budget or not.
TEST_F(TrayCacheTest, WhatTheHeadSeesStays) {
    start();
    write_all(1);
    snapshot(1, 2);
    snapshot(2, 3);
    ASSERT_TRUE(rig->run(rig->tray().checkpoint()));
    for (const bool restarted : {false, true}) {
        if (restarted) {
            rig->stop();
            mount();
        }
        for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
            const auto read = rig->read(1, 3, chunk * blocks_per_chunk, 1);
            ASSERT_TRUE(read);
            EXPECT_EQ((*read)[0], tag_of(1, chunk));
        }
        EXPECT_EQ(loads(), 0u);
        EXPECT_EQ(rig->tray().usage().old_tables, 0u);
    }
    write_all(3);  // from here on the first generation's are old
    EXPECT_EQ(loads(), 0u);
    ASSERT_TRUE(rig->run(rig->tray().checkpoint()));
    EXPECT_EQ(rig->tray().usage().old_tables, budget_tables);
    EXPECT_EQ(rig->tray().usage().resident_tables, chunks + budget_tables);
}

// A rollback leaves the tables of the branch that was the head behind.
TEST_F(TrayCacheTest, ARollbackMakesTablesOld) {
    start();
    make_generations(3);
    snapshot(1, 4);
    ASSERT_TRUE(rig->run(rig->tray().checkpoint()));
    rig->settle();
    EXPECT_LE(rig->tray().usage().old_tables, budget_tables);
    for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
        const auto read = rig->read(1, 4, chunk * blocks_per_chunk, 1);
        ASSERT_TRUE(read);
        EXPECT_EQ((*read)[0], tag_of(1, chunk));
        expect_tag(3, chunk);
    }
    const uint64_t before = loads();
    for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
        ASSERT_TRUE(rig->read(1, 4, chunk * blocks_per_chunk, 1));
    }
    EXPECT_EQ(loads(), before) << "the head's tables were loaded once";
    write_all(4);
    check_space();
}

TEST_F(TrayCacheTest, TheLeastRecentlyUsedGoes) {
    start();
    make_generations(3);
    ASSERT_TRUE(rig->run(rig->tray().checkpoint()));
    for (uint32_t chunk = 1; chunk <= budget_tables; ++chunk) expect_tag(1, chunk);
    const uint64_t before = loads();
    for (uint32_t round = 0; round < 3; ++round) {
        for (uint32_t chunk = 1; chunk <= budget_tables; ++chunk) expect_tag(1, chunk);
    }
    EXPECT_EQ(loads(), before);
    expect_tag(1, 1);
    expect_tag(1, 40);  // in place of chunk 2's
    expect_tag(1, 1);
    EXPECT_EQ(loads(), before + 1);
    expect_tag(1, 2);
    EXPECT_EQ(loads(), before + 2);
}

runtime::Task<void> read_some(TrayRig& rig, SnapSeq snap_seq, uint32_t first, uint32_t& done) {
    for (uint32_t i = 0; i < 20; ++i) {
        const uint32_t chunk = (first + i * 7) % chunks;
        const auto read = co_await rig.do_read(1, snap_seq, chunk * blocks_per_chunk, 1);
        EXPECT_TRUE(read.has_value());
        if (read) {
            EXPECT_EQ((*read)[0], TrayCacheTest::tag_of(snap_seq, chunk));
        }
        ++done;
    }
}

// Readers of all generations take the few places from each other, while one is deleted.
TEST_F(TrayCacheTest, ReadersShareTheLeastCacheThereIs) {
    start({.disk_bytes = uint64_t{64} << 20, .log_bytes = uint64_t{1} << 20, .cache_bytes = 0});
    make_generations(6);
    rig->crash(true);
    mount();
    ASSERT_TRUE(rig->run(rig->tray().delete_generation({1, 6 - 1})));
    uint32_t done = 0;
    rig->node().call([&] {
        for (const SnapSeq snap_seq : {1u, 2u, 3u, 4u, 6u}) {
            for (uint32_t i = 0; i < 8; ++i)
                runtime::Reactor::current().spawn(read_some(*rig, snap_seq, i, done));
        }
    });
    ASSERT_TRUE(rig->sim().run_until([&] { return done == 5 * 8 * 20; },
                                     rig->sim().now() + 60 * runtime::seconds));
    check_space();
    EXPECT_EQ(rig->tray().usage().tables, 5 * chunks);
}

// A write that was in flight when its generation became an older one finds every table it reaches.
TEST_F(TrayCacheTest, ALateCommitReachesDescendants) {
    start();
    write_all(1);
    ASSERT_TRUE(rig->run(rig->do_write(1, 1, 7, 1, 777, WriteKind::data, {}, false)));
    snapshot(1, 2);
    write_all(2);
    snapshot(2, 3);
    write_all(3);
    snapshot(3, 4);
    write_all(4);
    ASSERT_TRUE(rig->run(rig->tray().checkpoint()));
    for (uint32_t chunk = 1; chunk < chunks; ++chunk) expect_tag(1, chunk);  // push out the rest
    rig->node().call([&] { rig->tray().commit(rig->uncommitted().front()); });
    for (const SnapSeq snap_seq : {1u, 2u, 3u, 4u}) {
        const auto read = rig->read(1, snap_seq, 7, 1);
        ASSERT_TRUE(read);
        EXPECT_EQ((*read)[0], 777u) << snap_seq;
    }
    ASSERT_TRUE(rig->run(rig->tray().checkpoint()));
    check_space();
    rig->crash(true);
    mount();
    for (const SnapSeq snap_seq : {1u, 2u, 3u, 4u}) {
        const auto read = rig->read(1, snap_seq, 7, 1);
        ASSERT_TRUE(read);
        EXPECT_EQ((*read)[0], 777u) << snap_seq;
    }
    check_space();
}

// A mount reads what the head needs, and not the tables of older generations.
TEST_F(TrayCacheTest, AMountLeavesOldTablesAlone) {
    start({.disk_bytes = uint64_t{64} << 20, .log_bytes = uint64_t{256} << 10});
    constexpr SnapSeq count = 20;
    make_generations(count);
    rig->stop();
    const uint64_t before = reads();
    mount();
    // The head's tables, their parents' to know what it owns, pages, indexes, state; and the log.
    const uint64_t most = 2 * chunks + count * chunks / entries_per_page + 16 + 4;
    EXPECT_LT(reads() - before, most);
    EXPECT_EQ(rig->tray().usage().user_blocks, uint64_t{count} * chunks * 2);
    check_space();
}

// Rot in an old table: found by whoever needs it, and by pfinspect; everything else goes on.
TEST_F(TrayCacheTest, ADamagedOldTableIsNamed) {
    start();
    make_generations(3);
    rig->stop();
    flip(OnDisk(rig->disk().contents()).table_of(1, 5, 1));
    auto report = rig->run(verify_disk());
    ASSERT_TRUE(report) << report.error().text();
    ASSERT_FALSE(report->damage.empty());
    EXPECT_NE(report->damage.front().what.find("chunk 5 generation 1"), std::string::npos)
        << report->damage.front().what;
    mount();
    const auto read = rig->read(1, 1, 5 * blocks_per_chunk, 1);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code, Errc::corrupt);
    EXPECT_NE(read.error().message.find("chunk 5 generation 1"), std::string::npos)
        << read.error().message;
    EXPECT_FALSE(rig->run(rig->tray().block_states({1, 1}, 0, chunks * blocks_per_chunk)));
    expect_tag(1, 4);
    expect_tag(2, 5);
    // Nobody knows what generation 1 alone refers to: it stays, and nothing is freed wrongly.
    ASSERT_TRUE(rig->run(rig->tray().delete_generation({1, 1})));
    rig->settle();
    ASSERT_FALSE(rig->tray().warnings().empty());
    EXPECT_NE(rig->tray().warnings().back().find("1@1 cannot be freed"), std::string::npos);
    ASSERT_TRUE(rig->run(rig->tray().checkpoint()));
    check_space();
    write_all(3);
    rig->crash(true);
    mount();
    for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
        expect_tag(2, chunk);
        expect_tag(3, chunk);
    }
    check_space();
}

// A write that would clone a damaged table is refused before it is logged.
TEST_F(TrayCacheTest, AWriteOntoADamagedTableIsRefused) {
    start();
    make_generations(3);
    rig->stop();
    flip(OnDisk(rig->disk().contents()).table_of(1, 5, 1));
    mount();
    snapshot(1, 4);  // back to the damaged one
    EXPECT_EQ(rig->write(1, 4, 5 * blocks_per_chunk, 1, 9).error().code, Errc::corrupt);
    ASSERT_TRUE(rig->write(1, 4, 6 * blocks_per_chunk, 1, 9));
    EXPECT_FALSE(rig->tray().failed());
    check_space();
    rig->stop();
    // The table is the head's now: a mount does not serve without it.
    const Status mounted = rig->mount();
    ASSERT_FALSE(mounted);
    EXPECT_EQ(mounted.error().code, Errc::corrupt);
    EXPECT_NE(mounted.error().message.find("chunk 5 generation 1"), std::string::npos);
}

// The bitmap says nothing that the tables do not say: damaged, it is made again from them.
TEST_F(TrayCacheTest, ADamagedBitmapIsMadeAgain) {
    start();
    make_generations(4);
    ASSERT_TRUE(rig->create_shard(2, rig->tray().shard_state(1)->blocks, {1, 2}));
    ASSERT_TRUE(rig->write(2, 1, 3, 2, 5000));
    for (const bool index : {false, true}) {
        rig->stop();
        const Usage before = [&] {
            mount();
            rig->settle();
            const Usage usage = rig->tray().usage();
            rig->stop();
            return usage;
        }();
        OnDisk on_disk(rig->disk().contents());
        flip(index ? on_disk.root().bitmap.address : on_disk.bitmap().back());
        const auto report = rig->run(verify_disk());
        ASSERT_TRUE(report) << report.error().text();
        ASSERT_EQ(report->damage.size(), 1u);
        EXPECT_EQ(report->damage.front().where, "bitmap");
        mount();
        ASSERT_EQ(rig->tray().warnings().size(), 1u);
        EXPECT_NE(rig->tray().warnings()[0].find("made again"), std::string::npos);
        rig->settle();
        EXPECT_EQ(rig->tray().usage().user_blocks, before.user_blocks);
        EXPECT_EQ(rig->tray().usage().metadata_blocks, before.metadata_blocks);
        EXPECT_EQ(rig->tray().usage().free_blocks, before.free_blocks);
        EXPECT_LE(rig->tray().usage().old_tables, budget_tables);
        for (SnapSeq snap_seq = 1; snap_seq <= 4; ++snap_seq) expect_tag(snap_seq, 9);
        rig->stop();
        mount();
        EXPECT_TRUE(rig->tray().warnings().empty());
        const auto clean = [&] {
            rig->stop();
            auto found = rig->run(verify_disk());
            mount();
            return found;
        }();
        ASSERT_TRUE(clean);
        EXPECT_TRUE(clean->damage.empty()) << clean->damage.front().what;
    }
}

// T11: the limit on directory entries is refused by name; what needs no new one goes on.
TEST_F(TrayCacheTest, DirectoryEntriesAreLimited) {
    start({.disk_bytes = uint64_t{64} << 20, .log_bytes = uint64_t{1} << 20, .max_tables = 6});
    for (uint32_t chunk = 0; chunk < 5; ++chunk) {
        ASSERT_TRUE(rig->write(1, 1, chunk * blocks_per_chunk, 1, tag_of(1, chunk)));
    }
    snapshot(1, 2);
    ASSERT_TRUE(rig->write(1, 2, 0, 1, tag_of(2, 0)));
    const Status refused = rig->write(1, 2, blocks_per_chunk, 1, 9);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::resource_exhausted);
    EXPECT_NE(refused.error().message.find("6 directory entries"), std::string::npos)
        << refused.error().message;
    EXPECT_TRUE(rig->write(1, 2, 1, 1, 10));                                       // has a table
    EXPECT_TRUE(rig->write(1, 2, 20 * blocks_per_chunk, 1, 0, WriteKind::unmap));  // needs none
    EXPECT_FALSE(rig->write(1, 2, blocks_per_chunk, 1, 0, WriteKind::unmap));
    ASSERT_TRUE(rig->run(rig->tray().delete_generation({1, 1})));
    rig->settle();
    ASSERT_TRUE(rig->run(rig->tray().checkpoint()));
    EXPECT_TRUE(rig->write(1, 2, blocks_per_chunk, 1, 9));
    EXPECT_TRUE(rig->write(1, 2, 30 * blocks_per_chunk, 1, 9));
    EXPECT_FALSE(rig->write(1, 2, 31 * blocks_per_chunk, 1, 9));
    check_space();
}

}  // namespace
}  // namespace pf::tray

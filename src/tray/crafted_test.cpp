// Goal: metadata that contradicts itself is refused by name, or made again, whatever its checksums
// say; it never ends the process, and a mount that refuses writes nothing. Method: a good tray with
// one thing changed and every CRC on the way to it made again.
#include <gtest/gtest.h>

#include <limits>

#include "tray/craft_test.hpp"
#include "tray/inspect.hpp"
#include "tray/tray_rig_test.hpp"

namespace pf::tray {
namespace {

using runtime::sim::Medium;

constexpr uint32_t deleted_flag = 1;
constexpr uint64_t most = std::numeric_limits<uint64_t>::max();

// Shard 1 has generations 1 <- 2 <- 3, the head, and shard 2 is a clone of generation 2. Each has
// written a block of its own.
struct CraftedTray : testing::Test {
    CraftedTray() {
        EXPECT_TRUE(rig.format());
        EXPECT_TRUE(rig.mount());
        EXPECT_TRUE(rig.create_shard(1, 4096));
        EXPECT_TRUE(rig.write(1, 1, 0, 2, 10));
        for (const SnapSeq made : {2u, 3u}) {
            EXPECT_TRUE(rig.run(rig.tray().create_generation({1, made}, {1, made - 1}, true)));
            EXPECT_TRUE(rig.write(1, made, made, 1, 10 * made));
        }
        EXPECT_TRUE(rig.create_shard(2, 4096, {1, 2}));
        EXPECT_TRUE(rig.write(2, 1, 7, 1, 70));
        rig.stop();
        original = rig.disk().contents();
    }
    void mount() {
        const Status mounted = rig.mount();
        ASSERT_TRUE(mounted) << mounted.error().text();
    }
    // The mount says why, and so does pfinspect verify; the medium stays as it is.
    void expect_refused(const Medium& medium, const std::string& words) {
        rig.crash(true);
        rig.disk().replace(medium);
        const uint64_t before = rig.disk().contents().hash();
        const Status mounted = rig.mount();
        ASSERT_FALSE(mounted) << words;
        EXPECT_EQ(mounted.error().code, Errc::corrupt);
        EXPECT_NE(mounted.error().message.find(words), std::string::npos)
            << words << ": " << mounted.error().message;
        const auto report = rig.run(verify_disk());
        ASSERT_TRUE(report || report.error().code == Errc::corrupt);
        if (report) {
            EXPECT_FALSE(report->damage.empty()) << words;
        }
        EXPECT_EQ(rig.disk().contents().hash(), before) << words << ": something was written";
    }
    void expect_parents_refused(
        const std::string& words,
        const std::vector<std::pair<GenerationId, GenerationId>>& new_parents) {
        Crafter crafter(original);
        crafter.edit_generations([&](GenerationStateFormat& generation) {
            for (const auto& [id, parent] : new_parents) {
                if (generation.shard != id.shard || generation.snap_seq != id.snap_seq) continue;
                generation.parent_shard = parent.shard;
                generation.parent_snap_seq = parent.snap_seq;
            }
        });
        expect_refused(crafter.medium(), words);
    }
    void expect_all_readable() {
        using Tags = std::vector<uint32_t>;
        EXPECT_EQ(*rig.read(1, 1, 0, 4), (Tags{10, 11, 0, 0}));
        EXPECT_EQ(*rig.read(1, 2, 0, 4), (Tags{10, 11, 20, 0}));
        EXPECT_EQ(*rig.read(1, 3, 0, 4), (Tags{10, 11, 20, 30}));
        EXPECT_EQ(*rig.read(2, 1, 0, 8), (Tags{10, 11, 20, 0, 0, 0, 0, 70}));
    }
    [[nodiscard]] Address block_of(Medium& medium, ShardId shard, SnapSeq snap_seq,
                                   uint32_t block) const {
        const Address table = OnDisk(medium).table_of(shard, 0, snap_seq);
        std::vector<std::byte> bytes(block_bytes);
        medium.read(uint64_t{table} * block_bytes, bytes);
        return load<TableEntry>(Bytes(bytes), block * sizeof(TableEntry)).address;
    }
    // Clears the bit of one block, and sets one that nobody owns, so that the count is right.
    [[nodiscard]] Medium with_wrong_bits(ShardId shard, SnapSeq snap_seq, uint32_t block) {
        Crafter crafter(original);
        const Superblock& superblock = crafter.superblock();
        const Address cleared = block_of(original, shard, snap_seq, block);
        crafter.edit_bitmap([&](BitmapPage& page) {
            set_bit(page, superblock, cleared, false);
            set_bit(page, superblock, (superblock.data_start + superblock.data_end) / 2, true);
        });
        return crafter.medium();
    }

    TrayRig rig{RigOptions{}};
    Medium original;
};

TEST_F(CraftedTray, TheCrafterItselfDamagesNothing) {
    Crafter crafter(original);
    crafter.edit_generations([](GenerationStateFormat&) {});
    crafter.edit_bitmap([](BitmapPage&) {});
    EXPECT_EQ(crafter.medium().hash(), original.hash());
    mount();
    EXPECT_TRUE(rig.tray().warnings().empty());
    expect_all_readable();
    rig.check_space();
}

TEST_F(CraftedTray, ARingOfParentsIsRefused) {
    expect_parents_refused("form a ring", {{{1, 1}, {1, 3}}});
    expect_parents_refused("form a ring", {{{1, 1}, {1, 2}}});
    expect_parents_refused("form a ring", {{{1, 1}, {2, 1}}});  // through the clone
    expect_parents_refused("form a ring", {{{1, 2}, {2, 1}}});
    expect_parents_refused("unknown parent", {{{1, 1}, {1, 1}}});
    expect_parents_refused("unknown parent", {{{1, 2}, {1, 9}}});
    expect_parents_refused("unknown parent", {{{2, 1}, {3, 1}}});
}

TEST_F(CraftedTray, AHeadThatIsDeletedOrMissingIsRefused) {
    Crafter deleted(original);
    deleted.edit_generations([](GenerationStateFormat& generation) {
        if (generation.shard == 1 && generation.snap_seq == 3)
            generation.header.flags |= deleted_flag;
    });
    expect_refused(deleted.medium(), "its head generation 3 is missing");
    Crafter missing(original);
    missing.edit_state<ShardStateFormat>(
        1, [](ShardStateFormat& shard) { shard.snap_seq = shard.highest_snap_seq = 9; });
    expect_refused(missing.medium(), "its head generation 9 is missing");
}

TEST_F(CraftedTray, AStateRecordThatIsThereTwiceIsRefused) {
    Crafter shard(original);
    shard.edit_state<ShardStateFormat>(1, [](ShardStateFormat& format) { format.shard = 1; });
    expect_refused(shard.medium(), "a shard is there twice");
    Crafter generation(original);
    generation.edit_generations([](GenerationStateFormat& format) {
        if (format.snap_seq == 3) format.snap_seq = 2;
    });
    expect_refused(generation.medium(), "a generation does not fit");
}

// Nothing is replayed from 0, and what is behind the end of the log says that a root was lost.
TEST_F(CraftedTray, AnImpossibleLogStartIsRefused) {
    for (const uint64_t start : {uint64_t{0}, most, most - 1, most / 2}) {
        for (const bool both : {false, true}) {
            Crafter crafter(original);
            const auto change = [&](RootFormat& root) { root.log_start = start; };
            crafter.edit<RootFormat>(crafter.newest_root(), change);
            if (both) crafter.edit<RootFormat>(crafter.other_root(), change);
            rig.crash(true);
            rig.disk().replace(crafter.medium());
            const uint64_t before = rig.disk().contents().hash();
            const Status mounted = rig.mount();
            ASSERT_FALSE(mounted) << start << both;
            EXPECT_EQ(mounted.error().code, Errc::corrupt) << mounted.error().text();
            (void)rig.run(verify_disk());
            EXPECT_EQ(rig.disk().contents().hash(), before) << start << both;
        }
    }
}

TEST_F(CraftedTray, ImpossibleNumbersOfARootAreRefused) {
    const std::function<void(RootFormat&)> changes[] = {
        [](RootFormat& root) { root.number = 0; },
        [](RootFormat& root) { root.number = most - root.number % 2; },
        [](RootFormat& root) { root.incarnation = most; },
        [](RootFormat& root) { root.directory_pages += 1; },
        [](RootFormat& root) { root.index.address = root.state.address; },
        [](RootFormat& root) { root.bitmap = root.index; },
    };
    for (size_t i = 0; i < std::size(changes); ++i) {
        for (const bool both : {false, true}) {
            Crafter crafter(original);
            crafter.edit<RootFormat>(crafter.newest_root(), changes[i]);
            if (both) crafter.edit<RootFormat>(crafter.other_root(), changes[i]);
            rig.crash(true);
            rig.disk().replace(crafter.medium());
            const auto report = rig.run(verify_disk());
            if (report) {
                EXPECT_FALSE(report->damage.empty()) << i;
            }
            const Status mounted = rig.mount();
            if (!mounted) {
                EXPECT_EQ(mounted.error().code, Errc::corrupt) << i << mounted.error().text();
            } else {  // a bitmap is made again
                EXPECT_FALSE(rig.tray().warnings().empty()) << i;
                expect_all_readable();
            }
        }
    }
}

// A block in use must not be free by the bitmap: the next write would land on it. What heads see is
// held against it at the mount, and what is wrong is made again from all tables.
TEST_F(CraftedTray, ABitmapWithTheRightCountAndWrongBitsIsMadeAgain) {
    struct Case {
        ShardId shard;
        SnapSeq snap_seq;
        uint32_t block;
    };
    for (const auto& [shard, snap_seq, block] :
         {Case{1, 3, 3}, Case{1, 3, 0}, Case{2, 1, 7}, Case{1, 2, 2}}) {
        const Medium medium = with_wrong_bits(shard, snap_seq, block);
        rig.crash(true);
        rig.disk().replace(medium);
        const auto report = rig.run(verify_disk());
        ASSERT_TRUE(report) << report.error().text();
        EXPECT_FALSE(report->damage.empty());
        mount();
        ASSERT_EQ(rig.tray().warnings().size(), 1u);
        EXPECT_NE(rig.tray().warnings()[0].find("is not in it"), std::string::npos)
            << rig.tray().warnings()[0];
        for (uint32_t i = 0; i < 400; ++i) ASSERT_TRUE(rig.write(2, 1, 100 + i, 1, 1000 + i));
        expect_all_readable();
        ASSERT_TRUE(rig.write(1, 3, 0, 8, 500));  // over every block, the wrong one with them
        ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
        rig.settle();
        rig.check_space();
        rig.stop();
        mount();
        EXPECT_TRUE(rig.tray().warnings().empty());
    }
}

// Of what only older generations have nothing is read at the mount. Found when it is: the table is
// damaged for whoever needs it, its generation is not freed, and the tray goes on.
TEST_F(CraftedTray, WrongBitsOfAnOlderGenerationAreFoundWithItsTable) {
    mount();
    ASSERT_TRUE(rig.write(1, 3, 0, 3, 900));  // so that no head sees what generation 1 has
    ASSERT_TRUE(rig.run(rig.tray().delete_shard(2)));
    rig.settle();
    ASSERT_TRUE(rig.run(rig.tray().create_generation({1, 4}, {1, 3}, true)));
    ASSERT_TRUE(rig.write(1, 4, 0, 4, 950));
    rig.stop();
    original = rig.disk().contents();
    rig.crash(true);
    rig.disk().replace(with_wrong_bits(1, 1, 0));
    mount();
    EXPECT_TRUE(rig.tray().warnings().empty());
    const auto read = rig.read(1, 1, 0, 1);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code, Errc::corrupt);
    EXPECT_NE(read.error().message.find("not in the bitmap"), std::string::npos);
    ASSERT_TRUE(rig.run(rig.tray().delete_generation({1, 1})));
    ASSERT_TRUE(rig.run(rig.tray().delete_generation({1, 2})));
    rig.settle();
    ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
    EXPECT_FALSE(rig.tray().failed());
    ASSERT_FALSE(rig.tray().warnings().empty());
    EXPECT_NE(rig.tray().warnings()[0].find("cannot be freed"), std::string::npos);
    EXPECT_EQ(*rig.read(1, 4, 0, 4), (std::vector<uint32_t>{950, 951, 952, 953}));
}

// The sum is right, so the mount has no reason to doubt it; who adds up one generation does.
TEST_F(CraftedTray, AGenerationThatOwnsAnotherNumberOfBlocksIsNotFreed) {
    for (const int64_t more : {1, -1}) {
        Crafter crafter(original);
        crafter.edit_generations([&](GenerationStateFormat& generation) {
            if (generation.shard != 1 || generation.snap_seq > 2) return;
            const int64_t change = generation.snap_seq == 1 ? more : -more;
            generation.own_blocks += static_cast<uint64_t>(change);
        });
        rig.crash(true);
        rig.disk().replace(crafter.medium());
        mount();
        EXPECT_TRUE(rig.tray().warnings().empty());
        ASSERT_TRUE(rig.run(rig.tray().delete_generation({1, 1})));
        rig.settle();
        ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
        ASSERT_EQ(rig.tray().warnings().size(), 1u);
        EXPECT_NE(rig.tray().warnings()[0].find("generation 1@1 cannot be freed"),
                  std::string::npos);
        EXPECT_EQ(*rig.read(1, 3, 0, 4), (std::vector<uint32_t>{10, 11, 20, 30}));
        rig.stop();
        mount();
        EXPECT_EQ(*rig.read(1, 3, 0, 4), (std::vector<uint32_t>{10, 11, 20, 30}));
        EXPECT_FALSE(rig.tray().failed());
    }
}

}  // namespace
}  // namespace pf::tray

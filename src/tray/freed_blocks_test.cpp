// What the tray gives back: blocks that a deletion freed, and trims on the device.
#include <gtest/gtest.h>

#include "tray/tray_rig_test.hpp"

namespace pf::tray {
namespace {

class FreedBlocks : public ::testing::Test {
  public:
    void start(RigOptions options) {
        rig = std::make_unique<TrayRig>(options);
        ASSERT_TRUE(rig->format());
        mount();
    }
    void mount() {
        const Status mounted = rig->mount();
        ASSERT_TRUE(mounted) << mounted.error().text();
    }
    std::unique_ptr<TrayRig> rig;
};

// A device that is slower with trims than the writes are holds a bounded number of blocks.
TEST_F(FreedBlocks, SlowTrimsHoldFewBlocks) {
    start(RigOptions{.disk_bytes = uint64_t{64} << 20, .discard = true});
    ASSERT_TRUE(rig->create_shard(1, blocks_per_chunk));
    for (uint32_t block = 0; block < 2; ++block) ASSERT_TRUE(rig->write(1, 1, block, 1, 1));
    runtime::sim::DiskFault slow;
    slow.kind = runtime::sim::FaultKind::slow;
    slow.operations = runtime::sim::DiskFault::on_discard;
    slow.slow_extra = 600 * runtime::seconds;
    rig->disk().inject(slow);
    const uint64_t trimmed = rig->tray().counters().discards;
    uint64_t most_held = 0;
    for (uint32_t tag = 2; tag < 5000; ++tag) {
        // In turn, so that what is freed is one block at a time.
        ASSERT_TRUE(rig->write(1, 1, tag % 2, 1, tag));
        most_held = std::max(most_held, rig->tray().usage().held_blocks);
    }
    EXPECT_EQ(rig->tray().counters().discards, trimmed) << "the first has not ended";
    EXPECT_GT(most_held, 1024u);
    EXPECT_LT(most_held, 2500u) << "1024 extents wait, some of several blocks";
    rig->settle(700 * runtime::seconds);
    EXPECT_GT(rig->tray().counters().discards, trimmed + 1024);
    EXPECT_EQ(rig->tray().usage().held_blocks, 0u);
    rig->check_space();
    EXPECT_EQ(*rig->read(1, 1, 0, 2), (std::vector<uint32_t>{4998, 4999}));
}

runtime::Task<Status> write_in_turn(TrayRig& rig, uint32_t blocks) {
    for (uint32_t block = 0; block < blocks; ++block) {
        for (const ShardId shard : {ShardId{1}, ShardId{2}})
            PF_CO_TRY(co_await rig.do_write(shard, 1, block, 1, block, WriteKind::data, {}));
    }
    co_return Status{};
}

// What a deletion frees was a list in memory until all of it was collected, however long.
TEST_F(FreedBlocks, regression_a_large_deletion_is_given_back_in_parts) {
    constexpr uint32_t blocks = 120'000;
    start(RigOptions{.disk_bytes = uint64_t{4} << 30, .log_bytes = uint64_t{4} << 20});
    for (const ShardId shard : {ShardId{1}, ShardId{2}})
        ASSERT_TRUE(rig->create_shard(shard, blocks));
    // Of two shards in turn: what one has is nowhere side by side.
    ASSERT_TRUE(rig->run(write_in_turn(*rig, blocks)));
    rig->settle();
    const uint64_t free_blocks = rig->tray().usage().free_blocks;
    bool deleted = false;
    rig->node().call([&] {
        auto remove = [](Tray& tray, bool& done) -> runtime::Task<void> {
            EXPECT_TRUE(co_await tray.delete_shard(1));
            done = true;
        };
        runtime::Reactor::current().spawn(remove(rig->tray(), deleted));
    });
    uint64_t most_held = 0;
    const auto given_back = [&] {
        most_held = std::max(most_held, rig->tray().usage().held_blocks);
        return rig->tray().usage().free_blocks >= free_blocks + 60'000;
    };
    ASSERT_TRUE(rig->sim().run_until(given_back, rig->sim().now() + 10 * runtime::seconds));
    EXPECT_TRUE(deleted);
    EXPECT_GT(most_held, 60'000u);
    EXPECT_LT(most_held, 110'000u);
}

// A stop waited for all trims that were queued; each was then one more for the device.
TEST_F(FreedBlocks, regression_a_stop_waits_for_one_trim) {
    start(RigOptions{.discard = true});
    ASSERT_TRUE(rig->create_shard(1, blocks_per_chunk));
    runtime::sim::DiskFault slow;
    slow.kind = runtime::sim::FaultKind::slow;
    slow.operations = runtime::sim::DiskFault::on_discard;
    slow.count = runtime::sim::DiskFault::forever;
    slow.slow_extra = 10 * runtime::seconds;
    rig->disk().inject(slow);
    for (uint32_t tag = 1; tag < 200; ++tag) ASSERT_TRUE(rig->write(1, 1, tag % 2, 1, tag));
    EXPECT_GT(rig->tray().usage().held_blocks, 100u);
    const runtime::Nanos before = rig->sim().now();
    rig->stop();
    EXPECT_LT(rig->sim().now() - before, 11 * runtime::seconds);
    rig->disk().clear_faults();
    mount();
    EXPECT_EQ(*rig->read(1, 1, 0, 2), (std::vector<uint32_t>{198, 199}));
    rig->settle();
    rig->check_space();
}

}  // namespace
}  // namespace pf::tray

// T5 in the cases that need several things at once: what is known committed, and in which order the
// log has what it is not known of. (The plain case is in rules_log_test.cpp.)
#include <gtest/gtest.h>

#include "tray_rig.hpp"

namespace pf::test {
namespace {

using runtime::sim::DiskFault;
using runtime::sim::FaultKind;

constexpr Tag a = 1000, b = 20'000, c = 30'000;

// Records that together fill a log block to the last byte, so that none of them stays in the queue.
void begin_a_full_block(TrayRig& rig, uint32_t first_block) {
    constexpr uint32_t zeros = 51;  // of 64 bytes
    constexpr uint32_t data = 10;   // of 76: one extent and one CRC more
    static_assert(size_t{zeros} * sizeof(tray::WriteRecordFormat) +
                      size_t{data} * tray::write_record_bytes(1, 1) ==
                  tray::log_payload_bytes);
    for (uint32_t i = 0; i < zeros + data; ++i) {
        const auto kind = i < zeros ? tray::WriteKind::zero : tray::WriteKind::data;
        (void)rig.begin({.block = first_block + i, .tag = c + i, .kind = kind});
    }
}

// Four writes are durable and not committed when a checkpoint logs them again, which takes two log
// blocks. All of the log's buffers are on their way, so they wait; the last one commits meanwhile
// and a newer write goes over it. In front of the older record the newer one would be undone by a
// replay: the checkpoint has neither.
TEST(Rules, rule_t05_what_is_logged_again_stays_in_front_of_newer_writes) {
    constexpr uint32_t count = 256;
    TrayRig rig(uint64_t{64} << 20, uint64_t{256} << 10);
    ASSERT_TRUE(rig.create());
    ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
    for (uint32_t i = 0; i < 4; ++i)
        ASSERT_TRUE(rig.write(
            {.block = i * count, .count = count, .tag = a + Tag{i} * count, .commit = false}));
    static_assert(4 * tray::write_record_bytes(1, count) > tray::log_payload_bytes);
    rig.idle();
    rig.slow_data(1);
    const auto before_the_cut = rig.begin({.block = 1800, .tag = c});
    rig.idle(10 * runtime::milliseconds);
    const auto checkpoint = rig.begin(rig.tray().checkpoint());
    rig.idle(10 * runtime::milliseconds);
    // Two blocks that are not full, and full ones, until the log has no buffer left.
    constexpr uint32_t buffers = 8;
    const uint64_t blocks = rig.tray().counters().log_blocks;
    rig.slow_log(buffers);
    for (uint32_t i = 0; i < 2; ++i) {
        (void)rig.begin({.block = 1802 + i, .kind = tray::WriteKind::zero});
        rig.idle(runtime::milliseconds);
    }
    for (uint32_t i = 2; i < buffers; ++i) {
        begin_a_full_block(rig, 1024 + 64 * i);
        rig.idle(runtime::milliseconds);
    }
    ASSERT_EQ(rig.tray().counters().log_blocks, blocks + buffers);
    ASSERT_FALSE(before_the_cut->status);
    ASSERT_TRUE(rig.sim.run_until([&] { return before_the_cut->status.has_value(); },
                                  rig.sim.now() + 10 * runtime::seconds));
    rig.idle(5 * runtime::milliseconds);
    ASSERT_EQ(rig.tray().counters().log_blocks, blocks + buffers) << "all is still on its way";
    rig.commit(3);
    const auto newer = rig.begin({.block = 3 * count, .tag = b});
    rig.idle(10 * runtime::seconds);
    ASSERT_TRUE(newer->acked() && checkpoint->acked());
    ASSERT_TRUE(rig.reboot());
    for (uint32_t i = 0; i < 4; ++i) {
        const Tag old = a + Tag{i} * count;
        const auto first = rig.read(i * count, {old, b});
        ASSERT_TRUE(first.has_value()) << first.error().text();
        EXPECT_EQ(*first, i == 3 ? b : old) << i;
        EXPECT_EQ(*rig.read(i * count + 1, {old + 1}), old + 1) << i;
    }
}

struct Logged {
    uint64_t newest_write = 0;
    uint64_t known_committed = 0;  // by the newest commit record
};

Logged read_log(TrayRig& rig) {
    const runtime::sim::Medium medium = rig.disk.contents();
    std::vector<std::byte> bytes(block_bytes);
    medium.read(0, bytes);
    const auto superblock = *tray::decode_superblock(bytes);
    Logged found;
    for (uint32_t i = 0; i < superblock.log_blocks; ++i) {
        medium.read((uint64_t{tray::log_start_address} + i) * block_bytes, bytes);
        const auto block = tray::decode_log_block(bytes, superblock);
        if (!block) continue;
        for (Bytes left = block->records; !left.empty();) {
            const tray::Record record = *tray::take_record(left, superblock);
            if (const auto* write = std::get_if<tray::WriteRecord>(&record))
                found.newest_write = std::max(found.newest_write, write->position.sequence);
            if (const auto* commit = std::get_if<tray::CommitRecord>(&record))
                found.known_committed = std::max(found.known_committed, commit->position.sequence);
        }
    }
    return found;
}

// The first write of two has its number and waits for a table; the second one commits. What the log
// then says is committed must stop before the first, or nobody would hand that on.
TEST(Rules, rule_t05_a_write_that_waits_is_not_known_committed) {
    TrayRig rig;
    ASSERT_TRUE(rig.create());
    const auto new_head = [&](tray::SnapSeq parent) {
        const tray::GenerationId from{TrayRig::shard, parent};
        return rig.run(rig.tray().create_generation({TrayRig::shard, ++rig.head}, from, true));
    };
    ASSERT_TRUE(rig.write({.block = 10, .tag = a}));
    for (const tray::SnapSeq parent : {1u, 2u}) {
        ASSERT_TRUE(new_head(parent));
        ASSERT_TRUE(rig.write({.block = 10, .tag = b + parent}));
    }
    ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
    ASSERT_TRUE(rig.reboot());
    ASSERT_TRUE(new_head(1));  // a rollback to a table that the mount had no need of
    DiskFault slow;
    slow.kind = FaultKind::slow;
    slow.operations = DiskFault::on_read;
    slow.count = 1;
    slow.slow_extra = runtime::seconds;
    rig.disk.inject(slow);
    const auto waits = rig.begin({.block = 11, .tag = c});
    rig.idle(runtime::milliseconds);
    ASSERT_EQ(rig.disk.injected(FaultKind::slow), 1u);
    ASSERT_TRUE(rig.write({.block = 3 * blocks_per_chunk, .tag = c + 1}));
    rig.idle();
    ASSERT_FALSE(waits->status);
    const Logged meanwhile = read_log(rig);
    EXPECT_LT(meanwhile.known_committed, meanwhile.newest_write - 1);
    rig.idle(2 * runtime::seconds);
    ASSERT_TRUE(waits->acked());
    EXPECT_EQ(read_log(rig).known_committed, meanwhile.newest_write);
}

}  // namespace
}  // namespace pf::test

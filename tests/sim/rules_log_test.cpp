// The tray's rules T1 to T6, T9 and T10 (more of T5 is in rules_commit_test.cpp, T7 in
// rules_loss_test.cpp), each as the sequence of events that breaks a promise without it, scripted
// on the real tray. (The store's rules are in src/store/store_*_test.cpp, the client's in
// src/client/volume_*_test.cpp; see docs/internals/testing.md.)
#include <gtest/gtest.h>

#include <utility>

#include "tray_rig.hpp"

namespace pf::test {
namespace {

using runtime::sim::DiskFault;
using runtime::sim::FaultKind;
using runtime::sim::Medium;
using runtime::sim::UnflushedWrite;

constexpr Tag a = 1000, b = 2000, c = 3000;

void expect_tag(TrayRig& rig, uint32_t block, Tag expected, const std::vector<Tag>& others = {}) {
    std::vector<Tag> candidates = others;
    candidates.insert(candidates.begin(), {expected, hole_tag});
    const Result<Tag> found = rig.read(block, candidates);
    ASSERT_TRUE(found.has_value()) << "block " << block << ": " << found.error().text();
    EXPECT_EQ(*found, expected) << "block " << block;
}

// R1's record is durable and its data is not: the mount drops it. Whatever happens next - the data
// turns up late, its block is reused, `confirmed` moves on - no later mount may map it.
TEST(Rules, rule_t01_replay_decides_once) {
    for (const bool data_turns_up : {false, true}) {
        TrayRig rig;
        ASSERT_TRUE(rig.create());
        ASSERT_TRUE(rig.write({.block = 10, .tag = a}));
        rig.idle();
        rig.slow_data(1);
        const auto lost = rig.begin({.block = 10, .tag = b});
        rig.idle(20 * runtime::milliseconds);
        ASSERT_FALSE(lost->status);
        const Medium without = rig.state_with(
            [&](const UnflushedWrite& write) { return rig.in_log(write.data->offset); });
        const auto late = rig.disk.capture();
        rig.crash_to(without);
        ASSERT_TRUE(rig.boot());
        EXPECT_EQ(rig.tray().counters().dropped_records, 1u);
        expect_tag(rig, 10, a, {b});
        if (data_turns_up) {
            Medium medium = rig.disk.contents();
            for (const UnflushedWrite& write : late.writes) {
                if (!rig.in_log(write.data->offset)) medium.apply(*write.data);
            }
            rig.crash_to(medium);
            ASSERT_TRUE(rig.boot());
        }
        for (uint32_t i = 0; i < 600; ++i) {
            ASSERT_TRUE(rig.write({.block = 20 + i % 700, .tag = c + i}));
        }
        rig.idle();
        ASSERT_TRUE(rig.reboot());
        expect_tag(rig, 10, a, {b});
        expect_tag(rig, 20, c);
    }
}

// N is torn, N+1 reached the log. The mount ends before N and writes a new N, behind which the old
// N+1 must not come alive.
TEST(Rules, rule_t02_the_log_is_a_chain) {
    for (uint64_t delay_us = 0; delay_us < 12'000; delay_us += 400) {
        TrayRig rig;
        ASSERT_TRUE(rig.create());
        rig.idle();
        rig.slow_log(2);
        const auto first = rig.begin({.block = 10, .tag = a});
        rig.idle(runtime::milliseconds);
        const auto second = rig.begin({.block = 11, .tag = b});
        rig.idle(20 * runtime::milliseconds);
        ASSERT_FALSE(first->status || second->status);
        uint64_t log_writes = 0;
        const Medium torn = rig.state_with([&](const UnflushedWrite& write) {
            return !rig.in_log(write.data->offset) || ++log_writes == 2;
        });
        ASSERT_EQ(log_writes, 2u) << "two log blocks in flight";
        rig.crash_to(torn);
        ASSERT_TRUE(rig.boot());
        rig.idle(delay_us * runtime::microseconds);
        expect_tag(rig, 11, hole_tag, {b});
        ASSERT_TRUE(rig.reboot());
        expect_tag(rig, 10, hole_tag, {a});
        expect_tag(rig, 11, hole_tag, {b});
        ASSERT_TRUE(rig.write({.block = 12, .tag = c}));
        ASSERT_TRUE(rig.reboot());
        expect_tag(rig, 11, hole_tag, {b});
        expect_tag(rig, 12, c);
    }
}

// R1 (blocks 10 and 11) is acked but unconfirmed, since an older write is still in flight; R2
// supersedes block 10. New data over R1's first block would make R1 fail its check and lose 11.
TEST(Rules, rule_t03_no_reuse_inside_the_unconfirmed_tail) {
    TrayRig rig(uint64_t{6} << 20, uint64_t{1} << 20);
    ASSERT_TRUE(rig.create());
    for (uint32_t i = 0; i < 16; ++i)
        ASSERT_TRUE(rig.write({.block = 200 + 16 * i, .count = 16, .tag = 10'000 + 16 * i}));
    rig.idle();
    rig.slow_data(1);
    const auto slow = rig.begin({.block = 600, .tag = c});
    rig.idle(runtime::milliseconds);
    ASSERT_TRUE(rig.write({.block = 10, .count = 2, .tag = a}));
    ASSERT_TRUE(rig.write({.block = 10, .tag = b}));
    // Round and round the free space: without the rule these land on what R1 and R2 gave up.
    std::vector<std::shared_ptr<Issued>> more;
    for (uint32_t i = 0; i < 110; ++i) {
        more.push_back(
            rig.begin({.block = 200 + 16 * (i % 16), .count = 16, .tag = 50'000 + 16 * i}));
        if (i % 2 == 1) rig.idle(runtime::milliseconds);
    }
    ASSERT_FALSE(slow->status) << "the window stayed open";
    ASSERT_TRUE(rig.reboot());
    expect_tag(rig, 10, b, {a});
    expect_tag(rig, 11, a + 1);
}

runtime::Task<void> checkpoint_and_note(tray::Tray& tray, std::shared_ptr<bool> done) {
    const Status status = co_await tray.checkpoint();
    *done = status.has_value();
}

// B finishes before the older A of the same chunk, and a checkpoint begins, which has to wait for
// A. C comes meanwhile and is acked with it. All three must be there after a crash.
TEST(Rules, rule_t04_a_checkpoint_is_of_a_log_position) {
    TrayRig rig;
    ASSERT_TRUE(rig.create());
    ASSERT_TRUE(rig.write({.block = 5, .tag = c}));
    rig.idle();
    rig.slow_data(1);
    const auto older = rig.begin({.block = 10, .tag = a});
    const auto newer = rig.begin({.block = 11, .tag = b});
    rig.idle(50 * runtime::milliseconds);
    ASSERT_FALSE(older->status);
    auto done = std::make_shared<bool>(false);
    rig.node.reactor().spawn(checkpoint_and_note(rig.tray(), done));
    rig.idle(10 * runtime::milliseconds);
    const auto during = rig.begin({.block = 12, .tag = c + 1});
    rig.idle(10 * runtime::seconds);
    ASSERT_TRUE(*done && older->acked() && newer->acked() && during->acked());
    ASSERT_TRUE(rig.reboot());
    expect_tag(rig, 10, a);
    expect_tag(rig, 11, b);
    expect_tag(rig, 12, c + 1);
}

// At every moment of a checkpoint the root alone may reach the device: all it names must be durable
// before it, whatever chunk it is in.
TEST(Rules, rule_t04_what_a_root_names_is_durable_before_it) {
    TrayRig rig;
    TrayRig other;
    ASSERT_TRUE(rig.create());
    ASSERT_TRUE(other.create());
    for (uint32_t chunk = 0; chunk < 4; ++chunk)
        ASSERT_TRUE(rig.write({.block = chunk * blocks_per_chunk + 10, .tag = a + chunk}));
    std::vector<Medium> states;
    rig.disk.on_change([&](runtime::sim::SimDisk&) {
        states.push_back(rig.state_with([](const UnflushedWrite& write) {
            const uint64_t block = write.data->offset / block_bytes;
            return block - tray::first_root_address < tray::root_slots;
        }));
    });
    ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
    rig.idle();
    rig.disk.on_change({});
    ASSERT_GT(states.size(), 5u);
    states.push_back(rig.disk.durable());
    uint64_t last_hash = 0;
    for (const Medium& state : states) {
        if (std::exchange(last_hash, state.hash()) == state.hash()) continue;
        other.crash_to(state);
        const Status booted = other.boot();
        ASSERT_TRUE(booted) << booted.error().text();
        for (uint32_t chunk = 0; chunk < 4; ++chunk)
            expect_tag(other, chunk * blocks_per_chunk + 10, a + chunk);
    }
}

// A checkpoint's flush is under way when one of the log's fails, and takes what both were to cover
// with it. That the first then succeeds says nothing: its root must not be written.
TEST(Rules, regression_a_checkpoint_beside_a_failed_flush) {
    TrayRig rig;
    ASSERT_TRUE(rig.create());
    for (uint32_t chunk = 0; chunk < 4; ++chunk)
        ASSERT_TRUE(rig.write({.block = chunk * blocks_per_chunk + 10, .tag = a + chunk}));
    rig.idle();
    DiskFault slow;
    slow.kind = FaultKind::slow;
    slow.operations = DiskFault::on_flush;
    slow.count = 1;
    slow.slow_extra = 20 * runtime::milliseconds;
    rig.disk.inject(slow);
    DiskFault error;
    error.kind = FaultKind::error;
    error.operations = DiskFault::on_flush;
    error.error = EIO;
    error.count = 1;
    rig.disk.inject(error);
    const auto checkpoint = rig.begin(rig.tray().checkpoint());
    rig.idle(5 * runtime::milliseconds);
    ASSERT_EQ(rig.disk.injected(FaultKind::slow), 1u);
    std::vector<std::shared_ptr<Issued>> writes(4);
    for (uint32_t i = 0; i < 4; ++i) writes[i] = rig.begin({.block = 20 + 2 * i, .tag = b + i});
    rig.idle();
    ASSERT_EQ(rig.disk.injected(FaultKind::error), 1u);
    ASSERT_TRUE(checkpoint->status);
    EXPECT_FALSE(checkpoint->acked());
    EXPECT_TRUE(rig.tray().failed());
    rig.crash_to(rig.disk.durable());
    const Status booted = rig.boot();
    ASSERT_TRUE(booted) << booted.error().text();
    for (uint32_t chunk = 0; chunk < 4; ++chunk)
        expect_tag(rig, chunk * blocks_per_chunk + 10, a + chunk);
}

// Two log blocks are written and their writes wait for slow data. A third write needs a flush for
// its block to be built, and does not wait for the data of others.
TEST(Rules, regression_a_write_behind_slow_ones) {
    TrayRig rig;
    ASSERT_TRUE(rig.create());
    rig.idle();
    rig.slow_data(2);
    const auto first = rig.begin({.block = 10, .tag = a});
    rig.idle(2 * runtime::milliseconds);
    const auto second = rig.begin({.block = 600, .tag = b});
    rig.idle(2 * runtime::milliseconds);
    const auto third = rig.begin({.block = 1100, .tag = c});
    rig.idle();
    EXPECT_FALSE(first->acked());
    EXPECT_FALSE(second->acked());
    EXPECT_TRUE(third->acked());
}

// One record is durable and not known committed. The log goes round many times behind it, fills up
// for nobody, and still has that record when it is needed.
TEST(Rules, rule_t05_the_log_keeps_what_is_not_known_committed) {
    TrayRig rig;
    ASSERT_TRUE(rig.create());
    ASSERT_TRUE(rig.write({.block = 10, .tag = a}));
    ASSERT_TRUE(rig.write({.block = 10, .tag = b, .commit = false}));
    for (uint32_t i = 0; i < 400; ++i)
        ASSERT_TRUE(rig.write({.block = 20 + i % 300, .tag = c + i}));
    EXPECT_GT(rig.tray().counters().log_blocks, 5 * 16u) << "the log went round";
    EXPECT_GT(rig.tray().counters().checkpoints, 2u);
    expect_tag(rig, 10, a, {b});
    ASSERT_TRUE(rig.reboot());
    expect_tag(rig, 10, b, {a});
}

// An ack, then days of idleness, then bit rot in the log block that the ack rests on: the old bytes
// must not come back.
TEST(Rules, rule_t06_bit_rot_in_the_last_record_is_corruption) {
    TrayRig rig;
    ASSERT_TRUE(rig.create());
    ASSERT_TRUE(rig.write({.block = 10, .tag = a}));
    ASSERT_TRUE(rig.write({.block = 10, .tag = b}));
    rig.idle(20 * runtime::milliseconds);
    const uint64_t offset = rig.newest_log_offset();
    ASSERT_NE(offset, 0u);
    Medium medium = rig.disk.contents();
    medium.flip_bit(offset + 100, 3);
    rig.crash_to(medium);
    ASSERT_TRUE(rig.boot());
    EXPECT_EQ(rig.read(10, {a, b, hole_tag}).error().code, Errc::data_lost);
    EXPECT_NE(rig.tray().loss().find("cannot be read"), std::string::npos);
}

// Block N is a lost write; N+1 and later are there.
TEST(Rules, rule_t06_a_lost_log_block_in_the_middle_is_corruption) {
    TrayRig rig;
    ASSERT_TRUE(rig.create());
    rig.idle();
    DiskFault lost;
    lost.kind = FaultKind::lost_write;
    lost.operations = DiskFault::on_write;
    lost.offset = uint64_t{tray::log_start_address} * block_bytes;
    lost.length = 64u << 10;
    rig.disk.inject(lost);
    ASSERT_TRUE(rig.write({.block = 10, .tag = a}));
    for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(rig.write({.block = 20 + i, .tag = b + i}));
    ASSERT_TRUE(rig.reboot());
    EXPECT_EQ(rig.read(10, {a, hole_tag}).error().code, Errc::data_lost);
}

// The other way round: a block that is torn, and of which nothing says that it was durable, is the
// end of the log. Nobody was told that it is there, so nobody lost anything.
TEST(Rules, rule_t06_a_torn_unconfirmed_tail_is_no_loss) {
    TrayRig rig;
    ASSERT_TRUE(rig.create());
    ASSERT_TRUE(rig.write({.block = 10, .tag = a}));
    rig.idle();
    rig.slow_log(1);
    const auto torn = rig.begin({.block = 10, .tag = b});
    rig.idle(runtime::milliseconds);
    ASSERT_FALSE(torn->status);
    Medium medium = rig.state_with([](const UnflushedWrite&) { return true; });
    uint64_t offset = 0;
    for (const UnflushedWrite& write : rig.disk.capture().writes) {
        if (rig.in_log(write.data->offset)) offset = write.data->offset;
    }
    ASSERT_NE(offset, 0u);
    medium.flip_bit(offset + 100, 3);
    rig.crash_to(medium);
    ASSERT_TRUE(rig.boot());
    EXPECT_FALSE(rig.damaged(TrayRig::shard));
    EXPECT_EQ(rig.tray().loss(), "");
    expect_tag(rig, 10, a, {b});
}

// The write of a root is lost, and what the old root needs is overwritten. The mount must say so
// and not serve an old state.
TEST(Rules, rule_t09_a_lost_root_is_reported) {
    for (uint32_t writes : {1u, 8u, 60u}) {
        TrayRig rig;
        ASSERT_TRUE(rig.create());
        ASSERT_TRUE(rig.write({.block = 10, .tag = a}));
        rig.idle();
        DiskFault lost;
        lost.kind = FaultKind::lost_write;
        lost.operations = DiskFault::on_write;
        lost.offset = uint64_t{tray::first_root_address} * block_bytes;
        lost.length = uint64_t{tray::root_slots} * block_bytes;
        lost.count = DiskFault::forever;
        rig.disk.inject(lost);
        ASSERT_TRUE(rig.write({.block = 10, .tag = b}));
        ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
        for (uint32_t i = 0; i < writes; ++i)
            ASSERT_TRUE(rig.write({.block = 20 + i, .tag = c + i}));
        rig.idle();
        const Status booted = rig.reboot();
        ASSERT_FALSE(booted) << writes;
        EXPECT_EQ(booted.error().code, Errc::corrupt);
    }
}

// A device that does not hold its cache over a power loss: nothing is acked before a flush.
TEST(Rules, rule_t10_acked_means_flushed) {
    for (const bool fua : {false, true}) {
        TrayRig rig;
        rig.disk.model().fua = fua;
        ASSERT_TRUE(rig.create());
        uint32_t written = 0;
        for (uint32_t round = 0; round < 30; ++round) {
            // One write, or some that share a log block.
            std::vector<std::shared_ptr<Issued>> issued;
            for (uint32_t i = 0; i <= round % 3; ++i, ++written)
                issued.push_back(rig.begin({.block = 10 + 2 * written, .tag = a + written}));
            const auto all_ended = [&issued] {
                for (const auto& write : issued) {
                    if (!write->status) return false;
                }
                return true;
            };
            ASSERT_TRUE(rig.sim.run_until(all_ended, rig.sim.now() + runtime::seconds));
            for (const auto& write : issued) ASSERT_TRUE(write->acked());
            rig.crash_to(rig.disk.durable());
            ASSERT_TRUE(rig.boot());
            for (uint32_t i = 0; i < written; ++i) expect_tag(rig, 10 + 2 * i, a + i);
        }
    }
}

}  // namespace
}  // namespace pf::test

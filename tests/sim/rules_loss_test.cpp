// T7: log blocks that were durable are gone. What the tray still proves it serves; the shards that
// may have lost writes answer no I/O, over restarts and checkpoints, until an operator accepts
// that.
#include <gtest/gtest.h>

#include <utility>

#include "tray/on_disk_test.hpp"
#include "tray_rig.hpp"

namespace pf::test {
namespace {

using runtime::sim::Medium;
using runtime::sim::UnflushedWrite;

constexpr Tag a = 1000, b = 2000, c = 3000;
constexpr tray::ShardId victim = rig_shard;
constexpr tray::ShardId other = 8;

void expect_tag(TrayRig& rig, tray::ShardId shard, uint32_t block, Tag expected) {
    const Result<Tag> found = rig.read(block, {expected, hole_tag}, 0, shard);
    ASSERT_TRUE(found.has_value()) << "shard " << shard << ": " << found.error().text();
    EXPECT_EQ(*found, expected) << "shard " << shard << " block " << block;
}

void expect_lost(TrayRig& rig, tray::ShardId shard) {
    EXPECT_TRUE(rig.damaged(shard)) << shard;
    EXPECT_EQ(rig.read(10, {a, b, c, hole_tag}, 0, shard).error().code, Errc::data_lost);
    EXPECT_EQ(rig.write({.block = 10, .tag = c, .shard = shard}).error().code, Errc::data_lost);
}

// Both shards have data in a checkpoint and in the log; returns where the log has the record of the
// victim's block 10.
uint64_t fill(TrayRig& rig) {
    EXPECT_TRUE(rig.create());
    EXPECT_TRUE(rig.add_shard(other));
    EXPECT_TRUE(rig.write({.block = 10, .tag = a}));
    EXPECT_TRUE(rig.write({.block = 10, .tag = a + 500, .shard = other}));
    EXPECT_TRUE(rig.run(rig.tray().checkpoint()));
    EXPECT_TRUE(rig.write({.block = 10, .tag = b}));
    const uint64_t offset = rig.newest_log_offset();
    EXPECT_TRUE(rig.write({.block = 11, .tag = b + 500, .shard = other}));
    EXPECT_TRUE(rig.write({.block = 12, .tag = b + 12}));
    rig.idle();
    return offset;
}

void rot(TrayRig& rig, const std::vector<uint64_t>& offsets) {
    Medium medium = rig.disk.contents();
    for (const uint64_t offset : offsets) medium.flip_bit(offset + 100, 3);
    rig.crash_to(std::move(medium));
}

TEST(Rules, rule_t07_a_gap_costs_only_the_shards_it_was_about) {
    TrayRig rig;
    rot(rig, {fill(rig)});
    for (int restart = 0; restart < 4; ++restart) {
        const Status booted = restart == 0 ? rig.boot() : rig.reboot();
        ASSERT_TRUE(booted) << booted.error().text();
        expect_lost(rig, victim);
        EXPECT_FALSE(rig.damaged(other));
        expect_tag(rig, other, 10, a + 500);
        expect_tag(rig, other, 11, b + 500);  // behind the gap
        ASSERT_TRUE(rig.write({.block = 20, .tag = c, .shard = other}));
        expect_tag(rig, other, 20, c);
        if (restart == 1) {
            ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
        }
    }
    // The mark is the tray's own: nobody clears it by the way.
    tray::ShardState state = *rig.tray().shard_state(victim);
    state.damaged = false;
    state.epoch = 2;
    ASSERT_TRUE(rig.run(rig.tray().set_shard_state(state)));
    expect_lost(rig, victim);
    ASSERT_TRUE(rig.reboot());
    expect_lost(rig, victim);
}

TEST(Rules, rule_t07_an_accepted_loss_leaves_what_is_there) {
    TrayRig rig;
    rot(rig, {fill(rig)});
    ASSERT_TRUE(rig.boot());
    ASSERT_TRUE(rig.run(rig.tray().accept_loss(other)));  // nothing to accept
    expect_lost(rig, victim);
    ASSERT_TRUE(rig.run(rig.tray().accept_loss(victim)));
    EXPECT_EQ(rig.run(rig.tray().accept_loss(99)).error().code, Errc::not_found);
    for (int restart = 0; restart < 3; ++restart) {
        expect_tag(rig, victim, 10, a);  // the write of b is what was lost
        expect_tag(rig, victim, 12, b + 12);
        ASSERT_TRUE(rig.write({.block = 13, .tag = c}));
        if (restart == 1) {
            ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
        }
        ASSERT_TRUE(rig.reboot());
        EXPECT_FALSE(rig.damaged(victim));
    }
}

// The block behind a lost one tells which shards it was about. Without it, it may be any of those
// that were there.
TEST(Rules, rule_t07_an_unknown_extent_costs_every_shard_that_existed) {
    TrayRig rig;
    const uint64_t offset = fill(rig);
    constexpr tray::ShardId later = 9;
    ASSERT_TRUE(rig.add_shard(later));
    ASSERT_TRUE(rig.write({.block = 10, .tag = c, .shard = later}));
    rig.idle();
    rot(rig, {offset, offset + block_bytes});
    ASSERT_TRUE(rig.boot());
    expect_lost(rig, victim);
    expect_lost(rig, other);
    EXPECT_FALSE(rig.damaged(later));
    expect_tag(rig, later, 10, c);
}

TEST(Rules, rule_t07_a_lost_block_without_records_costs_nobody) {
    TrayRig rig;
    fill(rig);
    const uint64_t newest = rig.newest_log_offset();
    ASSERT_TRUE(rig.write({.block = 13, .tag = c}));
    rig.idle();
    ASSERT_GT(rig.newest_log_offset(), newest + block_bytes) << "a watermark block in between";
    rot(rig, {newest + block_bytes});
    ASSERT_TRUE(rig.boot());
    EXPECT_FALSE(rig.damaged(victim) || rig.damaged(other));
    EXPECT_NE(rig.tray().loss(), "");
    expect_tag(rig, victim, 10, b);
    expect_tag(rig, victim, 13, c);
}

bool newest_root_is_doubly_owned(TrayRig& rig) {
    std::vector<std::byte> bytes(block_bytes);
    rig.disk.contents().read(0, bytes);
    const auto superblock = tray::decode_superblock(bytes);
    tray::Root newest;
    for (uint32_t slot = 0; slot < tray::root_slots; ++slot) {
        rig.disk.contents().read(uint64_t{tray::first_root_address + slot} * block_bytes, bytes);
        const auto root = tray::decode_root(bytes, *superblock);
        if (root && root->number > newest.number) newest = *root;
    }
    return newest.doubly_owned;
}

// The record that let go of the victim's block is lost, and the other shard has written to that
// block since. Whatever the victim does later, the block stays the other's.
TEST(Rules, rule_t07_a_doubly_owned_block_is_never_freed) {
    TrayRig rig(uint64_t{6} << 20, uint64_t{1} << 20);
    const uint64_t offset = fill(rig);
    const auto write_other = [&](uint32_t begin, uint32_t count, Tag tag) {
        for (uint32_t i = begin; i < begin + count; i += 20) {
            ASSERT_TRUE(rig.write({.block = i, .count = 20, .tag = tag + i, .shard = other})) << i;
        }
    };
    const auto expect_other = [&](Tag first, Tag rest) {
        for (uint32_t i = 520; i < 1020; ++i) expect_tag(rig, other, i, first + i);
        for (uint32_t i = 1540; i < 2040; ++i) expect_tag(rig, other, i, rest + i);
    };
    write_other(520, 500, 10'000);
    write_other(1540, 500, 10'000);
    // Block by block round the tray, over what the victim gave up.
    std::vector<std::shared_ptr<Issued>> singles;
    for (uint32_t i = 520; i < 1020; ++i) {
        singles.push_back(rig.begin({.block = i, .tag = 20'000 + i, .shard = other}));
        if (i % 25 == 0) rig.idle(2 * runtime::milliseconds);
    }
    rig.idle();
    for (const auto& each : singles) ASSERT_TRUE(each->acked());
    rig.idle();
    rot(rig, {offset});
    ASSERT_TRUE(rig.boot());
    expect_lost(rig, victim);
    ASSERT_TRUE(newest_root_is_doubly_owned(rig)) << "the scenario came about";
    expect_other(20'000, 10'000);
    ASSERT_TRUE(rig.reboot());
    ASSERT_TRUE(rig.run(rig.tray().accept_loss(victim)));
    // Not what it held, and not the other shard's bytes either.
    EXPECT_EQ(rig.read(10, {a, b}).error().code, Errc::corrupt);
    ASSERT_TRUE(rig.write({.block = 10, .tag = c}));
    for (Tag round = 3; round < 6; ++round) {
        write_other(1540, 500, round * 10'000);
        ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
        if (round == 4) {
            ASSERT_TRUE(rig.reboot());
        }
        expect_other(20'000, round * 10'000);
        expect_tag(rig, victim, 10, c);
    }
    ASSERT_TRUE(rig.reboot());
    EXPECT_FALSE(newest_root_is_doubly_owned(rig)) << "one owner is left";
}

// Every state that a power loss can leave while the mount marks, or while a loss is accepted.
std::vector<Medium> states_during(TrayRig& rig, const std::function<void()>& action) {
    std::vector<Medium> states;
    uint64_t last_hash = 0;
    const auto add = [&](const Medium& medium) {
        if (std::exchange(last_hash, medium.hash()) != medium.hash()) states.push_back(medium);
    };
    rig.disk.on_change([&](runtime::sim::SimDisk&) {
        add(rig.disk.durable());
        add(rig.state_with([](const UnflushedWrite&) { return true; }));
        uint32_t count = 0;
        add(rig.state_with([&count](const UnflushedWrite&) { return ++count % 2 == 0; }));
    });
    action();
    rig.disk.on_change({});
    return states;
}

TEST(Rules, rule_t07_a_crash_while_marking_marks_again) {
    TrayRig rig;
    TrayRig again;
    ASSERT_TRUE(again.create());
    rot(rig, {fill(rig)});
    const auto states = states_during(rig, [&] { ASSERT_TRUE(rig.boot()); });
    ASSERT_GT(states.size(), 5u);
    for (const Medium& state : states) {
        again.crash_to(state);
        const Status booted = again.boot();
        ASSERT_TRUE(booted) << booted.error().text();
        expect_lost(again, victim);
        expect_tag(again, other, 10, a + 500);
        expect_tag(again, other, 11, b + 500);
        ASSERT_TRUE(again.run(again.tray().accept_loss(victim)));
        ASSERT_TRUE(again.reboot());
        expect_tag(again, victim, 10, a);
    }
}

TEST(Rules, rule_t07_a_crash_while_accepting_leaves_one_of_both) {
    TrayRig rig;
    TrayRig again;
    ASSERT_TRUE(again.create());
    rot(rig, {fill(rig)});
    ASSERT_TRUE(rig.boot());
    auto states = states_during(rig, [&] { ASSERT_TRUE(rig.run(rig.tray().accept_loss(victim))); });
    const size_t answered = states.size();
    states.push_back(rig.disk.durable());
    for (size_t i = 0; i < states.size(); ++i) {
        again.crash_to(states[i]);
        ASSERT_TRUE(again.boot());
        if (again.damaged(victim)) {
            EXPECT_LT(i, answered) << "answered, and forgotten";
            expect_lost(again, victim);
        } else {
            expect_tag(again, victim, 10, a);
        }
        expect_tag(again, other, 11, b + 500);
    }
}

void unreadable(TrayRig& rig, uint64_t offset, uint64_t blocks = 1) {
    runtime::sim::DiskFault fault;
    fault.operations = runtime::sim::DiskFault::on_read;
    fault.offset = offset;
    fault.length = blocks * block_bytes;
    fault.count = runtime::sim::DiskFault::forever;
    rig.disk.inject(fault);
}

TEST(Rules, rule_t07_a_log_block_that_cannot_be_read_is_a_loss) {
    TrayRig rig;
    const uint64_t offset = fill(rig);
    rig.crash_to(rig.disk.contents());
    unreadable(rig, offset);
    const Status booted = rig.boot();
    ASSERT_TRUE(booted) << booted.error().text();
    expect_lost(rig, victim);
    EXPECT_FALSE(rig.damaged(other));
    expect_tag(rig, other, 11, b + 500);
}

// A read goes ahead over slots that the log does not use now.
TEST(Rules, rule_t07_a_log_block_that_is_not_needed_may_be_unreadable) {
    TrayRig rig;
    fill(rig);
    const uint64_t begin = uint64_t{tray::log_start_address} * block_bytes;
    const uint64_t newest = (rig.newest_log_offset() - begin) / block_bytes;
    rig.crash_to(rig.disk.contents());
    unreadable(rig, begin + (newest + 4) % 16 * block_bytes);
    const Status booted = rig.boot();
    ASSERT_TRUE(booted) << booted.error().text();
    EXPECT_FALSE(rig.damaged(victim));
    EXPECT_FALSE(rig.damaged(other));
    expect_tag(rig, victim, 12, b + 12);
}

// The device is broken, not the log: the mount is refused and gives nothing up.
TEST(Rules, rule_t07_a_log_that_cannot_be_read_at_all_is_kept) {
    TrayRig rig;
    fill(rig);
    rig.crash_to(rig.disk.contents());
    unreadable(rig, uint64_t{tray::log_start_address} * block_bytes, 16);
    const Status booted = rig.boot();
    ASSERT_FALSE(booted);
    EXPECT_EQ(booted.error().code, Errc::io_error);
    ASSERT_TRUE(rig.reboot());
    EXPECT_FALSE(rig.damaged(victim));
    expect_tag(rig, victim, 12, b + 12);
}

TEST(Rules, rule_t09_a_root_slot_or_bitmap_that_cannot_be_read_is_reported) {
    TrayRig rig;
    fill(rig);
    ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
    const Medium medium = rig.disk.contents();
    tray::OnDisk on_disk(medium);
    const uint64_t older = (on_disk.root().number + 1) % tray::root_slots;
    const uint64_t bitmap = on_disk.bitmap().front();
    for (const uint64_t block : {tray::first_root_address + older, bitmap}) {
        rig.crash_to(medium);
        unreadable(rig, block * block_bytes);
        const Status booted = rig.boot();
        ASSERT_TRUE(booted) << block << ": " << booted.error().text();
        EXPECT_FALSE(rig.tray().warnings().empty()) << block;
        EXPECT_FALSE(rig.damaged(victim));
        expect_tag(rig, victim, 12, b + 12);
    }
}

// An acceptance that the log holds is of a loss before it. One that only this mount found, of
// blocks in front of the acceptance, stands.
TEST(Rules, rule_t07_an_acceptance_does_not_cover_a_later_loss) {
    TrayRig rig;
    rot(rig, {fill(rig)});
    ASSERT_TRUE(rig.boot());
    ASSERT_TRUE(rig.damaged(victim));
    tray::ShardState state = *rig.tray().shard_state(victim);
    ++state.epoch;
    ASSERT_TRUE(rig.run(rig.tray().set_shard_state(state)));
    const uint64_t offset = rig.newest_log_offset();
    ASSERT_TRUE(rig.run(rig.tray().accept_loss(victim)));
    EXPECT_FALSE(rig.damaged(victim));
    rig.idle();
    rot(rig, {offset});
    ASSERT_TRUE(rig.boot());
    expect_lost(rig, victim);
}

}  // namespace
}  // namespace pf::test

// The tray's rules T8, T11, T12, S1 and its part of R8 and R10, as named scenarios.
#include <gtest/gtest.h>

#include "tray_rig.hpp"

namespace pf::test {
namespace {

using runtime::sim::DiskFault;
using runtime::sim::FaultKind;
using tray::RequestState;
using tray::SnapSeq;
using tray::WriteKind;

constexpr Tag p = 1000, q = 2000, r = 3000;

void expect_tag(TrayRig& rig, uint32_t block, Tag expected, SnapSeq snap_seq = 0) {
    const Result<Tag> found = rig.read(block, {expected, hole_tag, p, q, r}, snap_seq);
    ASSERT_TRUE(found.has_value()) << "block " << block << ": " << found.error().text();
    EXPECT_EQ(*found, expected) << "block " << block << " of generation " << snap_seq;
}

// The tray is full of user data. Reads, checkpoints, restarts and deletions still work, and give
// room again.
TEST(Rules, rule_t08_full_is_not_dead) {
    TrayRig rig;
    ASSERT_TRUE(rig.create());
    constexpr uint32_t piece = 64;
    uint32_t written = 0;
    Status status;
    while (written < TrayRig::shard_blocks) {
        status = rig.write({.block = written, .count = piece, .tag = p + written});
        if (!status) break;
        written += piece;
    }
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, Errc::no_space);
    EXPECT_FALSE(rig.tray().failed());
    for (int round = 0; round < 3; ++round) {
        ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
        ASSERT_TRUE(rig.reboot());
        for (uint32_t block = 0; block < written; block += 37) {
            const Result<Tag> found = rig.read(block, {p + block});
            ASSERT_TRUE(found.has_value()) << found.error().text();
        }
    }
    for (uint32_t block = 0; block < written; block += piece) {
        ASSERT_TRUE(rig.write({.block = block, .count = piece, .kind = WriteKind::unmap}));
    }
    rig.idle(5 * runtime::seconds);
    ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
    ASSERT_TRUE(rig.write({.block = 0, .count = piece, .tag = r}));
    ASSERT_TRUE(rig.reboot());
    expect_tag(rig, 0, r);
    expect_tag(rig, piece, hole_tag);
}

// What is superseded is trimmed, and the device is slow with it: the blocks must not be used again
// while the trim may still fall on what would be in them.
TEST(Rules, rule_t03_a_trimmed_block_waits_for_its_trim) {
    TrayRig rig;
    rig.discard = true;
    ASSERT_TRUE(rig.create());
    ASSERT_TRUE(rig.write({.block = 10, .count = 16, .tag = p}));
    rig.idle();
    DiskFault slow;
    slow.kind = FaultKind::slow;
    slow.operations = DiskFault::on_discard;
    slow.slow_extra = 30 * runtime::seconds;
    rig.disk.inject(slow);
    ASSERT_TRUE(rig.write({.block = 10, .count = 16, .tag = q}));
    // Once through the free space, and on with overwrites: for these there is not enough without
    // what is being trimmed.
    uint32_t written = 0;
    for (; rig.tray().usage().free_blocks > 96; written += 16)
        ASSERT_TRUE(rig.write({.block = 64 + written, .count = 16, .tag = 10'000 + written}));
    std::vector<std::shared_ptr<Issued>> more;
    for (uint32_t at = 0; at < 96; at += 16)
        more.push_back(rig.begin({.block = 64 + at, .count = 16, .tag = 10'000 + at}));
    rig.idle(runtime::seconds);
    EXPECT_FALSE(more.back()->status) << "it waits for the trim";
    EXPECT_EQ(rig.tray().counters().discards, 0u);
    rig.idle(60 * runtime::seconds);
    for (const auto& write : more) EXPECT_TRUE(write->acked());
    EXPECT_GT(rig.tray().counters().discards, 0u);
    EXPECT_EQ(rig.tray().usage().held_blocks, 0u);
    for (int round = 0; round < 2; ++round) {
        expect_tag(rig, 10, q);
        for (uint32_t block = 0; block < written; ++block) {
            const Result<Tag> found = rig.read(64 + block, {10'000 + block});
            ASSERT_TRUE(found.has_value()) << block << ": " << found.error().text();
        }
        const Status back = rig.reboot();
        ASSERT_TRUE(back) << back.error().text();
    }
}

// Limits are refused by name and break nothing.
TEST(Rules, rule_t11_limits_are_refused_by_name) {
    TrayRig rig(uint64_t{16} << 20, uint64_t{1} << 20);
    ASSERT_TRUE(rig.create());
    ASSERT_TRUE(
        rig.run(rig.tray().create_generation({TrayRig::shard, 2}, {TrayRig::shard, 1}, true)));
    rig.head = 2;
    Status status;
    SnapSeq made = 2;
    while (made < 5000) {
        status = rig.run(
            rig.tray().create_generation({TrayRig::shard, made + 1}, {TrayRig::shard, 1}, false));
        if (!status) break;
        ++made;
    }
    ASSERT_FALSE(status) << "5000 generations of one shard";
    EXPECT_EQ(status.error().code, Errc::resource_exhausted) << status.error().text();
    EXPECT_NE(status.error().message.find("4096"), std::string::npos) << status.error().text();
    status = Status{};
    for (uint64_t session = 1; status && session <= 100; ++session)
        status = rig.run(rig.tray().open_session(TrayRig::shard, session));
    ASSERT_FALSE(status) << "100 sessions of one shard";
    EXPECT_EQ(status.error().code, Errc::resource_exhausted) << status.error().text();
    ASSERT_TRUE(rig.write({.block = 3, .tag = p}));
    ASSERT_TRUE(rig.reboot());
    expect_tag(rig, 3, p);
    EXPECT_EQ(rig.tray().generations(TrayRig::shard).size(), made);
}

runtime::Task<void> read_one(tray::Tray& tray, uint32_t block, Tag expected,
                             std::shared_ptr<std::optional<Status>> result) {
    runtime::Buffer data = co_await runtime::Reactor::current().buffers().allocate(block_bytes);
    uint32_t crc = 0;
    tray::ReadRequest request;
    request.shard = TrayRig::shard;
    request.snap_seq = 1;
    request.block = block;
    request.count = 1;
    request.to = data.bytes();
    request.crcs = {&crc, 1};
    Status status = co_await tray.read(request);
    if (status && crc != block_crc(expected)) status = fail(Errc::internal, "other bytes");
    *result = std::move(status);
}

// A reader holds the blocks it was sent to: they are not reused under it, however long it takes.
// P lies between blocks that are free, and writes go round the tray over all of those.
TEST(Rules, rule_t12_a_reader_holds_its_blocks) {
    TrayRig rig;
    ASSERT_TRUE(rig.create());
    const auto static_blocks = [&](uint32_t first) {
        for (uint32_t i = 0; i < 10; ++i)
            ASSERT_TRUE(rig.write({.block = first + 25 * i, .count = 25, .tag = 10'000}));
    };
    static_blocks(1024);
    ASSERT_TRUE(rig.write({.block = 10, .count = 20, .tag = p}));
    static_blocks(1536);
    for (const uint32_t first : {1024u, 1536u})
        ASSERT_TRUE(rig.write({.block = first, .count = 250, .kind = WriteKind::unmap}));
    rig.idle();
    ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
    rig.idle();
    DiskFault slow;
    slow.kind = FaultKind::slow;
    slow.operations = DiskFault::on_read;
    slow.slow_extra = 30 * runtime::seconds;
    rig.disk.inject(slow);
    auto found = std::make_shared<std::optional<Status>>();
    rig.node.reactor().spawn(read_one(rig.tray(), 10, p, found));
    rig.idle(runtime::milliseconds);
    ASSERT_TRUE(rig.write({.block = 10, .count = 20, .tag = q}));
    for (uint32_t i = 0; i < 62; ++i) {
        ASSERT_TRUE(rig.write({.block = 600, .count = 20, .tag = 20'000 + 20 * i})) << i;
        rig.idle(10 * runtime::milliseconds);
    }
    ASSERT_FALSE(found->has_value()) << "the reader was still waiting";
    rig.idle(60 * runtime::seconds);
    ASSERT_TRUE(found->has_value());
    EXPECT_TRUE((**found).has_value()) << (**found).error().text();
}

// Found by the first version of the scenario above: overwrites without a pause fill the log, and
// the checkpoints they force pile up blocks behind the reader until a checkpoint has none left to
// take.
TEST(Rules, regression_slow_reader_on_a_nearly_full_tray) {
    TrayRig rig;
    ASSERT_TRUE(rig.create());
    for (uint32_t i = 0; i < 20; ++i)
        ASSERT_TRUE(rig.write({.block = 1024 + 25 * i, .count = 25, .tag = 10'000 + 25 * i}));
    ASSERT_TRUE(rig.write({.block = 10, .count = 20, .tag = p}));
    rig.idle();
    DiskFault slow;
    slow.kind = FaultKind::slow;
    slow.operations = DiskFault::on_read;
    slow.slow_extra = 30 * runtime::seconds;
    rig.disk.inject(slow);
    auto found = std::make_shared<std::optional<Status>>();
    rig.node.reactor().spawn(read_one(rig.tray(), 10, p, found));
    rig.idle(runtime::milliseconds);
    uint32_t written = 0;
    for (uint32_t i = 0; i < 120; ++i) {
        const Status done = rig.write({.block = 600, .count = 20, .tag = 20'000 + 20 * i});
        if (done)
            ++written;
        else
            ASSERT_EQ(done.error().code, Errc::no_space) << i << ": " << done.error().text();
    }
    EXPECT_GT(written, 0u);
    rig.idle(60 * runtime::seconds);
    ASSERT_TRUE(found->has_value());
    EXPECT_TRUE((**found).has_value()) << (**found).error().text();
    EXPECT_TRUE(rig.write({.block = 600, .count = 20, .tag = 90'000})) << "room came back";
    EXPECT_FALSE(rig.tray().failed());
}

// Generation 2 has P, 3 and 4 have Q. After a rollback to 2 the new head 5 must read P, and
// deleting 2 by its neighbours 1 and 3 would free P under it.
TEST(Rules, rule_s1_generations_are_a_tree) {
    TrayRig rig;
    ASSERT_TRUE(rig.create());
    const auto make_head = [&](SnapSeq snap_seq, SnapSeq parent) {
        ASSERT_TRUE(rig.run(rig.tray().create_generation({TrayRig::shard, snap_seq},
                                                         {TrayRig::shard, parent}, true)));
        rig.head = snap_seq;
    };
    make_head(2, 1);
    ASSERT_TRUE(rig.write({.block = 10, .tag = p}));
    make_head(3, 2);
    ASSERT_TRUE(rig.write({.block = 10, .tag = q}));
    make_head(4, 3);
    make_head(5, 2);                                  // the rollback
    ASSERT_TRUE(rig.write({.block = 11, .tag = r}));  // a table of its own, which shares P
    for (const bool restarted : {false, true}) {
        if (restarted) {
            ASSERT_TRUE(rig.reboot());
        }
        expect_tag(rig, 10, p, 5);
        expect_tag(rig, 10, q, 4);
        expect_tag(rig, 10, p, 2);
        expect_tag(rig, 10, hole_tag, 1);
    }
    ASSERT_TRUE(rig.run(rig.tray().delete_generation({TrayRig::shard, 2})));
    const auto churn = [&] {
        // One block at a time, so that single free blocks are taken too.
        for (uint32_t i = 0; i < 2000; ++i) {
            ASSERT_TRUE(rig.write({.block = 600, .tag = 10'000 + i}));
            if (i % 200 == 0) rig.idle(20 * runtime::milliseconds);
        }
        ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
    };
    churn();
    expect_tag(rig, 10, p, 5);
    expect_tag(rig, 10, q, 4);
    // The other branch goes too: now 2 has one child and what only it saw goes with it.
    ASSERT_TRUE(rig.run(rig.tray().delete_generation({TrayRig::shard, 4})));
    ASSERT_TRUE(rig.run(rig.tray().delete_generation({TrayRig::shard, 3})));
    churn();
    ASSERT_TRUE(rig.reboot());
    expect_tag(rig, 10, p, 5);
    EXPECT_FALSE(rig.run(rig.tray().delete_generation({TrayRig::shard, 5}))) << "a head";
    EXPECT_FALSE(
        rig.run(rig.tray().create_generation({TrayRig::shard, 3}, {TrayRig::shard, 5}, false)))
        << "numbers are never reused";
}

// W1 is applied and acked, the answer is lost; checkpoints and restarts later the resend must still
// be found, whatever became of the log that named it.
TEST(Rules, rule_r08_names_outlive_checkpoints_and_the_log) {
    TrayRig rig;
    ASSERT_TRUE(rig.create());
    constexpr uint64_t session = 42;
    ASSERT_TRUE(rig.run(rig.tray().open_session(TrayRig::shard, session)));
    ASSERT_TRUE(rig.write({.block = 10, .tag = p, .request = {session, 1, 1}}));
    ASSERT_TRUE(rig.write({.block = 10, .tag = q, .request = {session, 2, 1}}));
    for (uint32_t i = 0; i < 200; ++i) ASSERT_TRUE(rig.write({.block = 20, .tag = r + i}));
    for (int round = 0; round < 2; ++round) {
        const auto state = [&](uint64_t request) {
            return rig.tray().request_state(TrayRig::shard, {session, request, 1});
        };
        EXPECT_EQ(state(1), RequestState::applied);
        EXPECT_EQ(state(2), RequestState::applied);
        EXPECT_EQ(state(3), RequestState::not_applied);
        EXPECT_EQ(rig.tray().request_state(TrayRig::shard, {43, 1, 1}),
                  RequestState::unknown_session);
        ASSERT_TRUE(rig.reboot());
    }
    expect_tag(rig, 10, q);
}

// A request that was voided stays void: over a checkpoint, a restart and the log going round.
TEST(Rules, rule_r10_a_voided_request_stays_void) {
    TrayRig rig;
    ASSERT_TRUE(rig.create());
    constexpr uint64_t session = 42;
    ASSERT_TRUE(rig.run(rig.tray().open_session(TrayRig::shard, session)));
    ASSERT_TRUE(rig.run(rig.tray().void_request(TrayRig::shard, {session, 1, 1})));
    for (int round = 0; round < 3; ++round) {
        EXPECT_EQ(rig.tray().request_state(TrayRig::shard, {session, 1, 1}), RequestState::voided);
        for (uint32_t i = 0; i < 150; ++i) ASSERT_TRUE(rig.write({.block = 20, .tag = r + i}));
        ASSERT_TRUE(rig.reboot());
    }
}

}  // namespace
}  // namespace pf::test

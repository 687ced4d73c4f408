// Goal: control calls of many shards take few flushes and are durable; on a full tray they take no
// room that a checkpoint needs, and what makes room is never refused.
#include "tray/tray_rig_test.hpp"

namespace pf::tray {
namespace {

constexpr ShardId shards = 300;

std::vector<ShardId> all_of_them() {
    std::vector<ShardId> ids = {1, 77777, 1};  // twice, and one that is not there
    for (ShardId id = 1; id <= shards; ++id) ids.push_back(id);
    return ids;
}

uint64_t flushes(TrayRig& rig) {
    return rig.disk().counters().operations[static_cast<size_t>(runtime::DiskOp::Kind::flush)];
}

TEST(DeleteShards, ShareTheirFlushesAndStayGone) {
    TrayRig rig({.log_bytes = uint64_t{1} << 20});
    ASSERT_TRUE(rig.format());
    ASSERT_TRUE(rig.mount());
    for (ShardId id = 1; id <= shards + 1; ++id) ASSERT_TRUE(rig.create_shard(id, 512));
    ASSERT_TRUE(rig.write(5, 1, 0, 4, 10));
    rig.settle();
    const uint64_t before = flushes(rig);
    ASSERT_TRUE(rig.run(rig.tray().delete_shards(all_of_them())));
    EXPECT_LE(flushes(rig) - before, shards / 8);
    rig.crash(true);
    ASSERT_TRUE(rig.mount());
    rig.settle();
    ASSERT_EQ(rig.tray().shards().size(), 1u);
    EXPECT_EQ(rig.tray().shards().front().shard, shards + 1);
    ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
    rig.settle();
    EXPECT_EQ(rig.tray().usage().user_blocks, 0u);
    rig.check_space();
    EXPECT_TRUE(rig.run(rig.tray().delete_shards(all_of_them()))) << "told again";
}

// The answer comes after the records are durable, also where a log is full in between.
TEST(DeleteShards, GoOnThroughASmallLog) {
    TrayRig rig({.log_bytes = uint64_t{64} << 10});
    ASSERT_TRUE(rig.format());
    ASSERT_TRUE(rig.mount());
    for (ShardId id = 1; id <= shards; ++id) ASSERT_TRUE(rig.create_shard(id, 512));
    for (int round = 0; round < 4; ++round) {
        ASSERT_TRUE(rig.run(rig.tray().delete_shards(all_of_them())));
        EXPECT_TRUE(rig.tray().shards().empty());
        rig.settle();
        for (ShardId id = 1; id <= shards; ++id) ASSERT_TRUE(rig.create_shard(id, 512));
    }
    ASSERT_TRUE(rig.run(rig.tray().delete_shards(all_of_them())));
    rig.crash(true);
    ASSERT_TRUE(rig.mount());
    EXPECT_TRUE(rig.tray().shards().empty());
}

TEST(DeleteShards, AFailedFlushIsAnError) {
    TrayRig rig;
    ASSERT_TRUE(rig.format());
    ASSERT_TRUE(rig.mount());
    for (ShardId id = 1; id <= 100; ++id) ASSERT_TRUE(rig.create_shard(id, 512));
    rig.settle();
    runtime::sim::DiskFault fault;
    fault.operations = runtime::sim::DiskFault::on_write;
    rig.disk().inject(fault);
    EXPECT_FALSE(rig.run(rig.tray().delete_shards(all_of_them())));
}

std::vector<ShardState> states_of(ShardId count) {
    std::vector<ShardState> states;
    for (ShardId id = 1; id <= count; ++id) {
        ShardState& state = states.emplace_back();
        state.shard = id;
        state.blocks = 512;
        state.snap_seq = state.epoch = 1;
    }
    return states;
}

TEST(CreateShards, ShareTheirFlushesAndTellEachItsOwn) {
    TrayRig rig({.log_bytes = uint64_t{1} << 20});
    ASSERT_TRUE(rig.format());
    ASSERT_TRUE(rig.mount());
    ASSERT_TRUE(rig.create_shard(7, 512));
    std::vector<ShardState> states = states_of(shards);
    states[20].blocks = 0;
    states.push_back(states[30]);
    rig.settle();
    const uint64_t before = flushes(rig);
    const std::vector<Status> done = rig.run(rig.tray().create_shards(states));
    EXPECT_LE(flushes(rig) - before, shards / 8);
    rig.crash(true);
    ASSERT_TRUE(rig.mount());
    ASSERT_EQ(done.size(), states.size());
    for (size_t i = 0; i < done.size(); ++i) {
        const Errc expected = i == 6 || i == shards ? Errc::already_exists
                              : i == 20             ? Errc::invalid_argument
                                                    : Errc::ok;
        EXPECT_EQ(done[i] ? Errc::ok : done[i].error().code, expected) << i;
        EXPECT_EQ(rig.tray().shard_state(states[i].shard).has_value(), i != 20) << i;
    }
    ASSERT_TRUE(rig.write(300, 1, 0, 1, 5));
    EXPECT_EQ(*rig.read(300, 1, 0, 1), std::vector<uint32_t>{5});
}

TEST(CreateShards, WhatAFailedTrayDidNotTakeIsAnErrorOfItsOwn) {
    for (uint32_t good = 0; good < 12; ++good) {
        TrayRig rig({.log_bytes = uint64_t{1} << 20});
        ASSERT_TRUE(rig.format());
        ASSERT_TRUE(rig.mount());
        rig.settle();
        runtime::sim::DiskFault fault;
        fault.operations = runtime::sim::DiskFault::on_flush;
        fault.skip = good;
        rig.disk().inject(fault);
        const std::vector<Status> done = rig.run(rig.tray().create_shards(states_of(shards)));
        rig.disk().clear_faults();
        rig.crash(true);
        ASSERT_TRUE(rig.mount());
        for (size_t i = 0; i < done.size(); ++i) {
            EXPECT_TRUE(!done[i] || rig.tray().shard_state(i + 1)) << good << " " << i;
        }
    }
}

// Shard 1 has all of the tray.
void fill(TrayRig& rig) {
    ASSERT_TRUE(rig.format());
    ASSERT_TRUE(rig.mount());
    ASSERT_TRUE(rig.create_shard(1, 8192));
    uint32_t block = 0;
    while (rig.write(1, 1, block, 1, block)) ++block;
}

// T8: what the state grows by must fit into a checkpoint as well.
TEST(CreateShards, NeverTakeTheRoomOfACheckpointOnAFullTray) {
    TrayRig rig;
    ASSERT_NO_FATAL_FAILURE(fill(rig));
    ShardId made = 1;
    Status refused;
    while (refused && made < 20000) refused = rig.create_shard(++made, 512);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::no_space) << refused.error().text();
    for (const Status& each : rig.run(rig.tray().create_shards(states_of(20000))))
        EXPECT_FALSE(each);
    EXPECT_TRUE(rig.write(1, 1, 0, 8, 5)) << "overwrites go on";
    rig.crash(true);
    ASSERT_TRUE(rig.mount()) << "the log alone says what was made";
    EXPECT_TRUE(rig.write(1, 1, 0, 8, 6));
    ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
    rig.stop();
    ASSERT_TRUE(rig.mount());
    std::vector<ShardId> ids;
    for (ShardId id = 1; id < made; ++id) ids.push_back(id);
    EXPECT_TRUE(rig.run(rig.tray().delete_shards(ids)));
    EXPECT_TRUE(rig.tray().shards().empty());
}

TEST(CreateShards, AreNotKeptOutByTheWritesInFlightOfAFullTray) {
    TrayRig rig;
    ASSERT_NO_FATAL_FAILURE(fill(rig));
    std::vector<Reservation> overwrites;
    while (auto reserved = rig.tray().reserve(1, 1, 0, 1, WriteKind::data))
        overwrites.push_back(std::move(*reserved));
    ASSERT_GT(overwrites.size(), 4u);
    for (ShardId id = 2; id < 25; ++id) EXPECT_TRUE(rig.create_shard(id, 512)) << id;
    for (uint64_t session = 1; session < 5; ++session)
        EXPECT_TRUE(rig.run(rig.tray().open_session(1, session)));
    overwrites.clear();
    EXPECT_TRUE(rig.write(1, 1, 0, 1, 77));
}

// Clients that come to discard what fills the tray need a session, and room to discard.
TEST(Sessions, AndDiscardsNeverKeepEachOtherOutOfAFullTray) {
    TrayRig rig;
    ASSERT_TRUE(rig.format());
    ASSERT_TRUE(rig.mount());
    for (ShardId id = 1; id <= 8; ++id) ASSERT_TRUE(rig.create_shard(id, 64 * blocks_per_chunk));
    for (uint32_t chunk = 0; chunk < 64; ++chunk)
        ASSERT_TRUE(rig.write(1, 1, chunk * blocks_per_chunk, 1, chunk));
    uint32_t block = 0;
    while (rig.write(1, 1, block, 1, block)) ++block;
    // Each clones a table.
    ASSERT_TRUE(rig.run(rig.tray().create_generation({1, 2}, {1, 1}, true)));
    uint32_t chunk = 0;
    while (rig.write(1, 2, chunk * blocks_per_chunk, 1, 0, WriteKind::unmap)) ++chunk;
    ASSERT_GT(chunk, 2u);
    ASSERT_LT(chunk, 64u);
    uint64_t sessions = 0;
    const auto open = [&] {
        const ShardId shard = 1 + sessions / Tray::max_sessions_per_shard;
        return rig.run(rig.tray().open_session(shard, ++sessions));
    };
    while (open()) {
    }
    EXPECT_GT(sessions, 20u);
    const auto goes_on = [&](const char* when) {
        EXPECT_TRUE(rig.write(1, 2, 1, 1, 0, WriteKind::unmap)) << when;
        EXPECT_TRUE(rig.write(1, 2, 2, 500, 0, WriteKind::unmap)) << when;
        EXPECT_TRUE(rig.write(1, 2, 1, 1, 0, WriteKind::zero)) << when;
    };
    goes_on("with all sessions");
    rig.crash(true);
    ASSERT_TRUE(rig.mount());
    goes_on("after a restart");
    ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
    goes_on("after a checkpoint");
}

// Found by a review: what closed sessions and deleted shards had taken of the state stayed taken.
TEST(Sessions, GiveTheirRoomBack) {
    TrayRig rig;
    ASSERT_NO_FATAL_FAILURE(fill(rig));
    ShardId made = 1;
    while (rig.create_shard(++made, 512)) {
    }
    uint64_t sessions = 0;
    while (
        rig.run(rig.tray().open_session(1 + sessions / Tray::max_sessions_per_shard, sessions + 1)))
        ++sessions;
    ASSERT_GT(sessions, 20u);
    for (uint64_t each = 0; each < sessions; ++each)
        ASSERT_TRUE(
            rig.run(rig.tray().close_session(1 + each / Tray::max_sessions_per_shard, each + 1)));
    for (uint64_t each = 0; each < sessions; ++each)
        EXPECT_TRUE(
            rig.run(rig.tray().open_session(1 + each / Tray::max_sessions_per_shard, 1000 + each)));
}

// Found by a review: each piece of a large discard reserved room for a table that was there.
TEST(Discards, OfAllOfAFullTrayNeedNoRoom) {
    TrayRig rig;
    ASSERT_NO_FATAL_FAILURE(fill(rig));
    std::vector<Reservation> pieces;
    for (uint32_t i = 0; i < 200; ++i) {
        Result<Reservation> piece = rig.tray().reserve(1, 1, 0, blocks_per_chunk, WriteKind::unmap);
        ASSERT_TRUE(piece) << i;
        pieces.push_back(std::move(*piece));
    }
}

// Found by a review: a discard of what was a hole reserved nothing, and cloned the table that a
// write in flight of the generation before made there meanwhile.
TEST(Discards, OfAFullTrayNeverTakeTheRoomOfOthers) {
    TrayRig rig({.log_bytes = uint64_t{1} << 20});
    ASSERT_TRUE(rig.format());
    ASSERT_TRUE(rig.mount());
    ASSERT_TRUE(rig.create_shard(1, 400 * blocks_per_chunk));
    for (uint32_t block = 0; block < 2600; block += 8)
        ASSERT_TRUE(rig.write(1, 1, block, 8, block));
    const auto late = [&](SnapSeq snap_seq, uint32_t chunk, WriteKind kind) {
        const uint32_t block = chunk * blocks_per_chunk;
        return rig.run(rig.do_write(1, snap_seq, block, 1, 0, kind, {}, false));
    };
    uint32_t zeroed = 0;
    for (uint32_t chunk = 10; chunk < 310; ++chunk)
        if (late(1, chunk, WriteKind::zero)) ++zeroed;
    EXPECT_GT(zeroed, 100u);
    ASSERT_TRUE(rig.run(rig.tray().create_generation({1, 2}, {1, 1}, true)));
    ASSERT_TRUE(rig.write(1, 2, 0, 1, 0, WriteKind::unmap)) << "its table is there from here on";
    uint32_t discarded = 0;
    for (uint32_t chunk = 10; chunk < 310; ++chunk)
        if (late(2, chunk, WriteKind::unmap)) ++discarded;
    EXPECT_LT(discarded, zeroed) << "each may clone a table";
    rig.node().call([&] {
        for (const Ticket ticket : rig.uncommitted()) rig.tray().commit(ticket);
    });
    for (const bool restarted : {false, true}) {
        EXPECT_TRUE(rig.write(1, 2, 8, 8, 0, WriteKind::unmap)) << restarted;
        EXPECT_TRUE(rig.write(1, 2, 8, 8, 0, WriteKind::zero)) << restarted;
        rig.crash(true);
        ASSERT_TRUE(rig.mount());
    }
}

// Found by a review: a shard's name was used again before a checkpoint had its end, and the replay
// met the old one.
TEST(CreateShards, UnderANameThatWentSurviveACrash) {
    TrayRig rig({.log_bytes = uint64_t{1} << 20});
    ASSERT_TRUE(rig.format());
    ASSERT_TRUE(rig.mount());
    std::vector<ShardState> again = states_of(7);
    again.erase(again.begin(), again.begin() + 5);  // 6 and 7
    for (const bool together : {false, true}) {
        for (const bool settled : {false, true}) {
            ASSERT_TRUE(rig.create_shard(6, 512));
            ASSERT_TRUE(rig.write(6, 1, 0, 4, 10));
            ASSERT_TRUE(rig.run(rig.tray().delete_shards({6})));
            if (settled) rig.settle();
            if (together) {
                for (const Status& each : rig.run(rig.tray().create_shards(again)))
                    EXPECT_TRUE(each) << each.error().text();
            } else {
                EXPECT_TRUE(rig.create_shard(6, 512));
            }
            rig.crash(true);
            const Status mounted = rig.mount();
            ASSERT_TRUE(mounted) << mounted.error().text();
            EXPECT_EQ(rig.read(6, 1, 0, 4), std::vector<uint32_t>(4));
            ASSERT_TRUE(rig.run(rig.tray().delete_shards({6, 7})));
        }
    }
}

// Found by crash_states --only=20261137: what a deletion had freed, and the next checkpoint would
// give back, counted as taken, and what was made in that moment was refused.
TEST(CreateShards, WaitForWhatADeletedGenerationGivesBack) {
    // A log that no checkpoint has to make room in.
    TrayRig rig({.disk_bytes = uint64_t{32} << 20, .log_bytes = uint64_t{16} << 20});
    ASSERT_TRUE(rig.format());
    ASSERT_TRUE(rig.mount());
    ASSERT_TRUE(rig.create_shard(1, 8192));
    for (uint32_t block = 0; block < 1000; block += 8)
        ASSERT_TRUE(rig.write(1, 1, block, 8, block));
    ASSERT_TRUE(rig.run(rig.tray().create_generation({1, 2}, {1, 1}, true)));
    uint32_t block = 0;
    while (rig.write(1, 2, block, 1, block)) ++block;
    ASSERT_TRUE(rig.run(rig.tray().delete_generation({1, 1})));
    std::vector<ShardState> states = states_of(1001);
    states.erase(states.begin());  // it is there
    for (const Status& each : rig.run(rig.tray().create_shards(states))) ASSERT_TRUE(each);
    rig.settle();
    rig.check_space();
}

// Found by reading: each deletion of a generation was counted as growth of the state, so a nearly
// full tray refused writes until the next checkpoint.
TEST(DeleteGenerations, DoNotTakeRoomFromANearlyFullTray) {
    constexpr SnapSeq generations = 2000;
    // A log that holds all of it: a checkpoint would measure the state again.
    TrayRig rig({.disk_bytes = uint64_t{80} << 20, .log_bytes = uint64_t{64} << 20});
    ASSERT_TRUE(rig.format());
    ASSERT_TRUE(rig.mount());
    ASSERT_TRUE(rig.create_shard(1, 8192));
    for (SnapSeq next = 2; next <= generations; ++next)
        ASSERT_TRUE(rig.run(rig.tray().create_generation({1, next}, {1, next - 1}, true)));
    uint32_t block = 0;
    while (rig.write(1, generations, block, 1, block)) ++block;
    ASSERT_TRUE(rig.write(1, generations, 0, 12, 0, WriteKind::unmap));
    ASSERT_TRUE(rig.run(rig.tray().checkpoint()));
    rig.settle();
    for (SnapSeq old = 1; old + 100 < generations; ++old)
        ASSERT_TRUE(rig.run(rig.tray().delete_generation({1, old})));
    EXPECT_TRUE(rig.write(1, generations, 0, 10, 1));
    rig.settle();
    rig.check_space();
}

}  // namespace
}  // namespace pf::tray

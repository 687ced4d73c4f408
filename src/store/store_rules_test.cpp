// R9 to R11 as the store keeps them, each against the sequence of events that breaks a promise
// without it. (R8 is in store_requests_test.cpp, T13 and T14 in store_blocks_test.cpp, T7 in
// store_control_test.cpp.)
#include "store/rig_test.hpp"

namespace pf::pfs {
namespace {

using wire::Opcode;

TEST(StoreRules, rule_r9_refusals_take_no_number) {
    Rig rig;
    rig.create();
    auto peer = rig.connect();
    ASSERT_EQ(rig.write(*peer, 0, filled(block_bytes, 1)), Errc::ok);
    const uint64_t committed = peer->last.committed;
    const uint64_t size = uint64_t{Rig::shard_blocks} * block_bytes;
    EXPECT_EQ(rig.write(*peer, size, filled(block_bytes, 1)), Errc::out_of_range);
    EXPECT_EQ(rig.write(*peer, size - sector_bytes, filled(block_bytes, 1)), Errc::out_of_range)
        << "crosses a chunk";
    peer->epoch = 9;
    EXPECT_EQ(rig.write(*peer, 0, filled(block_bytes, 1)), Errc::stale_epoch);
    peer->epoch = 1;
    peer->token = 6;
    EXPECT_EQ(rig.write(*peer, 0, filled(block_bytes, 1)), Errc::fenced);
    peer->token = 7;
    ASSERT_EQ(rig.write(*peer, 0, filled(block_bytes, 2)), Errc::ok);
    EXPECT_EQ(peer->last.committed, committed + 1);
}

TEST(StoreRules, rule_r9_full_tray_refuses_before_numbering) {
    Rig rig(1, uint64_t{32} << 20);
    rig.create();
    ASSERT_TRUE(rig.on_server(rig.apply(1, 7, 1u << 20)));
    auto peer = rig.connect();
    constexpr uint32_t piece = 256u << 10;
    uint64_t written = 0;
    Errc status = Errc::ok;
    uint64_t committed = 0;
    while (written < uint64_t{64} << 20) {
        status = rig.write(*peer, written, filled(piece, static_cast<uint8_t>(written / piece)));
        if (status != Errc::ok) break;
        committed = peer->last.committed;
        written += piece;
    }
    ASSERT_EQ(status, Errc::no_space);
    EXPECT_EQ(peer->last.committed, committed);
    for (uint64_t at = 0; at < written; at += piece) {
        EXPECT_EQ(rig.bytes(*peer, at, piece), filled(piece, static_cast<uint8_t>(at / piece)));
    }
    // Deleting works, and gives room.
    for (uint64_t at = 0; at < written; at += piece) {
        ASSERT_EQ(rig.zero(*peer, Opcode::discard, at, piece), Errc::ok);
    }
    rig.simulation.run_for(5 * runtime::seconds);
    EXPECT_EQ(rig.write(*peer, 0, filled(piece, 9)), Errc::ok);
}

TEST(StoreRules, rule_r11_a_new_writer_token_fences_without_the_conductor) {
    Rig rig;
    rig.create();
    auto old_writer = rig.connect();
    ASSERT_EQ(rig.write(*old_writer, 0, filled(block_bytes, 1)), Errc::ok);
    ASSERT_TRUE(rig.on_server(rig.apply(1, 8)));
    EXPECT_EQ(rig.write(*old_writer, 0, filled(block_bytes, 2)), Errc::fenced);
    rig.restart();
    auto still_old = rig.connect(Rig::session, false);
    EXPECT_EQ(rig.write(*still_old, 0, filled(block_bytes, 2)), Errc::fenced);
    EXPECT_EQ(rig.bytes(*still_old, 0, block_bytes), filled(block_bytes, 1));
}

TEST(StoreRules, rule_r10_an_aborted_write_never_comes_back) {
    Rig rig;
    rig.create();
    auto peer = rig.connect();
    EXPECT_EQ(rig.abort(*peer, 3), Errc::never_applied);
    Call late;
    late.length = block_bytes;
    late.request = 3;
    late.lowest = 3;
    late.data = filled(block_bytes, 0xee);
    EXPECT_EQ(rig.call(*peer, late), Errc::never_applied);
    rig.restart();
    peer = rig.connect();
    EXPECT_EQ(rig.call(*peer, late), Errc::never_applied);
    EXPECT_EQ(rig.bytes(*peer, 0, block_bytes), filled(block_bytes, 0));
}

TEST(StoreRules, rule_r10_abort_of_an_applied_write_says_so) {
    Rig rig;
    rig.create();
    auto peer = rig.connect();
    ASSERT_EQ(rig.write(*peer, 0, filled(block_bytes, 1), 1), Errc::ok);
    EXPECT_EQ(rig.abort(*peer, 1), Errc::ok);
}

TEST(StoreRules, rule_r10_abort_waits_for_a_write_in_flight) {
    for (uint64_t seed = 1; seed <= 30; ++seed) {
        Rig rig(seed);
        rig.create();
        auto peer = rig.connect();
        Call write;
        write.length = block_bytes;
        write.request = 1;
        write.data = filled(block_bytes, 0x77);
        Call abort;
        abort.opcode = Opcode::abort;
        abort.request = 1;
        Errc written = Errc::timed_out;
        Errc aborted = Errc::timed_out;
        const bool abort_first = seed % 2 == 0;
        if (abort_first) rig.client.reactor().spawn(send_into(*peer, abort, aborted));
        rig.client.reactor().spawn(send_into(*peer, write, written));
        if (!abort_first) rig.client.reactor().spawn(send_into(*peer, abort, aborted));
        rig.simulation.run_for(runtime::seconds);
        // Both tell the same story, and the medium agrees with it.
        EXPECT_EQ(written, aborted);
        const bool applied = written == Errc::ok;
        if (!applied) {
            EXPECT_EQ(written, Errc::never_applied);
        }
        EXPECT_EQ(rig.bytes(*peer, 0, block_bytes), filled(block_bytes, applied ? 0x77 : 0));
    }
}

// The tray remembers what was applied and what was voided, not what was refused: a copy that still
// travels on the connection before must find nobody who runs it.
TEST(StoreRules, rule_r10_a_late_copy_of_a_refused_request_never_runs) {
    for (const bool closed : {false, true}) {
        Rig rig;
        rig.create();
        auto before = rig.connect();
        Call swap;
        swap.opcode = Opcode::compare_and_write;
        swap.length = block_bytes;
        swap.request = 5;
        swap.data = filled(block_bytes, 0xaa);
        const Data fresh = filled(block_bytes, 0xbb);
        swap.data.insert(swap.data.end(), fresh.begin(), fresh.end());
        sim::NetworkModel& network = rig.simulation.network().model();
        network.late_extra = runtime::seconds;
        network.late_ppm = 1'000'000;
        Errc late = Errc::ok;
        rig.client.reactor().spawn(send_into(*before, swap, late));
        rig.simulation.run_for(runtime::milliseconds);
        if (closed) rig.disconnect(*before);
        network.late_ppm = 0;

        auto peer = rig.connect(Rig::session, false);
        ASSERT_EQ(rig.call(*peer, swap), Errc::miscompare);
        auto other = rig.connect(77);
        ASSERT_EQ(rig.write(*other, 0, filled(block_bytes, 0xaa)), Errc::ok);
        rig.simulation.run_for(5 * runtime::seconds);
        EXPECT_EQ(late, Errc::disconnected);
        EXPECT_EQ(rig.bytes(*other, 0, block_bytes), filled(block_bytes, 0xaa));
        EXPECT_TRUE(peer->channel->connected());
        EXPECT_TRUE(other->channel->connected());
    }
}

}  // namespace
}  // namespace pf::pfs

// R8, requests have names, as the store keeps it: a resend is answered and not run, and sessions
// make room for one another without a live one losing its place.
#include "base/log.hpp"
#include "store/rig_test.hpp"

namespace pf::pfs {
namespace {

using wire::Opcode;

TEST(StoreRules, rule_r8_resend_of_an_applied_write_is_answered_not_run) {
    Rig rig;
    rig.create();
    auto peer = rig.connect();
    Call first;
    first.offset = 0;
    first.length = block_bytes;
    first.request = 1;
    first.data = filled(block_bytes, 0xaa);
    ASSERT_EQ(rig.call(*peer, first), Errc::ok);
    Call second = first;
    second.request = 2;
    second.lowest = 1;  // the answer to the first was lost
    second.data = filled(block_bytes, 0xbb);
    ASSERT_EQ(rig.call(*peer, second), Errc::ok);
    first.flags = wire::flag_resent;
    EXPECT_EQ(rig.call(*peer, first), Errc::ok);
    EXPECT_EQ(rig.bytes(*peer, 0, block_bytes), filled(block_bytes, 0xbb));

    // On another connection, and across a restart of the store.
    auto again = rig.connect();
    EXPECT_EQ(rig.call(*again, first), Errc::ok);
    rig.restart();
    auto later = rig.connect();
    EXPECT_EQ(rig.call(*later, first), Errc::ok);
    EXPECT_EQ(rig.bytes(*later, 0, block_bytes), filled(block_bytes, 0xbb));
}

TEST(StoreRules, rule_r8_compare_and_write_is_not_run_twice) {
    Rig rig;
    rig.create();
    auto peer = rig.connect();
    Call swap;
    swap.opcode = Opcode::compare_and_write;
    swap.length = sector_bytes;
    swap.request = 5;
    swap.data = filled(sector_bytes, 0);
    const Data fresh = filled(sector_bytes, 1);
    swap.data.insert(swap.data.end(), fresh.begin(), fresh.end());
    ASSERT_EQ(rig.call(*peer, swap), Errc::ok);
    rig.restart();
    peer = rig.connect();
    // Run again, it would find its own bytes and say miscompare.
    EXPECT_EQ(rig.call(*peer, swap), Errc::ok);
}

TEST(StoreRules, rule_r8_two_copies_in_flight_run_once) {
    Rig rig;
    rig.create();
    auto one = rig.connect();
    Call call;
    call.length = block_bytes;
    call.request = 1;
    call.data = filled(block_bytes, 0x11);
    Errc first = Errc::timed_out;
    Errc second = Errc::timed_out;
    const uint64_t before =
        rig.store().worker(0).find_shard(Rig::shard_id)->tray().counters().writes;
    rig.disk.inject({.kind = sim::FaultKind::slow, .operations = sim::DiskFault::on_write});
    rig.client.reactor().spawn(send_into(*one, call, first));
    rig.simulation.run_for(10 * runtime::milliseconds);  // the disk takes 100
    auto two = rig.connect(Rig::session, false);
    rig.client.reactor().spawn(send_into(*two, call, second));
    rig.simulation.run_for(runtime::seconds);
    EXPECT_EQ(first, Errc::disconnected) << "the newer connection took its place";
    EXPECT_EQ(second, Errc::ok);
    EXPECT_EQ(rig.store().worker(0).find_shard(Rig::shard_id)->tray().counters().writes,
              before + 1);
}

TEST(StoreRules, rule_r8_unknown_and_fenced_sessions_are_refused) {
    Rig rig;
    rig.create();
    auto stranger = rig.connect(77, false);
    EXPECT_EQ(rig.write(*stranger, 0, filled(block_bytes, 1)), Errc::unknown_session);
    auto peer = rig.connect();
    ASSERT_EQ(rig.write(*peer, 0, filled(block_bytes, 1)), Errc::ok);
    ASSERT_TRUE(rig.on_server(rig.store().fence_session(Rig::shard_id, Rig::session)));
    EXPECT_EQ(rig.write(*peer, 0, filled(block_bytes, 2)), Errc::fenced);
    EXPECT_EQ(rig.bytes(*peer, 0, block_bytes), filled(block_bytes, 1));
}

TEST(StoreRules, rule_r8_a_late_copy_below_the_watermark_is_refused) {
    Rig rig;
    rig.create();
    auto peer = rig.connect();
    ASSERT_EQ(rig.write(*peer, 0, filled(block_bytes, 1), 1), Errc::ok);
    ASSERT_EQ(rig.write(*peer, 0, filled(block_bytes, 2), 5), Errc::ok);  // lowest is 5 now
    EXPECT_EQ(rig.write(*peer, 0, filled(block_bytes, 1), 1), Errc::cancelled);
    EXPECT_EQ(rig.bytes(*peer, 0, block_bytes), filled(block_bytes, 2));
}

// Clients that were killed leave their sessions behind.
TEST(StoreRules, rule_r8_dead_sessions_make_room_and_live_ones_stay) {
    Rig rig;
    rig.create();
    auto live = rig.connect(1000);
    ASSERT_EQ(rig.write(*live, 0, filled(block_bytes, 1), 1), Errc::ok);
    for (uint64_t i = 1; i <= uint64_t{2} * tray::Tray::max_sessions_per_shard; ++i) {
        auto dead = rig.connect(i);
        ASSERT_EQ(rig.write(*dead, block_bytes, filled(block_bytes, 2), 1), Errc::ok) << i;
        rig.disconnect(*dead);
    }
    EXPECT_EQ(rig.write(*live, 0, filled(block_bytes, 3), 2), Errc::ok);
    Peer evicted;
    evicted.session = 1;
    evicted.shard = Rig::shard_id;
    EXPECT_EQ(rig.try_connect(evicted, false), Errc::fenced);
}

std::vector<std::string> warnings;
void keep_warning(LogLevel level, std::string_view line) {
    if (level == LogLevel::warning) warnings.emplace_back(line);
}

TEST(StoreRules, rule_r8_a_writer_too_many_is_refused_and_the_log_says_so_once_a_minute) {
    Rig rig;
    rig.create();
    std::vector<std::unique_ptr<Peer>> live;
    for (uint64_t i = 1; i <= tray::Tray::max_sessions_per_shard; ++i)
        live.push_back(rig.connect(i));
    warnings.clear();
    set_log_level(LogLevel::warning);
    set_log_sink(&keep_warning);
    const auto refuse = [&] {
        Peer late;
        late.session = 2000;
        late.shard = Rig::shard_id;
        EXPECT_EQ(rig.try_connect(late), Errc::resource_exhausted);
    };
    refuse();
    refuse();
    EXPECT_EQ(warnings.size(), 1U);
    rig.simulation.run_for(61 * runtime::seconds);
    refuse();
    set_log_sink(nullptr);
    ASSERT_EQ(warnings.size(), 2U);
    EXPECT_NE(warnings[0].find("volume 1 "), std::string::npos) << warnings[0];
}

// The table of a shard is full of sessions whose clients are gone, opened after that of `live`.
std::unique_ptr<Peer> fill_session_table(Rig& rig) {
    auto live = rig.connect(1000);
    EXPECT_EQ(rig.write(*live, 0, filled(block_bytes, 1), 1), Errc::ok);
    for (uint64_t i = 1; i < tray::Tray::max_sessions_per_shard; ++i) {
        auto dead = rig.connect(i);
        rig.disconnect(*dead);
    }
    return live;
}
std::unique_ptr<Peer> newcomer(uint64_t session) {
    auto peer = std::make_unique<Peer>();
    peer->session = session;
    peer->shard = Rig::shard_id;
    return peer;
}

TEST(StoreRules, rule_r8_the_session_that_left_first_makes_room_not_the_oldest) {
    Rig rig;
    rig.create();
    auto live = fill_session_table(rig);
    rig.disconnect(*live);  // for a moment
    EXPECT_EQ(rig.try_connect(*newcomer(2000)), Errc::ok);
    live = rig.connect(1000, false);
    EXPECT_EQ(rig.write(*live, 0, filled(block_bytes, 3), 2), Errc::ok);
    EXPECT_EQ(rig.try_connect(*newcomer(1), false), Errc::fenced);
}

// Right after its start a store cannot tell the sessions of the dead from those whose clients are
// on their way back.
TEST(StoreRules, rule_r8_a_restart_evicts_no_session_before_its_client_could_come_back) {
    Rig rig;
    rig.create();
    auto live = fill_session_table(rig);
    rig.restart();
    EXPECT_EQ(rig.try_connect(*newcomer(2000)), Errc::busy);
    rig.simulation.run_for(5 * runtime::seconds);
    live = rig.connect(1000, false);
    EXPECT_EQ(rig.write(*live, 0, filled(block_bytes, 3), 2), Errc::ok);
    rig.disconnect(*live);
    rig.simulation.run_for(30 * runtime::seconds);
    EXPECT_EQ(rig.try_connect(*newcomer(2000)), Errc::ok);
    live = rig.connect(1000, false);
    EXPECT_EQ(rig.write(*live, 0, filled(block_bytes, 4), 3), Errc::ok);
}

// Sessions of a replaced writer can never write again: they make room at once, and first.
TEST(StoreRules, rule_r8_sessions_of_an_older_writer_token_make_room_first) {
    Rig rig;
    rig.create();
    fill_session_table(rig);
    rig.restart();
    ASSERT_TRUE(rig.on_server(rig.apply(1, 8)));
    auto writer = newcomer(2000);
    writer->token = 8;
    ASSERT_EQ(rig.try_connect(*writer), Errc::ok);
    rig.disconnect(*writer);
    for (uint64_t i = 1; i < tray::Tray::max_sessions_per_shard; ++i) {
        auto other = newcomer(3000 + i);
        other->token = 8;
        ASSERT_EQ(rig.try_connect(*other), Errc::ok);
    }
    writer = newcomer(2000);
    writer->token = 8;
    ASSERT_EQ(rig.try_connect(*writer, false), Errc::ok);
    EXPECT_EQ(rig.write(*writer, 0, filled(block_bytes, 3), 1), Errc::ok);
}

TEST(StoreRules, rule_r8_two_that_open_at_once_do_not_fight_for_one_place) {
    Rig rig;
    rig.create();
    const auto live = fill_session_table(rig);
    std::vector<std::unique_ptr<Peer>> peers(4);
    std::vector<Errc> status(4, Errc::timed_out);
    std::vector<Data> answers(4);
    for (uint64_t i = 0; i < 4; ++i) peers[i] = rig.connect(2000 + i, false);
    for (size_t i = 0; i < 4; ++i) {
        Call open;
        open.opcode = Opcode::open_session;
        open.into = &answers[i];
        rig.client.reactor().spawn(send_into(*peers[i], open, status[i]));
    }
    rig.simulation.run_for(runtime::seconds);
    EXPECT_EQ(status, std::vector<Errc>(4, Errc::ok));
}

}  // namespace
}  // namespace pf::pfs

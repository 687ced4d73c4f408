// The rules of RULES.md that the store keeps, each against the sequence of events that breaks a
// promise without it.
#include "store/rig_test.hpp"

namespace pf::pfs {
namespace {

using wire::Opcode;

// --- R8: requests have names ---

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

Task<void> send_into(Peer& peer, Call call, Errc& status) {
    Task<Errc> running = run_call(peer, std::move(call));
    status = co_await running;
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
    for (uint64_t i = 1; i <= 2 * tray::Tray::max_sessions_per_shard; ++i) {
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
    std::vector<std::unique_ptr<Peer>> peers;
    std::vector<Errc> status(4, Errc::timed_out);
    std::vector<Data> answers(4);
    for (uint64_t i = 0; i < 4; ++i) peers.push_back(rig.connect(2000 + i, false));
    for (size_t i = 0; i < 4; ++i) {
        Call open;
        open.opcode = Opcode::open_session;
        open.into = &answers[i];
        rig.client.reactor().spawn(send_into(*peers[i], open, status[i]));
    }
    rig.simulation.run_for(runtime::seconds);
    EXPECT_EQ(status, std::vector<Errc>(4, Errc::ok));
}

// --- R9: a numbered write cannot fail ---

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

// --- R10: no ghost writes ---

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

// --- T13: stable bytes ---

TEST(StoreRules, rule_t13_bytes_that_changed_on_the_way_are_refused_and_resent) {
    Rig rig;
    rig.create();
    auto peer = rig.connect();
    Call write;
    write.length = 2 * block_bytes;
    write.request = 1;
    write.data = filled(2 * block_bytes, 0x33);
    write.damaged = true;
    EXPECT_EQ(rig.call(*peer, write), Errc::bad_payload);
    EXPECT_EQ(rig.bytes(*peer, 0, 2 * block_bytes), filled(2 * block_bytes, 0));
    write.damaged = false;
    EXPECT_EQ(rig.call(*peer, write), Errc::ok);
    EXPECT_EQ(rig.bytes(*peer, 0, 2 * block_bytes), filled(2 * block_bytes, 0x33));
}

Call rpc_call(const pureflash::v1::RpcRequest& request, Data& answer) {
    const std::string text = request.SerializeAsString();
    Call call;
    call.opcode = Opcode::rpc;
    call.length = static_cast<uint32_t>(text.size());
    call.data.assign(as_bytes(text).begin(), as_bytes(text).end());
    call.into = &answer;
    return call;
}

// A control call that was damaged on its way must not delete another shard than was meant.
TEST(StoreRules, rule_t13_an_rpc_that_was_damaged_on_the_way_is_not_run) {
    Rig rig;
    rig.create();
    Peer conductor;
    ASSERT_EQ(rig.try_connect(conductor, false), Errc::ok);
    pureflash::v1::RpcRequest request;
    request.mutable_delete_shards()->add_shard_ids(Rig::shard_id);
    Data answer;
    Call call = rpc_call(request, answer);
    call.damaged = true;
    EXPECT_EQ(rig.call(conductor, call), Errc::bad_payload);
    EXPECT_NE(rig.store().worker(0).find_shard(Rig::shard_id), nullptr);
    call.damaged = false;
    EXPECT_EQ(rig.call(conductor, call), Errc::ok);
    EXPECT_EQ(rig.store().worker(0).find_shard(Rig::shard_id), nullptr);
}

// --- T14: below a block ---

TEST(StoreRules, rule_t14_unaligned_writes_and_zeroes_match_a_model) {
    for (uint64_t seed = 1; seed <= 10; ++seed) {
        Rig rig(seed);
        rig.create();
        auto peer = rig.connect();
        Rng rng(seed);
        constexpr uint64_t span = 24 * block_bytes;
        const uint64_t base = chunk_bytes - span / 2;  // across a chunk border
        Data model(span, std::byte{0});
        for (int i = 0; i < 120; ++i) {
            uint64_t at = rng.below(span / sector_bytes) * sector_bytes;
            uint64_t length = rng.between(1, 40) * sector_bytes;
            const uint64_t border = at < span / 2 ? span / 2 : span;
            length = std::min(length, border - at);
            const auto value = static_cast<uint8_t>(rng.below(255) + 1);
            const auto to = model.begin() + static_cast<ptrdiff_t>(at);
            const auto bytes = static_cast<uint32_t>(length);
            switch (rng.below(4)) {
                case 0:
                    ASSERT_EQ(rig.zero(*peer, Opcode::write_zeroes, base + at, bytes), Errc::ok);
                    std::fill_n(to, length, std::byte{0});
                    break;
                case 1:
                    ASSERT_EQ(rig.zero(*peer, Opcode::discard, base + at, bytes), Errc::ok);
                    std::fill_n(to, length, std::byte{0});
                    break;
                case 2: {
                    const Data old(to, to + static_cast<ptrdiff_t>(length));
                    Data wrong = old;
                    wrong[0] ^= std::byte{1};
                    ASSERT_EQ(rig.compare_and_write(*peer, base + at, wrong, filled(length, 1)),
                              Errc::miscompare);
                    ASSERT_EQ(rig.compare_and_write(*peer, base + at, old, filled(length, value)),
                              Errc::ok);
                    std::fill_n(to, length, std::byte{value});
                    break;
                }
                default:
                    ASSERT_EQ(rig.write(*peer, base + at, filled(length, value)), Errc::ok);
                    std::fill_n(to, length, std::byte{value});
            }
            if (i == 60) {
                rig.restart();
                const uint64_t next = peer->next_request;
                peer = rig.connect();
                peer->next_request = next;
            }
        }
        Data found = rig.bytes(*peer, base, span / 2);
        const Data upper = rig.bytes(*peer, base + span / 2, span / 2);
        found.insert(found.end(), upper.begin(), upper.end());
        EXPECT_EQ(found, model);
    }
}

// Eight sectors of one block written at once by eight connections: each must find the others'.
TEST(StoreRules, rule_t14_writers_of_one_block_do_not_lose_each_others_sectors) {
    for (uint64_t seed = 1; seed <= 10; ++seed) {
        Rig rig(seed);
        rig.create();
        std::vector<std::unique_ptr<Peer>> peers;
        std::vector<Errc> status(8, Errc::timed_out);
        for (uint64_t i = 0; i < 8; ++i) peers.push_back(rig.connect(100 + i));
        for (size_t i = 0; i < 8; ++i) {
            Call call;
            call.offset = i * sector_bytes;
            call.length = sector_bytes;
            call.data = filled(sector_bytes, static_cast<uint8_t>(i + 1));
            rig.client.reactor().spawn(send_into(*peers[i], call, status[i]));
        }
        rig.simulation.run_for(5 * runtime::seconds);
        const Data block = rig.bytes(*peers[0], 0, block_bytes);
        ASSERT_EQ(block.size(), block_bytes);
        for (size_t i = 0; i < 8; ++i) {
            EXPECT_EQ(status[i], Errc::ok);
            EXPECT_EQ(block[i * sector_bytes], std::byte{static_cast<uint8_t>(i + 1)});
        }
    }
}

Task<void> count_up(Peer& peer, int times, int& done) {
    uint64_t seen = 0;
    while (done >= 0 && times > 0) {
        Call swap;
        swap.opcode = Opcode::compare_and_write;
        swap.length = sector_bytes;
        swap.data = filled(2 * sector_bytes, 0);
        std::memcpy(swap.data.data(), &seen, sizeof(seen));
        const uint64_t next = seen + 1;
        std::memcpy(swap.data.data() + sector_bytes, &next, sizeof(next));
        Task<Errc> swapping = run_call(peer, swap);
        const Errc status = co_await swapping;
        if (status == Errc::ok) {
            seen = next;
            ++done;
            --times;
            continue;
        }
        if (status != Errc::miscompare) co_return;
        Data block;
        Call look;
        look.opcode = Opcode::read;
        look.length = block_bytes;
        look.into = &block;
        Task<Errc> looking = run_call(peer, look);
        const Errc found = co_await looking;
        if (found != Errc::ok) co_return;
        std::memcpy(&seen, block.data(), sizeof(seen));
    }
}

TEST(StoreRules, rule_t14_compare_and_write_counts_exactly) {
    Rig rig;
    rig.create();
    std::vector<std::unique_ptr<Peer>> peers;
    for (uint64_t i = 0; i < 6; ++i) peers.push_back(rig.connect(100 + i));
    int done = 0;
    for (auto& peer : peers) rig.client.reactor().spawn(count_up(*peer, 20, done));
    rig.simulation.run_for(60 * runtime::seconds);
    EXPECT_EQ(done, 120);
    uint64_t value = 0;
    const Data block = rig.bytes(*peers[0], 0, block_bytes);
    ASSERT_EQ(block.size(), block_bytes);
    std::memcpy(&value, block.data(), sizeof(value));
    EXPECT_EQ(value, 120U);
}

// A merge must verify the old block: else rotten sectors get a fresh, good checksum.
TEST(StoreRules, rule_t14_a_rotten_old_block_is_not_merged) {
    Rig rig;
    rig.create();
    auto peer = rig.connect();
    const Data marked = filled(block_bytes, 0x5c);
    ASSERT_EQ(rig.write(*peer, 0, marked), Errc::ok);
    rig.restart();  // everything is on the medium
    Data page(block_bytes);
    bool found = false;
    for (uint64_t at = 0; at < rig.disk.contents().size_bytes() && !found; at += block_bytes) {
        rig.disk.contents().read(at, page);
        if (page != marked) continue;
        rig.disk.flip_bit(at + 100, 3);
        found = true;
    }
    ASSERT_TRUE(found);
    peer = rig.connect();
    peer->next_request = 10;
    EXPECT_EQ(rig.write(*peer, 1024, filled(sector_bytes, 1)), Errc::corrupt);
    Data into;
    EXPECT_EQ(rig.read(*peer, 0, block_bytes, into), Errc::corrupt);
    // A whole block needs nothing of the old one.
    EXPECT_EQ(rig.write(*peer, 0, filled(block_bytes, 2)), Errc::ok);
    EXPECT_EQ(rig.bytes(*peer, 0, block_bytes), filled(block_bytes, 2));
}

// --- control calls ---

TEST(StoreControl, a_delete_that_the_tray_did_not_take_is_not_called_done) {
    Rig rig;
    rig.create();
    rig.disk.inject({.operations = sim::DiskFault::on_write, .count = sim::DiskFault::forever});
    EXPECT_FALSE(rig.on_server(rig.store().delete_shard(Rig::shard_id)));
    EXPECT_FALSE(rig.on_server(rig.store().delete_shard(Rig::shard_id))) << "told again";
    rig.disk.clear_faults();
    rig.restart();  // it may be back: a write that failed may have reached the medium or not
    EXPECT_TRUE(rig.on_server(rig.store().delete_shard(Rig::shard_id)));
    EXPECT_TRUE(rig.on_server(rig.store().delete_shard(Rig::shard_id)));
    rig.restart();
    EXPECT_EQ(rig.store().worker(0).find_shard(Rig::shard_id), nullptr);
}

// Large ones, more than there is memory for, while the first of them waits for the disk.
TEST(StoreControl, waiting_rpcs_are_bounded_and_hold_no_buffers) {
    Rig rig;
    rig.create();
    rig.connect();  // its session is what is fenced, once
    Peer conductor;
    ASSERT_EQ(rig.try_connect(conductor, false), Errc::ok);
    const size_t free_before = rig.server.reactor().buffers().free_bytes();
    rig.disk.inject({.kind = sim::FaultKind::slow,
                     .operations = sim::DiskFault::on_write,
                     .slow_extra = 2 * runtime::seconds});
    pureflash::v1::RpcRequest request;
    request.mutable_fence_session()->set_session(Rig::session);
    request.mutable_fence_session()->add_shard_ids(Rig::shard_id);
    for (uint64_t id = 0; id < 100'000; ++id) request.mutable_fence_session()->add_shard_ids(12);
    constexpr size_t calls = 60;
    std::vector<Errc> status(calls, Errc::timed_out);
    std::vector<Data> answers(calls);
    for (size_t i = 0; i < calls; ++i) {
        rig.client.reactor().spawn(send_into(conductor, rpc_call(request, answers[i]), status[i]));
    }
    rig.simulation.run_for(runtime::seconds);
    EXPECT_EQ(rig.server.reactor().buffers().free_bytes(), free_before);
    EXPECT_EQ(std::ranges::count(status, Errc::busy), calls - Store::max_rpcs);
    rig.simulation.run_for(5 * runtime::seconds);
    EXPECT_EQ(std::ranges::count(status, Errc::ok), Store::max_rpcs);
}

Task<void> add_tray(Store& store, std::string path) {
    pureflash::v1::AddTrayRequest request;
    request.set_path(path);
    Task<Result<pureflash::v1::Tray>> adding = store.add_tray(request);
    const Result<pureflash::v1::Tray> added = co_await adding;
    EXPECT_TRUE(added.has_value());
}

TEST(StoreControl, trays_added_at_once_are_both_known) {
    for (uint64_t seed = 1; seed <= 10; ++seed) {
        Rig rig(seed);
        rig.server.add_disk("disk1", {.size_bytes = uint64_t{64} << 20});
        rig.trays = {{"disk0", {}}};  // blank: known, and not mounted
        rig.restart();
        rig.server.reactor().spawn(add_tray(rig.store(), "disk0"));
        rig.server.reactor().spawn(add_tray(rig.store(), "disk1"));
        rig.simulation.run_for(10 * runtime::seconds);
        ASSERT_EQ(rig.trays.size(), 2U);
        for (const TrayPlace& place : rig.trays) EXPECT_FALSE(place.id.is_zero()) << place.path;
    }
}

TEST(StoreControl, a_loss_accepted_while_the_shard_is_told_its_state_stays_accepted) {
    Rig rig;
    rig.create();
    ASSERT_TRUE(rig.on_server(rig.store().delete_shard(Rig::shard_id)));
    rig.lost_before = true;
    ASSERT_TRUE(rig.on_server(rig.apply(1, 7)));
    Shard* shard = rig.store().worker(0).find_shard(Rig::shard_id);
    ASSERT_TRUE(shard->state().damaged);
    tray::ShardState state = shard->state();
    state.epoch = 2;
    rig.server.reactor().spawn([](Shard& of) -> Task<void> {
        Task<Status> accepting = of.accept_loss();
        EXPECT_TRUE(co_await accepting);
    }(*shard));
    EXPECT_TRUE(rig.on_server(shard->apply(state)));
    rig.simulation.run_for(runtime::seconds);
    EXPECT_EQ(shard->state().epoch, 2U);
    EXPECT_FALSE(shard->state().damaged);
}

// T7: part of the log that the shard's writes rest on is gone. Over the wire it answers one clear
// status, an abort still gets its answer, and after the operator's word it serves what is left.
TEST(StoreRules, rule_t07_a_shard_that_lost_writes_answers_no_io_until_that_is_accepted) {
    Rig rig;
    rig.create();
    auto peer = rig.connect();
    ASSERT_EQ(rig.write(*peer, 0, filled(block_bytes, 1)), Errc::ok);
    ASSERT_EQ(rig.write(*peer, block_bytes, filled(block_bytes, 2)), Errc::ok);
    rig.simulation.run_for(50 * runtime::milliseconds);
    rig.disconnect(*peer);
    rig.server.kill();
    // All of the log: whatever it says was durable is gone but for its newest block.
    constexpr uint64_t log_begin = 3 * block_bytes;
    uint64_t newest = 0;
    std::vector<std::byte> block(block_bytes);
    const auto sequence = [&](uint64_t i) {
        rig.disk.contents().read(log_begin + i * block_bytes, block);
        uint64_t value = 0;
        std::memcpy(&value, block.data() + 32, sizeof(value));
        return value;
    };
    for (uint64_t i = 1; i < 64; ++i) newest = sequence(i) > sequence(newest) ? i : newest;
    for (uint64_t i = 0; i < newest; ++i) rig.disk.flip_bit(log_begin + i * block_bytes + 60, 1);
    rig.restart();

    Shard* shard = rig.store().worker(0).find_shard(Rig::shard_id);
    if (shard == nullptr) {
        // The record that made it is gone as well: told of it, the store does not make it anew.
        rig.lost_before = true;
        ASSERT_TRUE(rig.on_server(rig.apply(2, 7)));
        shard = rig.store().worker(0).find_shard(Rig::shard_id);
    }
    ASSERT_TRUE(shard->state().damaged);
    EXPECT_NE(rig.store().worker(0).problem().find("accept-loss"), std::string::npos);
    auto again = rig.connect(Rig::session, false);
    again->epoch = shard->state().epoch;
    Data bytes;
    EXPECT_EQ(rig.read(*again, 0, block_bytes, bytes), Errc::data_lost);
    EXPECT_EQ(rig.write(*again, 0, filled(block_bytes, 3)), Errc::data_lost);
    EXPECT_EQ(rig.abort(*again, 1), Errc::unknown_session) << "decided, not asked for ever";
    EXPECT_NE(rig.store().worker(0).describe_trays()[0].message().find("accept-loss"),
              std::string::npos);
    EXPECT_EQ(rig.store().worker(0).describe_trays()[0].lost(0).volume_id(), 1u);

    const auto accepted = rig.simulation.run_task(rig.server, [](Rig& of) -> Task<uint32_t> {
        pureflash::v1::AcceptLossRequest request;
        request.set_tray_uuid(of.tray_uuid);
        request.add_shard_ids(Rig::shard_id);
        request.add_shard_ids(12345);
        Task<Result<uint32_t>> accepting = of.store().accept_loss(request);
        const Result<uint32_t> shards = co_await accepting;
        co_return shards.value_or(0);
    }(rig));
    ASSERT_EQ(accepted.value_or(0), 1u);
    EXPECT_EQ(rig.store().worker(0).problem(), "");
    EXPECT_EQ(rig.store().worker(0).describe_trays()[0].health(), pureflash::v1::HEALTH_OK);
    EXPECT_EQ(rig.read(*again, 0, block_bytes, bytes), Errc::ok);
    auto fresh = rig.connect(77, false);
    fresh->epoch = again->epoch;
    fresh->token = shard->state().writer_token;
    Call open;
    open.opcode = Opcode::open_session;
    open.into = &bytes;
    EXPECT_EQ(rig.call(*fresh, open), Errc::ok);
    EXPECT_EQ(rig.write(*fresh, 0, filled(block_bytes, 3)), Errc::ok);
}

// Found by hand: a volume was deleted while its tray was missing; the store called its shards gone,
// and when the tray was back they kept their space for ever.
TEST(StoreTrays, regression_shards_of_an_unmounted_tray_are_not_called_deleted) {
    Rig rig;
    rig.create();
    const auto remove = [&rig] {
        pureflash::v1::DeleteShardsRequest request;
        request.set_tray_uuid(rig.tray_uuid);
        request.add_shard_ids(Rig::shard_id);
        const Status removed = rig.on_server(rig.store().delete_shards(request));
        return removed ? Errc::ok : removed.error().code;
    };
    sim::DiskFault fault;
    fault.operations = sim::DiskFault::on_read;
    fault.count = sim::DiskFault::forever;
    rig.disk.inject(fault);
    rig.restart();
    ASSERT_NE(rig.store().worker(0).problem(), "");
    EXPECT_EQ(remove(), Errc::unavailable);
    const Status applied = rig.on_server(rig.apply(2, 7));
    ASSERT_FALSE(applied);
    EXPECT_EQ(applied.error().code, Errc::unavailable) << "it did not fail, and may come back";
    rig.disk.clear_faults();
    rig.restart();
    ASSERT_NE(rig.store().worker(0).find_shard(Rig::shard_id), nullptr);
    EXPECT_EQ(remove(), Errc::ok);
    EXPECT_EQ(rig.store().worker(0).find_shard(Rig::shard_id), nullptr);
    EXPECT_EQ(remove(), Errc::ok) << "told again";
}

}  // namespace
}  // namespace pf::pfs

// T13 and T14 as the store keeps them: bytes are stable before they are taken, and writes below a
// block lose nothing of it.
#include "store/rig_test.hpp"

namespace pf::pfs {
namespace {

using wire::Opcode;

TEST(StoreRules, rule_t13_bytes_that_changed_on_the_way_are_refused_and_resent) {
    Rig rig;
    rig.create();
    auto peer = rig.connect();
    Call write;
    write.length = 2 * block_bytes;
    write.request = 1;
    write.data = filled(size_t{2} * block_bytes, 0x33);
    write.damaged = true;
    EXPECT_EQ(rig.call(*peer, write), Errc::bad_payload);
    EXPECT_EQ(rig.bytes(*peer, 0, 2 * block_bytes), filled(size_t{2} * block_bytes, 0));
    write.damaged = false;
    EXPECT_EQ(rig.call(*peer, write), Errc::ok);
    EXPECT_EQ(rig.bytes(*peer, 0, 2 * block_bytes), filled(size_t{2} * block_bytes, 0x33));
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

TEST(StoreRules, rule_t14_unaligned_writes_and_zeroes_match_a_model) {
    for (uint64_t seed = 1; seed <= 10; ++seed) {
        Rig rig(seed);
        rig.create();
        auto peer = rig.connect();
        Rng rng(seed);
        constexpr uint64_t span = uint64_t{24} * block_bytes;
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
        std::vector<std::unique_ptr<Peer>> peers(8);
        std::vector<Errc> status(8, Errc::timed_out);
        for (uint64_t i = 0; i < 8; ++i) peers[i] = rig.connect(100 + i);
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
        swap.data = filled(size_t{2} * sector_bytes, 0);
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
    std::vector<std::unique_ptr<Peer>> peers(6);
    for (uint64_t i = 0; i < 6; ++i) peers[i] = rig.connect(100 + i);
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

}  // namespace
}  // namespace pf::pfs

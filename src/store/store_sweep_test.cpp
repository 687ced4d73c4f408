// The n-th disk or network operation of the store fails, for every n: whatever happens then, a
// client that reconnects and resends under the same names ends with every command done once.
#include "store/rig_test.hpp"

namespace pf::pfs {
namespace {

using wire::Opcode;

constexpr uint64_t span_blocks = 16;

struct Step {
    Call call;
    size_t at;   // in the model
    Data after;  // what the model holds there then
};

std::vector<Step> script() {
    std::vector<Step> steps;
    const auto add = [&steps](Opcode opcode, uint64_t offset, uint32_t length, Data sent,
                              Data after) {
        Call call;
        call.opcode = opcode;
        call.offset = offset;
        call.length = length;
        call.request = steps.size() + 1;
        call.data = std::move(sent);
        steps.push_back({call, offset, std::move(after)});
    };
    const auto write = [&add](uint64_t offset, uint32_t length, uint8_t value) {
        add(Opcode::write, offset, length, filled(length, value), filled(length, value));
    };
    write(0, 4 * block_bytes, 1);
    write(2 * block_bytes + 512, 1024, 2);
    Data swap = filled(512, 2);
    const Data fresh = filled(512, 3);
    swap.insert(swap.end(), fresh.begin(), fresh.end());
    add(Opcode::compare_and_write, 2 * block_bytes + 1024, 512, swap, fresh);
    add(Opcode::write_zeroes, block_bytes, block_bytes, {}, filled(block_bytes, 0));
    write(uint64_t{5} * block_bytes, 8 * block_bytes, 4);
    add(Opcode::discard, uint64_t{6} * block_bytes, 2 * block_bytes, {},
        filled(size_t{2} * block_bytes, 0));
    add(Opcode::write_zeroes, 9 * block_bytes + 512, 5 * 512, {}, filled(5 * 512, 0));
    write(0, block_bytes, 5);
    return steps;
}

// As a client does: resends until there is an answer. A store whose tray failed is started again.
Errc insist(Rig& rig, std::unique_ptr<Peer>& peer, const Call& call) {
    for (int attempt = 0; attempt < 10; ++attempt) {
        if (!peer) {
            peer = std::make_unique<Peer>();
            peer->session = Rig::session;
            peer->shard = Rig::shard_id;
            const Errc connected = rig.try_connect(*peer);
            if (connected == Errc::io_error) rig.restart();
            if (connected != Errc::ok) {
                peer.reset();
                rig.simulation.run_for(100 * runtime::milliseconds);
                continue;
            }
        }
        const Errc status = rig.call(*peer, call);
        if (status == Errc::io_error) rig.restart();
        if (status != Errc::io_error && status != Errc::disconnected) return status;
        peer.reset();
    }
    return Errc::timed_out;
}

Data read_all(Rig& rig, std::unique_ptr<Peer>& peer) {
    Call read;
    read.opcode = Opcode::read;
    read.length = span_blocks * block_bytes;
    Data found;
    read.into = &found;
    EXPECT_EQ(insist(rig, peer, read), Errc::ok);
    return found;
}

TEST(StoreSweep, nth_failure_of_disk_or_network_loses_and_repeats_nothing) {
    uint64_t n = 1;
    for (bool reached = true; reached && n < 2000; ++n) {
        SCOPED_TRACE(n);
        Rig rig(7);
        rig.create();
        std::unique_ptr<Peer> peer = rig.connect();
        const uint64_t before = rig.server.operations_so_far();
        rig.server.fail_operation(before + n, EIO);
        Data model(span_blocks * block_bytes, std::byte{0});
        for (const Step& step : script()) {
            ASSERT_EQ(insist(rig, peer, step.call), Errc::ok) << "request " << step.call.request;
            std::copy(step.after.begin(), step.after.end(),
                      model.begin() + static_cast<ptrdiff_t>(step.at));
        }
        ASSERT_EQ(read_all(rig, peer), model);
        reached = rig.server.operations_so_far() >= before + n;
        rig.restart();
        peer.reset();
        ASSERT_EQ(read_all(rig, peer), model) << "after a restart";
    }
    EXPECT_GT(n, 20U);
}

TEST(StoreSweep, power_loss_at_any_moment_keeps_what_was_acked) {
    for (uint64_t seed = 1; seed <= 60; ++seed) {
        SCOPED_TRACE(seed);
        Rig rig(seed);
        rig.create();
        std::unique_ptr<Peer> peer = rig.connect();
        Rng rng(seed);
        rig.simulation.after(rng.below(20 * runtime::milliseconds), [&rig] {
            rig.server.power_loss();
            rig.simulation.after(runtime::milliseconds, [&rig] { rig.server.restart(); });
        });
        Data model(span_blocks * block_bytes, std::byte{0});
        for (const Step& step : script()) {
            ASSERT_EQ(insist(rig, peer, step.call), Errc::ok) << "request " << step.call.request;
            std::copy(step.after.begin(), step.after.end(),
                      model.begin() + static_cast<ptrdiff_t>(step.at));
        }
        ASSERT_EQ(read_all(rig, peer), model);
    }
}

}  // namespace
}  // namespace pf::pfs

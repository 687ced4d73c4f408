// The n-th network operation of the client fails, for every n: whatever the script asked for still
// ends well, or opening is refused; nothing hangs, nothing is applied twice.
#include "client/client_test.hpp"

namespace pf::client {
namespace {

using runtime::Task;

Task<void> script(bool* opened_ok) {
    ClusterOptions options;
    options.conductor = {"conductor", conductor_port};
    options.client_name = "sweep";
    options.depth = 4;
    auto cluster = Cluster::create(options);
    std::string name = "v";
    auto volume = co_await (*cluster)->open(name, false, false);
    if (!volume) {
        co_await (*cluster)->close();
        co_return;
    }
    *opened_ok = true;
    Volume& open = **volume;
    const auto bytes = pattern(40960, 1);
    TestIo across(IoKind::write, test_shard_bytes - 20480, bytes);
    Errc done = co_await run_io(open, across);
    EXPECT_EQ(done, Errc::ok);
    TestIo back(IoKind::read, test_shard_bytes - 20480, std::vector<std::byte>(40960));
    done = co_await run_io(open, back);
    EXPECT_EQ(done, Errc::ok);
    EXPECT_TRUE(back.bytes == bytes);
    TestIo swap(IoKind::compare_and_write, test_shard_bytes, pattern(4096, 2));
    TestIo compared(IoKind::read, 0, {bytes.begin() + 20480, bytes.begin() + 24576});
    swap.expected = compared.vectors;
    done = co_await run_io(open, swap);
    EXPECT_EQ(done, Errc::ok);
    Io zero;
    zero.kind = IoKind::write_zeroes;
    zero.offset = 512;
    zero.length = 8192;
    done = co_await run_io(open, zero);
    EXPECT_EQ(done, Errc::ok);
    Io discard;
    discard.kind = IoKind::discard;
    discard.offset = 0;
    discard.length = 5u << 20;
    done = co_await run_io(open, discard);
    EXPECT_EQ(done, Errc::ok);
    auto extents = co_await open.block_states(0, test_volume_bytes, 16);
    EXPECT_TRUE(extents.has_value());
    const Status closed = co_await open.close();
    EXPECT_TRUE(closed.has_value());
    co_await (*cluster)->close();
}

struct Sweep : ClientTest {
    void TestBody() override {}
};

TEST(Sweep, EveryNetworkOperationFailsOnce) {
    uint64_t operations = 0;
    {
        Sweep clean;
        bool opened = false;
        clean.run(script(&opened));
        EXPECT_TRUE(opened);
        operations = clean.sim.operations_so_far(clean.client);
    }
    ASSERT_GT(operations, 20u);
    int refused = 0;
    for (uint64_t n = 1; n <= operations; ++n) {
        SCOPED_TRACE(n);
        Sweep sweep;
        sweep.sim.fail_operation(sweep.client, n, ECONNRESET);
        bool opened = false;
        sweep.run(script(&opened));
        if (!opened) ++refused;
        // 2 pieces of the write, the swap, 3 of zeroes, 3 of discard.
        if (opened) {
            EXPECT_EQ(sweep.tray.applied, 9u);
        }
    }
    EXPECT_LE(refused, 8);
}

// Random faults of the network while random I/O runs; each block must hold what was last written.
Task<void> random_load(ClientTest& test, uint64_t seed) {
    Opened opened = co_await open_volume(8);
    Rng rng(seed);
    std::vector<std::byte> model(test_volume_bytes);
    for (int round = 0; round < 60; ++round) {
        const uint64_t length = (1 + rng.below(rng.chance_ppm(200'000) ? 3000 : 40)) * sector_bytes;
        const uint64_t offset =
            rng.below((test_volume_bytes - length) / sector_bytes) * sector_bytes;
        if (rng.chance_ppm(300'000)) {
            TestIo io(IoKind::read, offset, std::vector<std::byte>(length), 3584);
            const Errc done = co_await run_io(*opened.volume, io);
            EXPECT_EQ(done, Errc::ok);
            EXPECT_TRUE(std::equal(io.bytes.begin(), io.bytes.end(),
                                   model.begin() + static_cast<long>(offset)));
            continue;
        }
        TestIo io(IoKind::write, offset,
                  pattern(length, seed * 1000 + static_cast<uint64_t>(round)));
        std::ranges::copy(io.bytes, model.begin() + static_cast<long>(offset));
        if (rng.chance_ppm(100'000)) test.store.refuse_payloads = 1;
        const Errc done = co_await run_io(*opened.volume, io);
        EXPECT_EQ(done, Errc::ok);
    }
    EXPECT_TRUE(model == test.tray.bytes);
    co_await opened.close();
}

TEST(Sweep, RandomNetworkFaults) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        SCOPED_TRACE(seed);
        Sweep sweep;
        sweep.sim.network().model().late_ppm = 10'000;
        // Opening itself is not retried.
        sweep.sim.after(2 * runtime::milliseconds,
                        [&sweep] { sweep.sim.network().model().reset_ppm = 20'000; });
        sweep.run(random_load(sweep, seed));
    }
}

}  // namespace
}  // namespace pf::client

// RangeLock against a model: overlapping ranges never run together, they run in the order they
// came, and ranges that overlap nothing never wait.
#include "store/range_lock.hpp"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <vector>

#include "runtime/sim/simulation.hpp"

namespace pf::pfs {
namespace {

using runtime::Task;
namespace sim = runtime::sim;

struct World {
    RangeLock lock;
    std::vector<std::pair<uint32_t, uint32_t>> held;           // first, last
    std::map<uint32_t, std::vector<uint64_t>> order_by_block;  // who held it, in turn
    uint64_t finished = 0;
    uint64_t waited = 0;
};

Task<void> hold(World& world, uint64_t id, uint32_t first, uint32_t count, runtime::Nanos time) {
    const uint32_t last = first + count - 1;
    RangeLock::Range range(first, count);
    const runtime::Nanos before = runtime::Reactor::current().now();
    co_await world.lock.lock(range);
    if (runtime::Reactor::current().now() != before) ++world.waited;
    for (const auto& [other_first, other_last] : world.held) {
        EXPECT_FALSE(first <= other_last && other_first <= last) << "overlapping holders";
    }
    world.held.emplace_back(first, last);
    for (uint32_t block = first; block <= last; ++block) world.order_by_block[block].push_back(id);
    co_await runtime::sleep_for(time);
    std::erase(world.held, std::pair(first, last));
    world.lock.unlock(range);
    ++world.finished;
}

TEST(RangeLock, OverlappingRangesRunInOrderAndNeverTogether) {
    for (uint64_t seed = 1; seed <= 50; ++seed) {
        sim::Simulation simulation({.seed = seed});
        sim::SimNode& node = simulation.add_node("a");
        node.start();
        World world;
        constexpr uint64_t operations = 300;
        Rng rng(seed);
        for (uint64_t id = 0; id < operations; ++id) {
            const auto count = static_cast<uint32_t>(rng.between(1, 16));
            // Three chunks, two of them in the same bucket.
            const uint32_t chunk = static_cast<uint32_t>(rng.below(3)) * 64 / 2;
            const auto offset = static_cast<uint32_t>(rng.below(32));
            node.reactor().spawn(hold(world, id, chunk * blocks_per_chunk + offset, count,
                                      rng.between(1, 100) * runtime::microseconds));
        }
        simulation.run_until_idle();
        EXPECT_EQ(world.finished, operations);
        for (const auto& [block, order] : world.order_by_block) {
            EXPECT_TRUE(std::is_sorted(order.begin(), order.end())) << "block " << block;
        }
    }
}

TEST(RangeLock, DisjointRangesDoNotWait) {
    sim::Simulation simulation({.seed = 1});
    sim::SimNode& node = simulation.add_node("a");
    node.start();
    World world;
    for (uint32_t i = 0; i < 64; ++i) {
        node.reactor().spawn(hold(world, i, i * 8, 8, runtime::milliseconds));
    }
    simulation.run_until_idle();
    EXPECT_EQ(world.finished, 64U);
    EXPECT_EQ(world.waited, 0U);
}

}  // namespace
}  // namespace pf::pfs

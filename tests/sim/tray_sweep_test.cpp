// The n-th disk operation of a tray fails, for every n from its first mount on: writes of all
// kinds, reads, generations, sessions, voids, checkpoints and the stop. The tray fails or goes on,
// never anything between; mounted again it holds what it answered for and nothing half.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "runtime/sim/simulation.hpp"
#include "tray_check.hpp"
#include "tray_machine.hpp"
#include "tray_workload.hpp"

namespace pf::test {
namespace {

using runtime::Task;

WorkloadOptions load(uint64_t seed) {
    WorkloadOptions options;
    options.seed = seed;
    options.operations = 40;
    options.shard_blocks = 2 * blocks_per_chunk;
    options.max_blocks = 8;
    options.checkpoint_percent = 10;
    options.generation_percent = 20;
    return options;
}

// An error that a failed disk operation may cause; without one there is none.
bool allowed(const Error& error, bool failing) {
    return failing && (error.code == Errc::io_error || error.code == Errc::cancelled);
}

Task<std::string> live(Process& process, TrayModel& model, uint64_t seed, bool failing) {
    auto tray = co_await open_tray(process, false);
    if (!tray) co_return allowed(tray.error(), failing) ? "" : "mount: " + tray.error().text();
    Workload workload(**tray, model, load(seed));
    Status done = co_await workload.run();
    if (!done && !allowed(done.error(), failing)) co_return "operation: " + done.error().text();
    const bool failed = (*tray)->failed();
    if (!done && !failed) {
        // Only a read may fail alone.
        if (done.error().code != Errc::io_error)
            co_return "it failed alone: " + done.error().text();
    }
    if (failed) {
        const Status after = co_await (*tray)->checkpoint();
        if (after) co_return "a failed tray went on";
    }
    Status stopped = co_await (*tray)->stop();
    if (!stopped && !allowed(stopped.error(), failing)) co_return "stop: " + stopped.error().text();
    co_return "";
}

Task<std::string> check(Process& process, TrayModel& model) {
    auto tray = co_await open_tray(process, false);
    if (!tray) co_return "mount: " + tray.error().text();
    co_return co_await check_and_settle(**tray, model);
}

Task<std::string> format_only(Process& process) {
    auto tray = co_await open_tray(process, true);
    if (!tray) co_return tray.error().text();
    Status stopped = co_await process.tray->stop();
    co_return stopped ? "" : stopped.error().text();
}

// A tray with its shards, and nothing done to them.
Task<std::string> prepare(Process& process, TrayModel& model, uint64_t seed) {
    auto tray = co_await open_tray(process, true);
    if (!tray) co_return tray.error().text();
    WorkloadOptions options = load(seed);
    options.operations = 0;
    Workload workload(**tray, model, options);
    Status done = co_await workload.run();
    if (done) done = co_await (*tray)->stop();
    co_return done ? "" : done.error().text();
}

// What broke, or nothing.
std::string run(uint64_t seed, uint64_t n, bool power_loss, bool& reached) {
    Machine machine(MachineShape::draw(seed));
    TrayModel model;
    const auto task = [&machine](Task<std::string> work) {
        return machine.sim().run_task(machine.node(), std::move(work)).value_or("it did not end");
    };
    machine.start();
    std::string wrong = task(prepare(machine.process(), model, seed));
    if (!wrong.empty()) return "format: " + wrong;
    machine.restart();
    const uint64_t target = machine.node().operations_so_far() + n;
    machine.node().fail_operation(target, EIO);
    wrong = task(live(machine.process(), model, seed, true));
    reached = machine.node().operations_so_far() >= target;
    if (!wrong.empty()) return wrong;
    if (power_loss) machine.node().power_loss();
    machine.restart();
    // The operations in flight when the tray failed are there or not; what it answered is there.
    wrong = task(check(machine.process(), model));
    return wrong.empty() ? wrong : "after a restart: " + wrong;
}

TEST(TraySweep, every_failing_disk_operation) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        bool reached = true;
        uint64_t n = 1;
        for (; reached; ++n) {
            const std::string wrong = run(seed, n, n % 2 == 0, reached);
            ASSERT_EQ(wrong, "") << "seed " << seed << ", operation " << n;
        }
        EXPECT_GT(n, 100u) << "seed " << seed;
    }
}

// A format that fails leaves no tray, or a whole one, and a second one succeeds.
TEST(TraySweep, every_failing_disk_operation_of_a_format) {
    for (uint64_t n = 1; n < 200; ++n) {
        Machine machine(MachineShape::draw(7));
        machine.start();
        machine.node().fail_operation(n, EIO);
        const auto first = machine.sim().run_task(machine.node(), format_only(machine.process()));
        ASSERT_TRUE(first.has_value());
        if (machine.node().operations_so_far() < n) {
            EXPECT_EQ(*first, "");
            EXPECT_GT(n, 10u);
            return;
        }
        machine.restart();
        TrayModel model;
        const auto mounted =
            machine.sim().run_task(machine.node(), check(machine.process(), model));
        ASSERT_TRUE(mounted.has_value());
        if (mounted->empty()) continue;
        EXPECT_NE(mounted->find("not a tray"), std::string::npos) << n << ": " << *mounted;
    }
    FAIL() << "a format has no end";
}

}  // namespace
}  // namespace pf::test

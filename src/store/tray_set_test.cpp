// Trays of a store as a set: what happens when one cannot be had at once.
#include "store/tray_set.hpp"

#include <gtest/gtest.h>

#include "runtime/sim/simulation.hpp"

namespace pf::pfs {
namespace {

namespace sim = runtime::sim;
using runtime::Task;

const Uuid cluster = Uuid::from_random(5, 6);

Task<void> let_go_after(std::unique_ptr<runtime::Disk> disk, runtime::Nanos delay) {
    co_await runtime::sleep_for(delay);
    disk.reset();
}

// Mounts a tray whose disk another holds for `held`; returns what the slot says, empty if it
// serves.
Task<std::string> mount_held(runtime::Nanos held) {
    runtime::Reactor& reactor = runtime::Reactor::current();
    runtime::DiskOptions disk_options;
    Task<Result<std::unique_ptr<runtime::Disk>>> opening = reactor.open_disk("disk0", disk_options);
    Result<std::unique_ptr<runtime::Disk>> disk = co_await opening;
    tray::FormatOptions format;
    format.cluster = cluster;
    format.tray = Uuid::from_random(7, 8);
    Task<Status> formatting = tray::Tray::format(**disk, format);
    const Status formatted = co_await formatting;
    EXPECT_TRUE(formatted.has_value());
    reactor.spawn(let_go_after(std::move(*disk), held));

    tray::MountOptions mount;
    mount.cluster = cluster;
    TraySet trays(reactor, mount);
    TrayPlace place{"disk0", {}};
    Task<void> mounting = trays.mount(place);
    co_await mounting;
    const TraySlot& slot = *trays.slots().front();
    const std::string problem = slot.serves() ? "" : slot.problem;
    Task<void> stopping = trays.stop();
    co_await stopping;
    co_return problem;
}

std::string mount_held_for(runtime::Nanos held) {
    sim::Simulation simulation({.seed = 1});
    sim::SimNode& node = simulation.add_node("store");
    sim::DiskModel model;
    model.size_bytes = uint64_t{64} << 20;
    node.add_disk("disk0", model);
    node.start();
    const auto problem = simulation.run_task(node, mount_held(held));
    return problem.value_or("did not end");
}

// Found by kill_loop.sh, seed 8046: a server started within milliseconds of the SIGKILL of the last
// one found its tray locked, gave it up for good, and clients waited for ever.
TEST(TraySet, regression_mount_waits_for_a_disk_that_the_killed_process_still_holds) {
    EXPECT_EQ(mount_held_for(300 * runtime::milliseconds), "");
}

TEST(TraySet, a_disk_that_stays_in_use_is_reported) {
    EXPECT_NE(mount_held_for(60 * runtime::seconds).find("already open"), std::string::npos);
}

Task<Status> format_as(const char* name, Uuid id) {
    runtime::DiskOptions disk_options;
    Task<Result<std::unique_ptr<runtime::Disk>>> opening =
        runtime::Reactor::current().open_disk(name, disk_options);
    PF_CO_TRY_ASSIGN(const std::unique_ptr<runtime::Disk> disk, co_await opening);
    tray::FormatOptions format;
    format.cluster = cluster;
    format.tray = id;
    Task<Status> formatting = tray::Tray::format(*disk, format);
    const Status formatted = co_await formatting;
    co_return formatted;
}

// What adding disk1 says when it is a copy of disk0, which is mounted.
Task<Error> add_copy() {
    for (const char* name : {"disk0", "disk1"}) {
        Task<Status> formatting = format_as(name, Uuid::from_random(7, 8));
        const Status formatted = co_await formatting;
        EXPECT_TRUE(formatted.has_value());
    }
    tray::MountOptions mount;
    mount.cluster = cluster;
    TraySet trays(runtime::Reactor::current(), mount);
    TrayPlace place{"disk0", {}};
    Task<void> mounting = trays.mount(place);
    co_await mounting;
    AddTray copy;
    copy.path = "disk1";
    Task<Result<TraySlot*>> adding = trays.add(copy);
    const Result<TraySlot*> added = co_await adding;
    EXPECT_EQ(trays.slots().size(), 1u);
    EXPECT_TRUE(trays.slots().front()->serves());
    Task<void> stopping = trays.stop();
    co_await stopping;
    co_return added ? Error{Errc::ok, ""} : added.error();
}

// Found by hand: adding a copy of a tray's file ended the store, because the copy was mounted and
// then dropped without a stop.
TEST(TraySet, regression_a_copy_of_a_tray_is_refused) {
    sim::Simulation simulation({.seed = 1});
    sim::SimNode& node = simulation.add_node("store");
    sim::DiskModel model;
    model.size_bytes = uint64_t{64} << 20;
    node.add_disk("disk0", model);
    node.add_disk("disk1", model);
    node.start();
    const auto refused = simulation.run_task(node, add_copy());
    ASSERT_TRUE(refused.has_value());
    EXPECT_EQ(refused->code, Errc::already_exists);
    EXPECT_NE(refused->message.find("disk0"), std::string::npos) << refused->message;
}

}  // namespace
}  // namespace pf::pfs

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

Task<Status> format_as(const char* name, Uuid id, Uuid of_cluster = cluster) {
    runtime::DiskOptions disk_options;
    Task<Result<std::unique_ptr<runtime::Disk>>> opening =
        runtime::Reactor::current().open_disk(name, disk_options);
    PF_CO_TRY_ASSIGN(const std::unique_ptr<runtime::Disk> disk, co_await opening);
    tray::FormatOptions format;
    format.cluster = of_cluster;
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

// What adding disk1 says, which is the tray that the list has at `known_at`.
Task<Errc> add_moved(std::string known_at) {
    const Uuid id = Uuid::from_random(7, 8);
    Task<Status> formatting = format_as("disk1", id);
    EXPECT_TRUE(co_await formatting);
    tray::MountOptions mount;
    mount.cluster = cluster;
    TraySet trays(runtime::Reactor::current(), mount);
    Task<void> mounting = trays.mount({known_at, id});
    co_await mounting;
    EXPECT_FALSE(trays.slots().front()->serves());
    AddTray add;
    add.path = "disk1";
    Task<Result<TraySlot*>> adding = trays.add(add);
    const Result<TraySlot*> added = co_await adding;
    EXPECT_EQ(trays.slots().size(), 1U);
    EXPECT_EQ(trays.slots().front()->serves(), added.has_value());
    EXPECT_EQ(trays.slots().front()->path, added ? "disk1" : known_at);
    Task<void> stopping = trays.stop();
    co_await stopping;
    co_return added ? Errc::ok : added.error().code;
}

Task<Errc> add_moved_from(std::string known_at, Uuid there, Uuid of_cluster) {
    if (!there.is_zero()) {
        Task<Status> formatting = format_as(known_at.c_str(), there, of_cluster);
        EXPECT_TRUE(co_await formatting);
    }
    Task<Errc> adding = add_moved(known_at);
    const Errc added = co_await adding;
    co_return added;
}

// Found by hand: a disk that had become another name was called a copy of its own tray, and no
// command took it at its new path.
TEST(TraySet, regression_a_tray_is_taken_at_its_new_path) {
    const auto add = [](const char* known_at, Uuid there, Uuid of_cluster, bool unreadable) {
        sim::Simulation simulation({.seed = 1});
        sim::SimNode& node = simulation.add_node("store");
        node.add_disk("disk0", {.size_bytes = uint64_t{64} << 20});
        node.add_disk("disk1", {.size_bytes = uint64_t{64} << 20});
        if (unreadable) {
            node.find_disk("disk0")->inject(
                {.operations = sim::DiskFault::on_read, .count = sim::DiskFault::forever});
        }
        node.start();
        return simulation.run_task(node, add_moved_from(known_at, there, of_cluster)).value();
    };
    const Uuid other = Uuid::from_random(1, 1);
    EXPECT_EQ(add("missing", {}, {}, false), Errc::ok);
    EXPECT_EQ(add("disk0", {}, {}, false), Errc::ok) << "blank";
    EXPECT_EQ(add("disk0", other, other, false), Errc::ok) << "of another cluster";
    EXPECT_EQ(add("disk0", Uuid::from_random(7, 8), other, false), Errc::already_exists);
    EXPECT_EQ(add("disk0", {}, {}, true), Errc::already_exists) << "nobody knows what is there";
}

Task<Status> wipe(const char* name) {
    runtime::Reactor& reactor = runtime::Reactor::current();
    Task<Result<std::unique_ptr<runtime::Disk>>> opening = reactor.open_disk(name, {});
    PF_CO_TRY_ASSIGN(const std::unique_ptr<runtime::Disk> disk, co_await opening);
    runtime::Buffer zeros = co_await reactor.buffers().allocate(size_t{1} << 20);
    std::ranges::fill(zeros.bytes(), std::byte{0});
    for (uint64_t at = 0; at < disk->size_bytes(); at += zeros.size()) {
        PF_CO_TRY(co_await disk->write(at, zeros.bytes()));
    }
    co_return co_await disk->flush();
}

// What adding the wiped disk0 says, without and with force.
Task<std::pair<Errc, Errc>> add_wiped(Uuid known_as, bool mount_only) {
    Task<Status> wiping = wipe("disk0");
    EXPECT_TRUE(co_await wiping);
    tray::MountOptions mount;
    mount.cluster = cluster;
    TraySet trays(runtime::Reactor::current(), mount);
    if (!known_as.is_zero()) {
        Task<void> mounting = trays.mount({"disk0", known_as});
        co_await mounting;
    }
    AddTray add;
    add.path = "disk0";
    add.mount_only = mount_only;
    Task<Result<TraySlot*>> adding = trays.add(add);
    const Result<TraySlot*> refused = co_await adding;
    add.force = true;
    Task<Result<TraySlot*>> insisting = trays.add(add);
    const Result<TraySlot*> forced = co_await insisting;
    Task<void> stopping = trays.stop();
    co_await stopping;
    co_return std::pair(refused ? Errc::ok : refused.error().code,
                        forced ? Errc::ok : forced.error().code);
}

// Found by hand: a tray of the store's own list that had lost both superblocks was formatted by
// `tray add` without --force, and its volumes were gone.
TEST(TraySet, regression_a_place_that_had_a_tray_is_not_formatted_without_force) {
    const auto add = [](Uuid known_as, bool mount_only) {
        sim::Simulation simulation({.seed = 1});
        sim::SimNode& node = simulation.add_node("store");
        node.add_disk("disk0", {.size_bytes = uint64_t{64} << 20});
        node.start();
        return simulation.run_task(node, add_wiped(known_as, mount_only)).value();
    };
    using Answers = std::pair<Errc, Errc>;
    EXPECT_EQ(add(Uuid::from_random(7, 8), false), Answers(Errc::conflict, Errc::ok));
    EXPECT_EQ(add({}, true), Answers(Errc::conflict, Errc::ok)) << "the conductor knows it";
    EXPECT_EQ(add({}, false).first, Errc::ok) << "a blank disk";
}

Task<Errc> add_path(std::string path) {
    TraySet trays(runtime::Reactor::current(), {});
    AddTray add;
    add.path = std::move(path);
    Task<Result<TraySlot*>> adding = trays.add(add);
    const Result<TraySlot*> added = co_await adding;
    co_return added ? Errc::ok : added.error().code;
}

// Found by hand: a tray was accepted whose path had a line break, and the store could never again
// read its list of trays.
TEST(TraySet, regression_a_path_with_control_characters_is_refused) {
    for (const char* path : {"/x/new\nline.img", "/x/\x01", "/x/\x7f"}) {
        sim::Simulation simulation({.seed = 1});
        sim::SimNode& node = simulation.add_node("store");
        node.start();
        EXPECT_EQ(simulation.run_task(node, add_path(path)), Errc::invalid_argument);
    }
}

}  // namespace
}  // namespace pf::pfs

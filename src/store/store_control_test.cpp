// What the conductor tells a store: shards, trays and accepted losses (T7), again and at once.
#include "store/rig_test.hpp"

namespace pf::pfs {
namespace {

using wire::Opcode;

Status remove_shard(Rig& rig) {
    pureflash::v1::DeleteShardsRequest request;
    request.set_tray_uuid(rig.tray_uuid);
    request.add_shard_ids(Rig::shard_id);
    return rig.on_server(rig.store().delete_shards(request));
}

TEST(StoreControl, a_delete_that_the_tray_did_not_take_is_not_called_done) {
    Rig rig;
    rig.create();
    rig.disk.inject({.operations = sim::DiskFault::on_write, .count = sim::DiskFault::forever});
    EXPECT_FALSE(remove_shard(rig));
    EXPECT_FALSE(remove_shard(rig)) << "told again";
    rig.disk.clear_faults();
    rig.restart();  // it may be back: a write that failed may have reached the medium or not
    EXPECT_TRUE(remove_shard(rig));
    EXPECT_TRUE(remove_shard(rig));
    rig.restart();
    EXPECT_EQ(rig.store().worker(0).find_shard(Rig::shard_id), nullptr);
}

// With more volumes in use than a heartbeat may name, the conductor refused it, and the store came
// back to the cluster again and again.
TEST(StoreControl, regression_a_heartbeat_names_the_busiest_volumes_only) {
    VolumeLoads loads;
    for (uint64_t volume = 1; volume <= 5000; ++volume)
        loads.push_back({volume, {.reads = volume % 7, .writes = volume == 17 ? 100u : 0u}});
    const VolumeLoads named = busiest(loads, 4096);
    ASSERT_EQ(named.size(), 4096u);
    EXPECT_EQ(named.front().first, 17u);
    for (const auto& [volume, load] : named) EXPECT_GT(load.reads + load.writes, 0u) << volume;
    EXPECT_EQ(busiest({{1, {}}, {2, {}}}, 4096).size(), 2u);
}

// A shard that cannot be made keeps none of the others away, and is not called made.
TEST(StoreControl, shards_of_one_call_are_made_whatever_becomes_of_one) {
    Rig rig;
    rig.create();
    pureflash::v1::ApplyShardsRequest all;
    const auto add = [&](uint64_t id, const std::string& tray, uint64_t bytes) {
        pureflash::v1::ApplyShard& request = *all.add_shards();
        request.set_tray_uuid(tray);
        request.set_replica_uuid(Uuid::from_random(1, 2).text());
        request.set_fresh(true);
        request.mutable_shard()->set_id(id);
        request.mutable_shard()->set_epoch(1);
        request.mutable_shard()->set_size_bytes(bytes);
    };
    constexpr uint64_t first = uint64_t{9} << 16;
    for (uint64_t id = first; id < first + 100; ++id) add(id, rig.tray_uuid, block_bytes);
    add(first + 100, rig.tray_uuid, 1);
    add(first + 101, Uuid::from_random(8, 8).text(), block_bytes);
    add(first + 102, "no uuid", block_bytes);
    add(first + 103, rig.tray_uuid, block_bytes);
    add(first, rig.tray_uuid, block_bytes);
    const uint64_t before =
        rig.disk.counters().operations[static_cast<size_t>(runtime::DiskOp::Kind::flush)];
    const Status applied = rig.on_server(rig.store().apply_shards(all));
    ASSERT_FALSE(applied);
    EXPECT_EQ(applied.error().code, Errc::invalid_argument);
    EXPECT_LE(rig.disk.counters().operations[static_cast<size_t>(runtime::DiskOp::Kind::flush)],
              before + 10);
    const auto expect_made = [&] {
        for (uint64_t id = first; id < first + 104; ++id) {
            const bool made = id < first + 100 || id == first + 103;
            EXPECT_EQ(rig.store().worker(0).find_shard(id) != nullptr, made) << id - first;
        }
    };
    expect_made();
    EXPECT_FALSE(rig.on_server(rig.store().apply_shards(all))) << "told again";
    expect_made();
    rig.restart();
    expect_made();
    EXPECT_FALSE(rig.store().worker(0).find_shard(first)->state().damaged);
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

Errc remove_tray(Rig& rig, bool force) {
    pureflash::v1::RemoveTrayRequest request;
    request.set_tray_uuid(rig.tray_uuid);
    request.set_force(force);
    const Status removed = rig.on_server(rig.store().remove_tray(request));
    return removed ? Errc::ok : removed.error().code;
}

// Found by hand, on a full disk: the tray was let go of, the list kept it, the second `tray remove`
// was answered "removed", and the next start brought the tray back.
TEST(StoreControl, regression_a_tray_whose_removal_cannot_be_saved_stays) {
    Rig rig;
    rig.create();
    EXPECT_EQ(remove_tray(rig, false), Errc::busy);
    ASSERT_EQ(rig.trays.size(), 1U) << "refused, and still listed";
    rig.list_fails = true;
    EXPECT_EQ(remove_tray(rig, true), Errc::no_space);
    EXPECT_EQ(remove_tray(rig, true), Errc::no_space);
    EXPECT_NE(rig.store().worker(0).find_shard(Rig::shard_id), nullptr);
    rig.list_fails = false;
    EXPECT_EQ(remove_tray(rig, true), Errc::ok);
    EXPECT_TRUE(rig.trays.empty());
    EXPECT_EQ(remove_tray(rig, true), Errc::not_found);
}

TEST(StoreControl, regression_a_tray_that_was_moved_serves_at_its_new_path) {
    Rig rig;
    rig.create();
    rig.trays.front().path = "old";
    rig.restart();
    ASSERT_EQ(rig.store().worker(0).find_shard(Rig::shard_id), nullptr);
    ASSERT_TRUE(rig.on_server(rig.add_tray()));
    EXPECT_NE(rig.store().worker(0).find_shard(Rig::shard_id), nullptr);
    ASSERT_EQ(rig.trays.size(), 1U);
    EXPECT_EQ(rig.trays.front().path, "disk0");
    EXPECT_EQ(rig.trays.front().id.text(), rig.tray_uuid);
    rig.restart();
    EXPECT_NE(rig.store().worker(0).find_shard(Rig::shard_id), nullptr);
}

// A list that still has it is replaced before the tray is called gone.
TEST(StoreControl, a_tray_that_is_not_there_is_gone_once_the_list_says_so) {
    Rig rig;
    rig.create();
    const std::vector<TrayPlace> listed = rig.trays;
    ASSERT_EQ(remove_tray(rig, true), Errc::ok);
    rig.trays = listed;
    rig.list_fails = true;
    EXPECT_EQ(remove_tray(rig, true), Errc::no_space);
    rig.list_fails = false;
    EXPECT_EQ(remove_tray(rig, true), Errc::not_found);
    EXPECT_TRUE(rig.trays.empty());
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

// Where the trays of the store are, by their names here; "" for those that are not mounted.
std::map<std::string, std::string> served(Rig& rig, const std::map<std::string, Uuid>& names) {
    std::map<std::string, std::string> found;
    for (const auto& tray : rig.store().worker(0).describe_trays()) {
        for (const auto& [name, id] : names) {
            if (tray.uuid() != id.text()) continue;
            const bool serves = tray.health() == pureflash::v1::HEALTH_OK;
            EXPECT_TRUE(found.emplace(name, serves ? tray.path() : "").second) << "twice: " << name;
        }
    }
    return found;
}

// Failed: the tray that was at the path of another one was mounted in its place, and was reported
// a second time as missing.
TEST(StoreControl, regression_trays_whose_disks_changed_names_are_not_taken_for_each_other) {
    using Found = std::map<std::string, std::string>;
    Rig rig;
    rig.server.add_disk("disk1", {.size_bytes = uint64_t{64} << 20});
    rig.restart();
    rig.server.reactor().spawn(add_tray(rig.store(), "disk0"));
    rig.server.reactor().spawn(add_tray(rig.store(), "disk1"));
    rig.simulation.run_for(10 * runtime::seconds);
    ASSERT_EQ(rig.trays.size(), 2U);
    std::map<std::string, Uuid> names;
    for (const TrayPlace& place : rig.trays) names[place.path == "disk0" ? "A" : "B"] = place.id;
    const auto start = [&](std::vector<TrayPlace> listed) {
        rig.trays = std::move(listed);
        rig.restart();
        return served(rig, names);
    };
    const Uuid a = names["A"];
    const Uuid b = names["B"];
    EXPECT_EQ(start({{"disk1", a}, {"disk0", b}}), Found({{"A", "disk0"}, {"B", "disk1"}}));
    EXPECT_EQ(start({{"disk0", {}}, {"gone", a}}), Found({{"A", "disk0"}}));
    EXPECT_EQ(rig.store().worker(0).numbers().trays.size(), 1U);
    for (const bool b_first : {false, true}) {
        std::vector<TrayPlace> listed = {{"gone", a}, {"disk0", b}};
        if (b_first) std::ranges::reverse(listed);
        EXPECT_EQ(start(listed), Found({{"A", "disk0"}, {"B", ""}}));
        rig.server.reactor().spawn(add_tray(rig.store(), "disk1"));
        rig.simulation.run_for(10 * runtime::seconds);
        EXPECT_EQ(served(rig, names), Found({{"A", "disk0"}, {"B", "disk1"}}));
        EXPECT_EQ(start(rig.trays), Found({{"A", "disk0"}, {"B", "disk1"}}));
    }
}

TEST(StoreControl, a_loss_accepted_while_the_shard_is_told_its_state_stays_accepted) {
    Rig rig;
    rig.create();
    ASSERT_TRUE(remove_shard(rig));
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
    constexpr uint64_t log_begin = uint64_t{3} * block_bytes;
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
        const Status removed = remove_shard(rig);
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

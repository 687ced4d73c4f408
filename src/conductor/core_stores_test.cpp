// Stores and trays as the core knows them: heartbeats, identities, epochs after a restart (R1,
// R16).
#include "conductor/core_test.hpp"

namespace pf::conductor {
namespace {

TEST_F(CoreTest, MissedHeartbeatsMeanOffline) {
    ASSERT_TRUE(register_store(1, 1));
    ASSERT_TRUE(create("vol", gib));
    v1::HeartbeatRequest beat;
    beat.set_store_id(1);
    for (int i = 0; i < 10; ++i) {
        reactor_.run_for(seconds);
        const auto reply = core_->heartbeat(beat);
        ASSERT_TRUE(reply);
        EXPECT_FALSE(reply->register_again());
    }
    EXPECT_EQ(core_->status().stores_online, 1u);
    reactor_.run_for(6 * seconds);
    EXPECT_EQ(core_->status().stores_online, 0u);
    EXPECT_EQ(core_->show_volume("vol")->health(), v1::HEALTH_OFFLINE);
    EXPECT_TRUE(core_->heartbeat(beat)->register_again());
    ASSERT_TRUE(register_store(1, 1));
    EXPECT_EQ(core_->show_volume("vol")->health(), v1::HEALTH_OK);
    beat.set_stopping(true);
    EXPECT_FALSE(core_->heartbeat(beat)->register_again());
    EXPECT_EQ(core_->status().stores_online, 0u);
}

// Found by hand: a tray that its store had lost stayed ok, and volumes were placed on it.
TEST_F(CoreTest, regression_a_tray_that_is_not_reported_any_more_is_offline) {
    ASSERT_TRUE(register_store(1, 2, 5));
    ASSERT_TRUE(create("vol", 8 * gib, 1, gib));
    const auto beat = [&](const std::set<uint32_t>& trays, uint64_t incarnation) {
        v1::HeartbeatRequest request;
        request.set_store_id(1);
        for (const uint32_t tray : trays) {
            auto& report = *request.add_trays();
            report.set_uuid(tray_uuid(1, tray));
            report.set_incarnation(incarnation);
            report.set_capacity_bytes(100 * gib);
            report.set_free_bytes(100 * gib);
        }
        const auto reply = core_->heartbeat(request);
        ASSERT_TRUE(reply);
        EXPECT_FALSE(reply->register_again());
        reactor_.run_for(100 * milliseconds);
    };
    const auto health = [&](uint32_t tray) {
        return core_->cluster().show(core_->cluster().trays.at(tray_uuid(1, tray))).health();
    };
    beat({0, 1}, 5);
    beat({1}, 5);
    EXPECT_EQ(health(0), v1::HEALTH_OFFLINE);
    EXPECT_EQ(health(1), v1::HEALTH_OK);
    EXPECT_EQ(core_->show_volume("vol")->health(), v1::HEALTH_OFFLINE);
    EXPECT_EQ(core_->status().trays_ok, 1u);
    ASSERT_TRUE(create("other", 8 * gib, 1, gib));
    const auto& other = *core_->cluster().find_volume("other").value();
    EXPECT_EQ(other.tray_uuids(), std::set<std::string>{tray_uuid(1, 1)});
    beat({}, 5);
    EXPECT_EQ(create("none", gib).error().code, Errc::unavailable);
    beat({0, 1}, 5);
    EXPECT_EQ(health(0), v1::HEALTH_OK);
    EXPECT_EQ(core_->show_volume("vol")->health(), v1::HEALTH_OK);
}

// R1: one that went while its shards were given their epochs is given them when it is back.
TEST_F(CoreTest, rule_01_a_tray_that_was_away_for_a_heartbeat_gets_its_epochs) {
    ASSERT_TRUE(register_store(1, 1, 5));
    ASSERT_TRUE(create("vol", gib));
    const auto epoch = [&] { return fake(1).shards.begin()->second.shard().epoch(); };
    fake(1).lost_trays = {tray_uuid(1, 0)};
    ASSERT_TRUE(register_store(1, 1, 6));
    v1::HeartbeatRequest request;
    request.set_store_id(1);
    ASSERT_TRUE(core_->heartbeat(request));
    fake(1).lost_trays.clear();
    reactor_.run_for(2 * seconds);
    EXPECT_EQ(epoch(), 1u);
    auto& report = *request.add_trays();
    report.set_uuid(tray_uuid(1, 0));
    report.set_incarnation(6);
    ASSERT_TRUE(core_->heartbeat(request));
    reactor_.run_for(seconds);
    EXPECT_EQ(epoch(), 2u);
    EXPECT_EQ(core_->list_trays()[0].incarnation(), 6u);
}

// R1: after each mount new epochs; after a restart of the conductor alone, the same ones.
TEST_F(CoreTest, rule_01_a_mounted_tray_gets_new_epochs) {
    ASSERT_TRUE(register_store(1, 1, 5));
    ASSERT_TRUE(create("vol", gib));
    const uint64_t id = fake(1).shards.begin()->first;
    const auto epoch = [&] { return fake(1).shards.at(id).shard().epoch(); };
    EXPECT_EQ(epoch(), 1u);
    ASSERT_TRUE(register_store(1, 1, 6));
    EXPECT_EQ(epoch(), 2u);
    ASSERT_TRUE(register_store(1, 1, 6));
    EXPECT_EQ(epoch(), 2u);
    restart();
    ASSERT_TRUE(register_store(1, 1, 6));
    EXPECT_EQ(epoch(), 2u);
    // The store does not hear of the epoch at first: it is brought there all the same.
    fake(1).fail_after = 0;
    ASSERT_TRUE(register_store(1, 1, 7));
    EXPECT_EQ(epoch(), 2u);
    fake(1).fail_after = UINT32_MAX;
    reactor_.run_for(2 * seconds);
    EXPECT_GT(epoch(), 2u);
}

// The epochs of the shards on the good tray rose twice a second, and its volumes' I/O was refused.
TEST_F(CoreTest, regression_a_bad_tray_keeps_the_other_ones_of_its_store_from_nothing) {
    ASSERT_TRUE(register_store(1, 2, 5));
    ASSERT_TRUE(create("vol", 8 * gib, 1, gib));
    const auto epochs_on = [&](uint32_t tray) {
        std::set<uint32_t> epochs;
        for (const auto& [id, shard] : fake(1).shards) {
            if (shard.tray_uuid() == tray_uuid(1, tray)) epochs.insert(shard.shard().epoch());
        }
        return epochs;
    };
    const auto incarnation_of = [&](uint32_t tray) {
        return core_->cluster().trays.at(tray_uuid(1, tray)).record.incarnation();
    };
    ASSERT_EQ(epochs_on(0), std::set<uint32_t>{1});
    ASSERT_EQ(epochs_on(1), std::set<uint32_t>{1});
    for (const uint32_t bad : {0u, 1u}) {
        fake(1).lost_trays = {tray_uuid(1, bad)};
        const uint64_t incarnation = 6 + bad;
        const std::set<uint32_t> before = epochs_on(bad);
        ASSERT_TRUE(register_store(1, 2, incarnation));
        reactor_.run_for(1500 * milliseconds);
        EXPECT_EQ(epochs_on(1 - bad), std::set<uint32_t>{2 + bad});
        EXPECT_EQ(epochs_on(bad), before);
        EXPECT_EQ(incarnation_of(1 - bad), incarnation);
        EXPECT_LT(incarnation_of(bad), incarnation);
        fake(1).lost_trays.clear();
        reactor_.run_for(seconds);
        EXPECT_EQ(epochs_on(bad), std::set<uint32_t>{2 + bad});
        EXPECT_EQ(incarnation_of(bad), incarnation);
    }
}

TEST_F(CoreTest, regression_a_copy_of_a_tray_does_no_harm_to_it) {
    ASSERT_TRUE(register_store(1, 1, 5));
    ASSERT_TRUE(create("vol", gib));
    ASSERT_TRUE(register_store(2, 1, 1));
    v1::HeartbeatRequest request;
    request.set_store_id(2);
    v1::Tray copy;
    copy.set_uuid(tray_uuid(1, 0));
    copy.set_incarnation(9);
    *request.add_trays() = copy;
    const uint64_t before = core_->cluster().stores.at(2).registration;
    ASSERT_TRUE(core_->heartbeat(request));
    EXPECT_EQ(core_->cluster().stores.at(2).registration, before) << "activated again";
    EXPECT_EQ(core_->show_volume("vol")->health(), v1::HEALTH_OK);
    // Where it does not serve, the operator is told where it went.
    request.set_store_id(1);
    request.clear_trays();
    request.set_stopping(true);
    ASSERT_TRUE(core_->heartbeat(request));
    request.set_stopping(false);
    request.set_store_id(2);
    *request.add_trays() = copy;
    ASSERT_TRUE(core_->heartbeat(request));
    EXPECT_TRUE(core_->cluster().trays.at(tray_uuid(1, 0)).refused);
}

// A tray that goes after the placement, before its store is told: no volume without its shards.
TEST_F(CoreTest, regression_a_tray_goes_while_a_volume_is_placed_on_it) {
    for (uint64_t until = 0; until < 100; until += 5) {
        ASSERT_TRUE(register_store(1, 1, until + 1));
        v1::CreateVolumeRequest request;
        request.set_name("vol");
        request.set_size_bytes(gib);
        bool created = false;
        reactor_.spawn(create_and_note(*core_, std::move(request), created));
        reactor_.run_for(until * runtime::microseconds);
        v1::RemoveTrayRequest forget;
        forget.set_tray_uuid(tray_uuid(1, 0));
        forget.set_force(true);
        fake(1).lost_trays = {tray_uuid(1, 0)};
        (void)reactor_.run(core_->remove_tray(forget));
        reactor_.run_for(seconds);
        EXPECT_EQ(created, !fake(1).shards.empty()) << until;
        if (created) (void)remove("vol");
        reactor_.run_for(2 * seconds);
        fake(1).shards.clear();
        fake(1).lost_trays.clear();
    }
}

TEST_F(CoreTest, rule_16_an_older_incarnation_never_serves) {
    ASSERT_TRUE(register_store(1, 1, 5));
    ASSERT_TRUE(create("vol", gib));
    restart();
    ASSERT_TRUE(register_store(1, 1, 4));
    EXPECT_EQ(core_->list_trays()[0].health(), v1::HEALTH_ERROR);
    EXPECT_FALSE(core_->list_trays()[0].message().empty());
    EXPECT_EQ(core_->show_volume("vol")->health(), v1::HEALTH_ERROR);
    EXPECT_FALSE(create("other", gib));
    ASSERT_TRUE(register_store(1, 1, 6));
    EXPECT_EQ(core_->list_trays()[0].health(), v1::HEALTH_OK);
}

// Found by hand: for every tray that could not be mounted 'tray list' said that it came back with
// incarnation 0.
TEST_F(CoreTest, regression_a_tray_that_is_not_mounted_says_why) {
    ASSERT_TRUE(register_store(1, 1, 5));
    ASSERT_TRUE(create("vol", gib));
    v1::HeartbeatRequest beat;
    beat.set_store_id(1);
    auto& report = *beat.add_trays();
    report.set_uuid(tray_uuid(1, 0));
    report.set_path("/t.img");
    report.set_health(v1::HEALTH_ERROR);
    report.set_message("both superblocks are unusable");
    ASSERT_TRUE(core_->heartbeat(beat));
    EXPECT_EQ(core_->list_trays()[0].health(), v1::HEALTH_ERROR);
    EXPECT_EQ(core_->list_trays()[0].message(), "both superblocks are unusable");
    for (const std::string& said :
         {core_->status().message, core_->show_volume("vol")->message()}) {
        EXPECT_NE(said.find("'/t.img'"), std::string::npos) << said;
        EXPECT_NE(said.find("both superblocks are unusable"), std::string::npos) << said;
    }
    // The older disk is still found out.
    ASSERT_TRUE(register_store(1, 1, 4));
    EXPECT_NE(core_->list_trays()[0].message().find("incarnation 4 after 5"), std::string::npos);
    ASSERT_TRUE(register_store(1, 1, 6));
    EXPECT_EQ(core_->list_trays()[0].health(), v1::HEALTH_OK);
}

TEST_F(CoreTest, StoresAreKnownByTheirIdentity) {
    const auto first = register_store(1, 1);
    const auto second = register_store(2, 1);
    ASSERT_TRUE(first && second);
    EXPECT_NE(first->store_id(), second->store_id());
    EXPECT_EQ(register_store(1, 1)->store_id(), first->store_id());
    v1::RegisterStoreRequest foreign;
    foreign.mutable_store()->set_uuid("11111111-0000-4000-8000-000000000009");
    foreign.mutable_store()->set_data_address("x:1");
    foreign.set_cluster_uuid("22222222-0000-4000-8000-000000000009");
    const auto refused = reactor_.run(core_->register_store(foreign));
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find(first->cluster_uuid()), std::string::npos);
    // A tray of another store that holds replicas is not taken over.
    EXPECT_EQ(core_->list_stores().size(), 2u);
}

}  // namespace
}  // namespace pf::conductor

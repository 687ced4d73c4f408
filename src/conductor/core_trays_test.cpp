// Which trays a store has: added, removed and brought back, copied, moved, of another store.
#include "conductor/core_test.hpp"

namespace pf::conductor {
namespace {

TEST_F(CoreTest, TraysAreAddedAndRemoved) {
    ASSERT_TRUE(register_store(1, 0));
    EXPECT_EQ(create("vol", gib).error().code, Errc::unavailable);
    v1::AddTrayRequest request;
    request.set_path("relative");
    EXPECT_EQ(reactor_.run(core_->add_tray(0, request)).error().code, Errc::invalid_argument);
    request.set_path("/x/new\nline.img");
    EXPECT_EQ(reactor_.run(core_->add_tray(0, request)).error().code, Errc::invalid_argument);
    request.set_path("/dev/x");
    request.set_create_bytes(10 * gib);
    const auto added = reactor_.run(core_->add_tray(0, request));
    ASSERT_TRUE(added) << added.error().text();
    EXPECT_EQ(added->health(), v1::HEALTH_OK);
    ASSERT_TRUE(create("vol", gib));
    v1::RemoveTrayRequest remove_tray;
    remove_tray.set_tray_uuid(added->uuid());
    EXPECT_EQ(reactor_.run(core_->remove_tray(remove_tray)).error().code, Errc::busy);
    ASSERT_TRUE(*remove("vol"));
    EXPECT_TRUE(reactor_.run(core_->remove_tray(remove_tray)));
    EXPECT_EQ(reactor_.run(core_->remove_tray(remove_tray)).error().code, Errc::not_found);
    restart();
    EXPECT_TRUE(core_->list_trays().empty());
}

// Failed: health ok, where no volume can be made.
TEST_F(CoreTest, regression_a_cluster_without_a_serving_tray_is_degraded) {
    const auto expect_degraded = [&](const char* says) {
        EXPECT_EQ(core_->status().health, v1::HEALTH_DEGRADED);
        EXPECT_NE(core_->status().message.find(says), std::string::npos) << core_->status().message;
    };
    expect_degraded("no tray: ");
    ASSERT_TRUE(register_store(1, 0));
    expect_degraded("tray add");
    ASSERT_TRUE(register_store(1, 1));
    EXPECT_EQ(core_->status().health, v1::HEALTH_OK);
    EXPECT_TRUE(core_->status().message.empty());
    reactor_.run_for(10 * seconds);  // without a heartbeat
    expect_degraded("no tray serves");
}

// The store may have lost its list of trays, and the tray its superblocks.
TEST_F(CoreTest, APlaceWithVolumesIsNeverFormatted) {
    ASSERT_TRUE(register_store(1, 0));
    v1::AddTrayRequest request;
    request.set_path("/dev/x");
    request.set_create_bytes(10 * gib);
    ASSERT_TRUE(reactor_.run(core_->add_tray(0, request)));
    EXPECT_FALSE(fake(1).last_add.mount_only());
    ASSERT_TRUE(create("vol", gib));
    ASSERT_TRUE(reactor_.run(core_->add_tray(0, request)));
    EXPECT_TRUE(fake(1).last_add.mount_only());
}

// Found by hand: after a format with --force the old tray stayed in the list without a word.
TEST_F(CoreTest, regression_a_tray_that_was_formatted_over_says_how_to_forget_it) {
    ASSERT_TRUE(register_store(1, 0));
    v1::AddTrayRequest request;
    request.set_path("/dev/x");
    const auto old = reactor_.run(core_->add_tray(0, request));
    ASSERT_TRUE(old);
    ASSERT_TRUE(create("vol", gib));
    request.set_force(true);
    const auto fresh = reactor_.run(core_->add_tray(0, request));
    ASSERT_TRUE(fresh);
    const auto check = [&] {
        for (const auto& tray : core_->list_trays()) {
            if (tray.uuid() != old->uuid()) continue;
            EXPECT_EQ(tray.health(), v1::HEALTH_OFFLINE);
            EXPECT_NE(tray.message().find(fresh->uuid()), std::string::npos) << tray.message();
            EXPECT_NE(tray.message().find("tray remove " + old->uuid() + " --force"),
                      std::string::npos)
                << tray.message();
        }
    };
    check();
    v1::RemoveTrayRequest forget;
    forget.set_tray_uuid(old->uuid());
    forget.set_force(true);
    EXPECT_TRUE(reactor_.run(core_->remove_tray(forget)));
    EXPECT_EQ(core_->list_trays().size(), 1u);
}

// Failed: with --force any answer was taken for "removed", and the tray was back a second later.
TEST_F(CoreTest, regression_a_tray_that_its_store_keeps_is_not_called_removed) {
    ASSERT_TRUE(register_store(1, 1));
    v1::RemoveTrayRequest forget;
    forget.set_tray_uuid(tray_uuid(1, 0));
    forget.set_force(true);
    fake(1).fail_after = 0;
    EXPECT_EQ(reactor_.run(core_->remove_tray(forget)).error().code, Errc::io_error);
    EXPECT_EQ(core_->list_trays().size(), 1u);
    for (const bool offline : {false, true}) {
        fake(1).fail_after = UINT32_MAX;
        ASSERT_TRUE(register_store(1, 1));
        fake(1).reachable = false;
        if (offline) reactor_.run_for(10 * seconds);
        EXPECT_TRUE(reactor_.run(core_->remove_tray(forget)));
        EXPECT_TRUE(core_->list_trays().empty());
    }
}

// Failed: with the tray's count begun anew, the deletion of the volume ended the conductor.
TEST_F(CoreTest, regression_a_tray_that_comes_back_after_its_removal_has_its_replicas_again) {
    ASSERT_TRUE(register_store(1, 1));
    ASSERT_TRUE(create("vol", gib));
    v1::RemoveTrayRequest forget;
    forget.set_tray_uuid(tray_uuid(1, 0));
    forget.set_force(true);
    ASSERT_TRUE(reactor_.run(core_->remove_tray(forget)));
    ASSERT_TRUE(core_->cluster().trays.empty());
    // As a store does that was away when its tray was forgotten.
    ASSERT_TRUE(register_store(1, 1, 2));
    const TrayEntry& tray = core_->cluster().trays.begin()->second;
    EXPECT_EQ(tray.replicas, 1u);
    EXPECT_EQ(tray.promised_bytes, gib);
    forget.set_force(false);
    EXPECT_EQ(reactor_.run(core_->remove_tray(forget)).error().code, Errc::busy);
    ASSERT_TRUE(resize("vol", 2 * gib));
    EXPECT_EQ(tray.promised_bytes, 2 * gib);
    EXPECT_TRUE(*remove("vol"));
    EXPECT_EQ(tray.promised_bytes, 0u);
    expect_no_trace();
}

// Failed: it was taken for a new one, whose shards have their epochs.
TEST_F(CoreTest, rule_01_a_tray_that_comes_back_after_its_removal_gets_new_epochs) {
    ASSERT_TRUE(register_store(1, 1, 5));
    ASSERT_TRUE(create("vol", gib));
    const auto epoch = [&] { return fake(1).shards.begin()->second.shard().epoch(); };
    ASSERT_EQ(epoch(), 1u);
    v1::RemoveTrayRequest forget;
    forget.set_tray_uuid(tray_uuid(1, 0));
    forget.set_force(true);
    ASSERT_TRUE(reactor_.run(core_->remove_tray(forget)));
    ASSERT_TRUE(register_store(1, 1, 6));
    EXPECT_EQ(epoch(), 2u);
    EXPECT_EQ(core_->list_trays()[0].incarnation(), 6u);
    ASSERT_TRUE(register_store(1, 1, 6));
    EXPECT_EQ(epoch(), 2u);
}

// A store that sends nothing but this.
v1::HeartbeatRequest beat_of(uint32_t store, const std::string& tray = {},
                             uint64_t incarnation = 0) {
    v1::HeartbeatRequest request;
    request.set_store_id(store);
    if (tray.empty()) return request;
    request.add_trays()->set_uuid(tray);
    request.mutable_trays(0)->set_incarnation(incarnation);
    return request;
}

// Found by hand, with two stores on one host: the other store mounted the tray and kept it, and no
// command made it let go.
TEST_F(CoreTest, regression_a_tray_of_another_store_is_given_back) {
    ASSERT_TRUE(register_store(1, 1, 5));
    ASSERT_TRUE(register_store(2, 0));
    ASSERT_TRUE(create("vol", gib));
    fake(2).disks["/dev/x"] = tray_uuid(1, 0);
    v1::AddTrayRequest request;
    request.set_path("/dev/x");
    const auto expect_refused = [&] {
        const auto added = reactor_.run(core_->add_tray(2, request));
        ASSERT_FALSE(added);
        EXPECT_EQ(added.error().code, Errc::conflict);
        EXPECT_NE(added.error().message.find("belongs to store 1"), std::string::npos)
            << added.error().message;
        EXPECT_TRUE(fake(2).trays.empty());
        EXPECT_EQ(core_->cluster().trays.at(tray_uuid(1, 0)).record.store_id(), 1u);
    };
    expect_refused();
    EXPECT_EQ(core_->show_volume("vol")->health(), v1::HEALTH_OK);
    ASSERT_TRUE(*remove("vol"));
    expect_refused();  // a copy
    ASSERT_TRUE(create("vol", gib));
    reactor_.run_for(10 * seconds);  // store 1 is away
    ASSERT_TRUE(register_store(2, 0));
    expect_refused();
    v1::RemoveTrayRequest forget;
    forget.set_tray_uuid(tray_uuid(1, 0));
    forget.set_force(true);
    ASSERT_TRUE(reactor_.run(core_->remove_tray(forget)));
    const auto added = reactor_.run(core_->add_tray(2, request));
    ASSERT_FALSE(added) << "its shards still say where it belongs";
    EXPECT_EQ(added.error().code, Errc::conflict);
    ASSERT_TRUE(register_store(1, 1, 200));
    EXPECT_EQ(core_->show_volume("vol")->health(), v1::HEALTH_OK);
}

// Found by hand: once a second, while both stores reported it.
TEST_F(CoreTest, regression_a_refused_tray_is_logged_once) {
    ASSERT_TRUE(register_store(1, 1, 5));
    ASSERT_TRUE(register_store(2, 0));
    static int refusals = 0;
    refusals = 0;
    set_log_level(LogLevel::error);
    set_log_sink([](LogLevel, std::string_view line) {
        if (line.find("is refused") != std::string_view::npos) ++refusals;
    });
    const auto both_report = [&] {
        for (int i = 0; i < 3; ++i) {
            (void)core_->heartbeat(beat_of(1, tray_uuid(1, 0), 0));  // not mounted
            (void)core_->heartbeat(beat_of(2, tray_uuid(1, 0), 6));
        }
    };
    both_report();
    EXPECT_EQ(refusals, 1);
    (void)core_->heartbeat(beat_of(2));
    both_report();
    EXPECT_EQ(refusals, 2) << "it went in between";
    set_log_sink(nullptr);
}

TEST_F(CoreTest, AnEmptyTrayMovesToAnotherStore) {
    ASSERT_TRUE(register_store(1, 1, 5));
    reactor_.run_for(10 * seconds);
    ASSERT_TRUE(register_store(2, 0));
    fake(2).disks["/dev/x"] = tray_uuid(1, 0);
    v1::AddTrayRequest request;
    request.set_path("/dev/x");
    request.set_create_bytes(10 * gib);
    const auto added = reactor_.run(core_->add_tray(2, request));
    ASSERT_TRUE(added) << added.error().text();
    EXPECT_EQ(added->health(), v1::HEALTH_OK);
    EXPECT_EQ(added->store_id(), 2u);
    ASSERT_TRUE(create("vol", gib));
    EXPECT_EQ(fake(2).shards.size(), 1u);
    ASSERT_TRUE(register_store(1, 1, 0));  // still in its list, and not there
    EXPECT_EQ(core_->list_trays()[0].store_id(), 2u);
    EXPECT_EQ(core_->list_trays()[0].health(), v1::HEALTH_OK);
    restart();
    EXPECT_EQ(core_->list_trays()[0].store_id(), 2u);
}

// Found by hand: after `tray remove --force` the next heartbeat of a store that had the disk made
// it that store's, while the shards named the other: everything was ok, and I/O waited for ever.
TEST_F(CoreTest, regression_a_forgotten_tray_belongs_where_its_shards_are) {
    ASSERT_TRUE(register_store(1, 1, 5));
    ASSERT_TRUE(register_store(2, 0));
    ASSERT_TRUE(create("vol", gib));
    const std::string uuid = tray_uuid(1, 0);
    reactor_.run_for(10 * seconds);  // store 1 is away
    ASSERT_TRUE(register_store(2, 0));
    fake(2).trays[uuid] = "/dev/x";
    ASSERT_TRUE(core_->heartbeat(beat_of(2, uuid, 6)));
    ASSERT_TRUE(core_->cluster().trays.at(uuid).refused);
    v1::RemoveTrayRequest forget;
    forget.set_tray_uuid(uuid);
    forget.set_force(true);
    ASSERT_TRUE(reactor_.run(core_->remove_tray(forget)));
    EXPECT_TRUE(fake(2).trays.empty()) << "the store that reports it lets go of it, too";
    ASSERT_TRUE(core_->heartbeat(beat_of(2)));

    // One that was away when it was forgotten.
    v1::RegisterStoreRequest request;
    request.mutable_store()->set_uuid("11111111-0000-4000-8000-000000000002");
    request.mutable_store()->set_data_address(store_address(2));
    request.mutable_store()->add_trays()->set_uuid(uuid);
    request.mutable_store()->mutable_trays(0)->set_incarnation(6);
    ASSERT_TRUE(reactor_.run(core_->register_store(request)));
    EXPECT_EQ(core_->cluster().trays.at(uuid).record.store_id(), 1u);
    EXPECT_EQ(core_->list_trays()[0].health(), v1::HEALTH_ERROR);
    EXPECT_NE(core_->show_volume("vol")->health(), v1::HEALTH_OK);
    EXPECT_FALSE(create("other", gib));
    ASSERT_TRUE(core_->heartbeat(beat_of(2)));
    EXPECT_EQ(core_->list_trays()[0].health(), v1::HEALTH_OFFLINE);
    ASSERT_TRUE(register_store(1, 1, 7));
    EXPECT_EQ(core_->show_volume("vol")->health(), v1::HEALTH_OK);
    EXPECT_EQ(fake(1).shards.begin()->second.shard().epoch(), 2u);
}

// Failed: the conductor ended by an assertion, if it came back between the choice of the tray and
// the volume's first commit.
TEST_F(CoreTest, regression_a_tray_comes_back_while_a_volume_is_placed_on_it) {
    for (uint64_t until = 0; until < 60; ++until) {
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
        (void)reactor_.run(core_->remove_tray(forget));
        ASSERT_TRUE(register_store(1, 1, until + 1));
        reactor_.run_for(2 * seconds);
        if (created) (void)remove("vol");
        reactor_.run_for(2 * seconds);
        expect_no_trace();
        EXPECT_EQ(core_->cluster().trays.begin()->second.promised_bytes, 0u);
    }
}

// Whatever fails and comes back: what a tray is said to hold is what the volumes have on it.
TEST_F(CoreTest, CountsOfTraysStayThoseOfTheVolumes) {
    constexpr uint64_t shard = uint64_t{2} << 20;
    uint64_t incarnation = 1;
    ASSERT_TRUE(register_store(1, 2));
    for (uint32_t step = 0; step < 1000; ++step) {
        const auto dice = [this](uint64_t sides) { return reactor_.rng().below(sides); };
        const std::string name = "vol" + std::to_string(dice(3));
        fake(1).fail_after = dice(2) == 0 ? UINT32_MAX : static_cast<uint32_t>(dice(3));
        const uint64_t bytes = (1 + dice(300)) * shard - dice(2) * block_bytes;
        const uint64_t what = dice(8);
        if (what < 2) {
            (void)create(name, bytes, 1, shard);
        } else if (what < 4) {
            (void)resize(name, bytes);
        } else if (what == 4) {
            (void)remove(name);
        } else if (what == 5) {
            v1::RemoveTrayRequest forget;
            forget.set_tray_uuid(tray_uuid(1, static_cast<uint32_t>(dice(2))));
            forget.set_force(true);
            (void)reactor_.run(core_->remove_tray(forget));
        } else if (what == 6) {
            crash();
            start();
        }
        if (what > 4) {
            ASSERT_TRUE(register_store(1, 2, ++incarnation));
        }
        reactor_.run_for(dice(3) * seconds);
        for (const auto& [uuid, tray] : core_->cluster().trays) {
            TrayEntry counted;
            counted.record.set_uuid(uuid);
            core_->cluster().count_replicas_of(counted);
            ASSERT_EQ(tray.replicas, counted.replicas) << step;
            ASSERT_EQ(tray.promised_bytes, counted.promised_bytes) << step;
        }
    }
}

}  // namespace
}  // namespace pf::conductor

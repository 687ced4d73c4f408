// Volumes come and go: creation, size, name, placement and deletion, over failures and restarts.
#include "conductor/core_test.hpp"

namespace pf::conductor {
namespace {

TEST_F(CoreTest, CreateShowListAndKeepAcrossRestart) {
    ASSERT_TRUE(register_store(1, 2));
    const auto created = create("vol", 10 * gib);
    ASSERT_TRUE(created) << created.error().text();
    EXPECT_EQ(created->shard_count(), 1u);
    EXPECT_EQ(created->health(), v1::HEALTH_OK);
    EXPECT_EQ(fake(1).shards.size(), 1u);
    ASSERT_TRUE(create("second", gib));
    EXPECT_NE(core_->show_volume("second")->id(), created->id());
    EXPECT_EQ(core_->list_volumes("", 1).volumes_size(), 1);
    EXPECT_TRUE(core_->list_volumes("", 1).more());
    EXPECT_EQ(core_->list_volumes("second", 10).volumes(0).name(), "vol");

    restart();
    EXPECT_EQ(core_->show_volume("vol")->id(), created->id());
    EXPECT_EQ(core_->show_volume("vol")->health(), v1::HEALTH_OFFLINE);
    ASSERT_TRUE(register_store(1, 2));
    EXPECT_EQ(core_->show_volume("vol")->health(), v1::HEALTH_OK);
    const auto third = create("third", gib);
    ASSERT_TRUE(third);
    EXPECT_GT(third->id(), created->id() + 1);
}

TEST_F(CoreTest, RefusesBadVolumesByName) {
    EXPECT_NE(create("v", gib).error().message.find("1 replicas need 1 stores"), std::string::npos);
    ASSERT_TRUE(register_store(1, 1));
    const struct {
        std::string name;
        uint64_t size;
        uint32_t replicas;
        uint64_t shard_bytes;
        Errc code;
    } bad[] = {
        {"", gib, 1, 0, Errc::invalid_argument},
        {std::string(97, 'n'), gib, 1, 0, Errc::invalid_argument},
        {"a/b", gib, 1, 0, Errc::invalid_argument},
        {"a@b", gib, 1, 0, Errc::invalid_argument},
        {"a:b", gib, 1, 0, Errc::invalid_argument},
        {"a\nb", gib, 1, 0, Errc::invalid_argument},
        {"v", 0, 1, 0, Errc::invalid_argument},
        {"v", 4097, 1, 0, Errc::invalid_argument},
        {"v", (uint64_t{1} << 50) + 4096, 1, 0, Errc::invalid_argument},
        {"v", UINT64_MAX - 4095, 1, 0, Errc::invalid_argument},
        {"v", gib, 1, 4096, Errc::invalid_argument},
        {"v", gib, 1, 128 * gib, Errc::invalid_argument},
        {"v", uint64_t{1} << 50, 1, 2u << 20, Errc::invalid_argument},
    };
    for (const auto& each : bad) {
        const auto created = create(each.name, each.size, each.replicas, each.shard_bytes);
        ASSERT_FALSE(created) << each.name << " " << each.size;
        EXPECT_EQ(created.error().code, each.code) << created.error().text();
        EXPECT_FALSE(created.error().message.empty());
    }
    const auto three = create("v", gib, 3);
    EXPECT_NE(three.error().message.find("3 replicas need 3 stores, but the cluster has 1"),
              std::string::npos)
        << three.error().message;
    expect_no_trace();
    ASSERT_TRUE(create("v", gib));
    EXPECT_EQ(create("v", gib).error().code, Errc::already_exists);
}

TEST_F(CoreTest, PlacementTakesTheMostFreeTray) {
    ASSERT_TRUE(register_store(1, 3));  // tray 2 has the most room
    ASSERT_TRUE(create("one", gib));
    const auto shard = fake(1).shards.begin()->second;
    EXPECT_EQ(shard.tray_uuid(), tray_uuid(1, 2));
    // Many shards are spread.
    ASSERT_TRUE(create("many", 30 * gib, 1, gib));
    for (uint32_t tray = 0; tray < 3; ++tray) {
        EXPECT_GE(core_->cluster().trays.at(tray_uuid(1, tray)).replicas, 9u);
    }
}

// Found by hand: what volumes were promised did not count until they had written it, so that all
// of them went to the tray that was the largest by a hair, which was full while three were empty.
TEST_F(CoreTest, regression_empty_volumes_are_spread_over_trays) {
    ASSERT_TRUE(register_store(1, 4));
    std::set<std::string> used;
    for (const char* name : {"a", "b", "c", "d"}) ASSERT_TRUE(create(name, 60 * gib));
    for (const auto& [id, apply] : fake(1).shards) used.insert(apply.tray_uuid());
    EXPECT_EQ(used.size(), 4u);
    // What is deleted is promised no more, nor what a resize did not get.
    ASSERT_TRUE(remove("b"));
    fake(1).fail_after = 0;
    EXPECT_FALSE(resize("a", 100 * gib));
    fake(1).fail_after = UINT32_MAX;
    reactor_.run_for(60 * seconds);
    const auto promised = [&] {
        std::multiset<uint64_t> out;
        for (const auto& [uuid, tray] : core_->cluster().trays) out.insert(tray.promised_bytes);
        return out;
    };
    const std::multiset<uint64_t> expected{0, 60 * gib, 60 * gib, 64 * gib};
    EXPECT_EQ(promised(), expected) << "the last shard may stay larger after a failed resize";
    restart();
    EXPECT_EQ(promised(), expected) << "counted from what was persisted";
}

// Found by hand: one damaged copy of a superblock, used around and repaired, left the tray degraded
// until the next start, and no volume could be made: '0 healthy trays'.
TEST_F(CoreTest, regression_a_degraded_tray_that_serves_takes_volumes) {
    ASSERT_TRUE(register_store(1, 1));
    v1::HeartbeatRequest beat;
    beat.set_store_id(1);
    auto& report = *beat.add_trays();
    report.set_uuid(tray_uuid(1, 0));
    report.set_incarnation(1);
    report.set_capacity_bytes(100 * gib);
    report.set_free_bytes(100 * gib);
    report.set_health(v1::HEALTH_DEGRADED);
    ASSERT_TRUE(core_->heartbeat(beat));
    EXPECT_TRUE(create("vol", gib));
    EXPECT_EQ(core_->status().trays_ok, 0u);
    EXPECT_EQ(core_->status().capacity_bytes, 100 * gib);
    // Others come first.
    ASSERT_TRUE(register_store(2, 1, 1, gib));
    ASSERT_TRUE(create("second", gib));
    EXPECT_EQ(fake(2).shards.size(), 1u);
    report.set_health(v1::HEALTH_ERROR);
    ASSERT_TRUE(core_->heartbeat(beat));
    beat.set_stopping(true);
    beat.set_store_id(2);
    beat.clear_trays();
    ASSERT_TRUE(core_->heartbeat(beat));
    EXPECT_EQ(create("third", gib).error().code, Errc::unavailable);
}

TEST_F(CoreTest, OnePebibyteStaysWithinTheLimits) {
    ASSERT_TRUE(register_store(1, 2));
    const auto created = create("huge", uint64_t{1} << 50);
    ASSERT_TRUE(created) << created.error().text();
    EXPECT_EQ(created->shard_count(), 16384u);
    EXPECT_EQ(fake(1).shards.size(), 16384u);
    v1::ListShardsRequest request;
    request.set_volume_id(created->id());
    request.set_first_index(16000);
    request.set_count(5000);
    const auto shards = core_->list_shards(request);
    ASSERT_TRUE(shards);
    EXPECT_EQ(shards->shards_size(), 384);
    EXPECT_EQ(shards->shards(383).shard().index(), 16383u);
    EXPECT_EQ(shards->shards(0).primary_address(), store_address(1));
    EXPECT_TRUE(*remove("huge"));
    expect_no_trace();
}

TEST_F(CoreTest, NothingRemainsOfAFailedCreation) {
    ASSERT_TRUE(register_store(1, 1));
    // The store fails at each call that a creation makes.
    for (uint32_t calls = 0; calls < 3; ++calls) {
        fake(1).fail_after = calls;
        const auto created = create("vol", 512 * gib, 1, gib);  // two calls
        fake(1).fail_after = UINT32_MAX;
        if (created) {
            EXPECT_EQ(calls, 2u);
            ASSERT_TRUE(*remove("vol"));
        }
        reactor_.run_for(2 * seconds);  // the background goes on undoing
        expect_no_trace();
    }
    // The engine fails at each commit.
    for (uint32_t nth = 0; nth < 12; ++nth) {
        SCOPED_TRACE(nth);
        engine_->fail_commit_after(nth);
        const auto created = create("vol", gib);
        reactor_.run_for(2 * seconds);
        if (created) {
            ASSERT_TRUE(*remove("vol"));
            break;
        }
        expect_no_trace();
    }
}

TEST_F(CoreTest, CrashDuringCreationLeavesNothing) {
    ASSERT_TRUE(register_store(1, 1));
    bool created = false;
    for (uint32_t delay_us = 1; !created && delay_us < 2000; delay_us += 3) {
        SCOPED_TRACE(delay_us);
        const std::string name = "vol" + std::to_string(delay_us);
        v1::CreateVolumeRequest request;
        request.set_name(name);
        request.set_size_bytes(gib);
        request.set_replicas(1);
        reactor_.spawn(create_and_note(*core_, std::move(request), created));
        reactor_.run_for(delay_us * runtime::microseconds);
        crash();
        start();
        ASSERT_TRUE(register_store(1, 1));
        reactor_.run_for(3 * seconds);
        const bool visible = core_->show_volume(name).has_value();
        EXPECT_TRUE(visible || !created);
        if (visible) {
            EXPECT_EQ(fake(1).shards.size(), 1u);
            ASSERT_TRUE(*remove(name));
        }
        expect_no_trace();
    }
    EXPECT_TRUE(created) << "no creation finished before its crash";
}

TEST_F(CoreTest, ResizeGrowsOnly) {
    ASSERT_TRUE(register_store(1, 1));
    ASSERT_TRUE(create("vol", 3 * gib, 1, 2 * gib));
    EXPECT_EQ(resize("vol", 2 * gib).error().code, Errc::invalid_argument);
    EXPECT_EQ(resize("none", 2 * gib).error().code, Errc::not_found);
    EXPECT_EQ(resize("vol", 3 * gib + 1).error().code, Errc::invalid_argument);
    const auto grown = resize("vol", 9 * gib);
    ASSERT_TRUE(grown) << grown.error().text();
    EXPECT_EQ(grown->shard_count(), 5u);
    uint64_t total = 0;
    for (const auto& [id, shard] : fake(1).shards) total += shard.shard().size_bytes();
    EXPECT_EQ(total, 9 * gib);
    restart();
    EXPECT_EQ(core_->show_volume("vol")->size_bytes(), 9 * gib);
}

// Failed: the store was told of shards that a resize had not made yet, made them as damaged, and an
// operator was told to accept the loss of a healthy volume (found by kill -9 during resizes).
TEST_F(CoreTest, regression_an_unfinished_resize_is_no_loss) {
    ASSERT_TRUE(register_store(1, 1));
    ASSERT_TRUE(create("vol", gib, 1, gib));
    fake(1).fail_after = 0;
    EXPECT_FALSE(resize("vol", 7 * gib));
    fake(1).fail_after = UINT32_MAX;
    restart();
    const auto before = fake(1).applies;
    ASSERT_TRUE(register_store(1, 1));
    EXPECT_EQ(fake(1).applies - before, 1u);
    EXPECT_EQ(fake(1).shards.size(), 1u);
}

TEST_F(CoreTest, FailedResizeIsUndone) {
    ASSERT_TRUE(register_store(1, 1));
    ASSERT_TRUE(create("vol", gib, 1, gib));
    fake(1).fail_after = 0;
    EXPECT_FALSE(resize("vol", 300 * gib));
    EXPECT_EQ(core_->show_volume("vol")->size_bytes(), gib);
    EXPECT_EQ(resize("vol", 4 * gib).error().code, Errc::busy);
    fake(1).fail_after = UINT32_MAX;
    reactor_.run_for(2 * seconds);
    EXPECT_EQ(fake(1).shards.size(), 1u);
    EXPECT_EQ(keys_under("shards/"), 1u);
    EXPECT_EQ(keys_under("tasks/"), 0u);
    EXPECT_TRUE(resize("vol", 4 * gib));
    EXPECT_EQ(fake(1).shards.size(), 4u);
}

// The last shard had grown at its store, and was then asked to shrink: for ever.
TEST_F(CoreTest, regression_a_smaller_resize_after_a_failed_one) {
    ASSERT_TRUE(register_store(1, 2));
    ASSERT_TRUE(create("filler", 4 * gib));  // on the second tray, so that "vol" is on the first
    ASSERT_TRUE(create("vol", gib, 1, 4 * gib));
    fake(1).fail_after = 1;
    ASSERT_FALSE(resize("vol", 80 * gib));
    fake(1).fail_after = UINT32_MAX;
    reactor_.run_for(2 * seconds);
    ASSERT_EQ(fake(1).shards.size(), 2u);
    ASSERT_EQ(fake(1).shards.rbegin()->second.shard().size_bytes(), 4 * gib) << "it grew";
    const Result<v1::Volume> resized = resize("vol", 2 * gib);
    EXPECT_TRUE(resized) << resized.error().text();
    EXPECT_EQ(core_->show_volume("vol")->size_bytes(), 2 * gib);
    EXPECT_TRUE(open("vol", 1, true));
    EXPECT_TRUE(resize("vol", 80 * gib));
}

TEST_F(CoreTest, RenameKeepsTheVolume) {
    ASSERT_TRUE(register_store(1, 1));
    const auto created = create("old", gib);
    ASSERT_TRUE(create("other", gib));
    const auto rename = [&](const std::string& from, const std::string& to) {
        v1::RenameVolumeRequest request;
        request.set_name(from);
        request.set_new_name(to);
        return reactor_.run(core_->rename_volume(std::move(request)));
    };
    EXPECT_EQ(rename("old", "other").error().code, Errc::already_exists);
    EXPECT_EQ(rename("old", "a/b").error().code, Errc::invalid_argument);
    EXPECT_EQ(rename("none", "x").error().code, Errc::not_found);
    ASSERT_TRUE(rename("old", "new"));
    restart();
    EXPECT_EQ(core_->show_volume("new")->id(), created->id());
    EXPECT_FALSE(core_->show_volume("old"));
}

TEST_F(CoreTest, DeletionGoesOnWhenTheStoreIsBack) {
    ASSERT_TRUE(register_store(1, 1));
    ASSERT_TRUE(create("vol", 4 * gib, 1, gib));
    fake(1).reachable = false;
    const auto deleted = remove("vol");
    ASSERT_TRUE(deleted);
    EXPECT_FALSE(*deleted);
    EXPECT_FALSE(core_->show_volume("vol"));
    EXPECT_TRUE(create("other", gib).error().code != Errc::ok);
    restart();                             // the task is persisted
    EXPECT_EQ(core_->status().tasks, 2u);  // with the creation that could not be undone
    fake(1).reachable = true;
    ASSERT_TRUE(register_store(1, 1));
    reactor_.run_for(2 * seconds);
    expect_no_trace();
    EXPECT_TRUE(create("vol", gib));
}

}  // namespace
}  // namespace pf::conductor

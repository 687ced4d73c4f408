// Goal: the control plane keeps its promises over crashes, failures and refusals. Method: the core
// on the in-memory engine and fake stores, in virtual time; a restart is a new core over the same
// store of keys.
#include "conductor/core.hpp"

#include <gtest/gtest.h>

#include "base/log.hpp"
#include "conductor/fake_stores.hpp"
#include "conductor/rpc_server.hpp"
#include "meta/memory_engine.hpp"
#include "meta/test_reactor.hpp"

namespace pf::conductor {
namespace {

using runtime::milliseconds;
using runtime::seconds;
using runtime::Task;

constexpr uint64_t gib = uint64_t{1} << 30;

std::string tray_uuid(uint32_t store, uint32_t tray) {
    return "00000000-0000-4000-8000-0000000000" + std::to_string(store) + std::to_string(tray);
}
std::string store_address(uint32_t store) {
    return "store" + std::to_string(store) + ":1";
}

class CoreTest : public testing::Test {
  protected:
    void SetUp() override {
        set_log_level(LogLevel::off);
        start();
    }
    void TearDown() override { stop(); }

    void start() {
        engine_ = std::make_unique<meta::MemoryEngine>(reactor_, keys_, 5 * runtime::microseconds);
        core_ = std::make_unique<Core>(reactor_, *engine_, stores_, CoreOptions{});
        const Status started = reactor_.run(core_->start());
        ASSERT_TRUE(started) << started.error().text();
    }
    void stop() {
        reactor_.run(core_->stop());
        reactor_.run(engine_->close());
        core_.reset();
        engine_.reset();
    }
    // As a process that ends in the middle: nothing is finished, only what was committed stays.
    void crash() {
        reactor_.kill();
        core_.reset();
        engine_.reset();
    }
    void restart() {
        stop();
        start();
    }

    Result<v1::RegisterStoreReply> register_store(uint32_t store, uint32_t trays,
                                                  uint64_t incarnation = 1,
                                                  uint64_t free_bytes = 100 * gib) {
        v1::RegisterStoreRequest request;
        auto& record = *request.mutable_store();
        record.set_uuid("11111111-0000-4000-8000-00000000000" + std::to_string(store));
        record.set_data_address(store_address(store));
        for (uint32_t i = 0; i < trays; ++i) {
            auto& tray = *record.add_trays();
            tray.set_uuid(tray_uuid(store, i));
            tray.set_capacity_bytes(100 * gib);
            tray.set_free_bytes(free_bytes + i * gib);
            tray.set_incarnation(incarnation);
            tray.set_health(v1::HEALTH_OK);
        }
        auto reply = reactor_.run(core_->register_store(std::move(request)));
        reactor_.run_for(100 * milliseconds);  // activation
        return reply;
    }
    Result<v1::Volume> create(const std::string& name, uint64_t size_bytes, uint32_t replicas = 1,
                              uint64_t shard_bytes = 0) {
        v1::CreateVolumeRequest request;
        request.set_name(name);
        request.set_size_bytes(size_bytes);
        request.set_replicas(replicas);
        request.set_shard_bytes(shard_bytes);
        return reactor_.run(core_->create_volume(std::move(request)));
    }
    Result<bool> remove(const std::string& name, bool force = false) {
        v1::DeleteVolumeRequest request;
        request.set_name(name);
        request.set_force(force);
        return reactor_.run(core_->delete_volume(std::move(request)));
    }
    Result<v1::Volume> resize(const std::string& name, uint64_t size_bytes) {
        v1::ResizeVolumeRequest request;
        request.set_name(name);
        request.set_size_bytes(size_bytes);
        return reactor_.run(core_->resize_volume(std::move(request)));
    }
    Result<v1::OpenVolumeReply> open(const std::string& name, uint64_t connection,
                                     bool exclusive = false, bool read_only = false) {
        v1::OpenVolumeRequest request;
        request.set_name(name);
        request.set_exclusive(exclusive);
        request.set_read_only(read_only);
        return reactor_.run(core_->open_volume(std::move(request), connection));
    }
    static Task<void> create_and_note(Core& core, v1::CreateVolumeRequest request, bool& created) {
        const auto result = co_await core.create_volume(std::move(request));
        created = result.has_value();
    }
    FakeStores::State& fake(uint32_t store) { return stores_.stores[store_address(store)]; }
    size_t keys_under(std::string_view prefix) {
        return static_cast<size_t>(std::ranges::count_if(
            keys_.entries, [&](const auto& entry) { return entry.first.starts_with(prefix); }));
    }
    void expect_no_trace() {
        EXPECT_EQ(keys_under("volumes/"), 0u);
        EXPECT_EQ(keys_under("names/"), 0u);
        EXPECT_EQ(keys_under("shards/"), 0u);
        EXPECT_EQ(keys_under("tasks/"), 0u);
        for (const auto& [address, store] : stores_.stores) EXPECT_TRUE(store.shards.empty());
        for (const auto& tray : core_->cluster().trays) EXPECT_EQ(tray.second.replicas, 0u);
    }

    meta::TestReactor reactor_{meta::TestReactor::Time::jumping};
    meta::MemoryStore keys_;
    FakeStores stores_;
    std::unique_ptr<meta::MemoryEngine> engine_;
    std::unique_ptr<Core> core_;
};

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

TEST_F(CoreTest, OpenVolumesAreNotDeletedWithoutForce) {
    ASSERT_TRUE(register_store(1, 1));
    ASSERT_TRUE(create("vol", gib));
    const auto first = open("vol", 7);
    const auto second = open("vol", 7, false, true);
    const auto third = open("vol", 8);
    ASSERT_TRUE(first && second && third);
    EXPECT_NE(first->session(), third->session());
    EXPECT_EQ(second->session(), 0u);
    EXPECT_EQ(core_->show_volume("vol")->open_handles(), 3u);
    const auto refused = remove("vol");
    EXPECT_EQ(refused.error().code, Errc::busy);
    EXPECT_NE(refused.error().message.find("--force"), std::string::npos);
    EXPECT_FALSE(core_->close_volume(first->handle(), 8)) << "another's handle";
    EXPECT_TRUE(core_->close_volume(first->handle(), 7));
    core_->close_connection(7);
    EXPECT_EQ(core_->show_volume("vol")->open_handles(), 1u);
    EXPECT_TRUE(*remove("vol", true));
    core_->close_connection(8);
    EXPECT_EQ(core_->status().open_handles, 0u);
    expect_no_trace();
}

// Found by hand: handles are in memory only, so for some seconds after a restart of the conductor
// an open volume was deleted without --force.
TEST_F(CoreTest, regression_a_volume_open_before_a_restart_is_not_deleted_without_force) {
    ASSERT_TRUE(register_store(1, 1));
    for (const char* name : {"used", "closed", "forced"}) ASSERT_TRUE(create(name, gib));
    ASSERT_TRUE(open("used", 7));
    ASSERT_TRUE(open("forced", 7));
    ASSERT_TRUE(open("closed", 8));
    core_->close_connection(8);
    reactor_.run_for(milliseconds);
    crash();
    start();
    ASSERT_TRUE(register_store(1, 1));
    EXPECT_TRUE(remove("closed")) << "it had no client any more";
    const auto refused = remove("used");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::busy);
    EXPECT_NE(refused.error().message.find("--force"), std::string::npos);
    EXPECT_TRUE(remove("forced", true));
    // The mark outlives a second crash, and the client's return ends in a close.
    restart();
    ASSERT_TRUE(register_store(1, 1));
    EXPECT_FALSE(remove("used"));
    ASSERT_TRUE(open("used", 9));
    core_->close_connection(9);
    EXPECT_FALSE(remove("used")) << "another client may come";
    reactor_.run_for(reopen_grace);
    EXPECT_EQ(keys_under("open/"), 0u);
    ASSERT_TRUE(register_store(1, 1));  // no heartbeat came
    EXPECT_TRUE(remove("used"));
    expect_no_trace();
}

TEST_F(CoreTest, SessionsAreNeverReused) {
    ASSERT_TRUE(register_store(1, 1));
    ASSERT_TRUE(create("vol", gib));
    std::set<uint64_t> seen;
    for (int round = 0; round < 4; ++round) {
        for (int i = 0; i < 700; ++i) {
            const auto opened = open("vol", 1);
            ASSERT_TRUE(opened);
            EXPECT_TRUE(seen.insert(opened->session()).second);
        }
        crash();
        start();
    }
}

// R11.
TEST_F(CoreTest, ExclusiveOpenFencesAtTheStoresFirst) {
    ASSERT_TRUE(register_store(1, 1));
    ASSERT_TRUE(create("vol", gib));
    const auto before = open("vol", 1);
    const auto exclusive = open("vol", 2, true);
    ASSERT_TRUE(exclusive);
    EXPECT_GT(exclusive->writer_token(), before->writer_token());
    EXPECT_EQ(fake(1).shards.begin()->second.shard().writer_token(), exclusive->writer_token());
    fake(1).reachable = false;
    EXPECT_FALSE(open("vol", 3, true)) << "earlier writers cannot be fenced now";
    fake(1).reachable = true;
    restart();
    ASSERT_TRUE(register_store(1, 1));
    EXPECT_GT(open("vol", 4)->writer_token(), exclusive->writer_token());
    EXPECT_FALSE(open("vol", 4, true, true));
}

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

TEST_F(CoreTest, TopAddsUpLoads) {
    ASSERT_TRUE(register_store(1, 1));
    const auto created = create("vol", gib);
    v1::HeartbeatRequest beat;
    beat.set_store_id(1);
    auto& load = *beat.add_loads();
    load.set_volume_id(created->id());
    load.set_reads(100);
    load.set_read_bytes(409600);
    load.set_read_us(10000);
    load.set_interval_us(500'000);
    ASSERT_TRUE(core_->heartbeat(beat));
    const auto rates = core_->rates();
    ASSERT_EQ(rates.size(), 1u);
    EXPECT_EQ(rates[0].name, "vol");
    EXPECT_DOUBLE_EQ(rates[0].read_iops, 200);
    EXPECT_DOUBLE_EQ(rates[0].read_latency_seconds, 1e-4);
    EXPECT_DOUBLE_EQ(rates[0].write_iops, 0);
}

// T7: what a store says is lost is shown with names, and accepted by the operator only.
TEST_F(CoreTest, LossesAreShownByNameAndAccepted) {
    ASSERT_TRUE(register_store(1, 1));
    const auto created = create("vol", gib);
    ASSERT_TRUE(create("whole", gib));
    v1::HeartbeatRequest beat;
    beat.set_store_id(1);
    auto& tray = *beat.add_trays();
    tray.set_uuid(tray_uuid(1, 0));
    tray.set_incarnation(1);
    tray.set_health(v1::HEALTH_DEGRADED);
    auto& lost = *tray.add_lost();
    lost.set_volume_id(created->id());
    lost.set_shards(1);
    ASSERT_TRUE(core_->heartbeat(beat));
    fake(1).damaged = {created->id() << shard_index_bits};

    const auto shown = core_->show_volume("vol");
    EXPECT_EQ(shown->health(), v1::HEALTH_ERROR);
    EXPECT_EQ(shown->lost_shards(), 1u);
    EXPECT_NE(shown->message().find("accept-loss vol --force"), std::string::npos);
    EXPECT_EQ(core_->show_volume("whole")->lost_shards(), 0u);
    EXPECT_NE(core_->list_trays()[0].message().find("volumes vol may"), std::string::npos);
    EXPECT_EQ(core_->status().volumes_with_losses, 1u);
    EXPECT_EQ(core_->status().health, v1::HEALTH_ERROR);

    const auto accept = [&](bool force) {
        return reactor_.run(core_->accept_volume_loss("vol", force));
    };
    EXPECT_EQ(accept(false).error().code, Errc::conflict);
    EXPECT_EQ(core_->show_volume("vol")->lost_shards(), 1u);
    EXPECT_EQ(accept(true).value_or(0), 1u);
    EXPECT_EQ(core_->show_volume("vol")->lost_shards(), 0u);
    EXPECT_EQ(accept(true).value_or(9), 0u);  // again, after a lost answer
    EXPECT_EQ(reactor_.run(core_->accept_tray_loss("none", true)).error().code, Errc::not_found);
}

// T7: a store may make a shard only while the conductor is making it; later it has lost it.
TEST_F(CoreTest, OnlyNewShardsAreFresh) {
    ASSERT_TRUE(register_store(1, 1));
    const auto created = create("vol", 2 * gib, 1, gib);
    const uint64_t first = created->id() << shard_index_bits;
    EXPECT_TRUE(fake(1).shards.at(first).fresh() && fake(1).shards.at(first + 1).fresh());
    ASSERT_TRUE(resize("vol", 3 * gib));
    EXPECT_FALSE(fake(1).shards.at(first + 1).fresh());
    EXPECT_TRUE(fake(1).shards.at(first + 2).fresh());
    ASSERT_TRUE(register_store(1, 1, 2));
    for (uint64_t i = 0; i < 3; ++i) EXPECT_FALSE(fake(1).shards.at(first + i).fresh()) << i;
}

TEST_F(CoreTest, RpcAnswersAndRefuses) {
    ASSERT_TRUE(register_store(1, 1));
    RpcServer server(*core_);
    EXPECT_EQ(reactor_.run(server.answer("\xff\xff", 1)).error().code, Errc::protocol);
    v1::RpcRequest request;
    request.mutable_apply_shards();
    EXPECT_EQ(reactor_.run(server.answer(request.SerializeAsString(), 1)).error().code,
              Errc::unsupported);
    request.mutable_create_volume()->set_name("vol");
    request.mutable_create_volume()->set_size_bytes(gib);
    const auto bytes = reactor_.run(server.answer(request.SerializeAsString(), 1));
    ASSERT_TRUE(bytes);
    v1::RpcReply reply;
    ASSERT_TRUE(reply.ParseFromString(*bytes));
    EXPECT_EQ(reply.volume().name(), "vol");
    // A client that is gone while its open runs leaves no handle.
    request.mutable_open_volume()->set_name("vol");
    ASSERT_TRUE(reactor_.run(server.answer(request.SerializeAsString(), 99)));
    EXPECT_EQ(core_->status().open_handles, 0u);
}

}  // namespace
}  // namespace pf::conductor

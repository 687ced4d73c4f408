// What the tests of the core share. Goal: the control plane keeps its promises over crashes,
// failures and refusals. Method: the core on the in-memory engine and fake stores, in virtual time;
// a restart is a new core over the same store of keys.
#pragma once

#include <gtest/gtest.h>

#include "base/log.hpp"
#include "conductor/core.hpp"
#include "conductor/fake_stores.hpp"
#include "conductor/rpc_server.hpp"
#include "meta/memory_engine.hpp"
#include "meta/test_reactor.hpp"

namespace pf::conductor {

using runtime::milliseconds;
using runtime::seconds;
using runtime::Task;

inline constexpr uint64_t gib = uint64_t{1} << 30;

inline std::string tray_uuid(uint32_t store, uint32_t tray) {
    return "00000000-0000-4000-8000-0000000000" + std::to_string(store) + std::to_string(tray);
}
inline std::string store_address(uint32_t store) {
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

}  // namespace pf::conductor

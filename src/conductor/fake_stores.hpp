// Stores for tests: keep what the conductor told them, and fail when they are told to.
#pragma once

#include <map>
#include <set>

#include "conductor/store_link.hpp"
#include "runtime/reactor.hpp"

namespace pf::conductor {

class FakeStores : public StoreLink {
  public:
    struct State {
        bool reachable = true;
        uint32_t fail_after = UINT32_MAX;  // calls from now on that succeed
        std::map<uint64_t, v1::ApplyShard> shards;
        std::map<std::string, std::string> trays;  // uuid -> path
        std::map<std::string, std::string> disks;  // path -> uuid of the tray that is there already
        uint64_t applies = 0;
        v1::AddTrayRequest last_add;
        std::set<uint64_t> damaged;        // shards that lost writes (T7)
        std::set<std::string> lost_trays;  // not mounted
    };

    [[nodiscard]] runtime::Task<Result<v1::RpcReply>> call(std::string address,
                                                           v1::RpcRequest request,
                                                           runtime::Nanos timeout) override {
        State& store = stores[address];
        if (!store.reachable) {
            co_await runtime::sleep_for(std::min(timeout, runtime::milliseconds));
            co_return fail(Errc::disconnected);
        }
        co_await runtime::sleep_for(10 * runtime::microseconds);
        if (store.fail_after == 0) co_return fail(Errc::io_error, "the store was told to fail");
        if (store.fail_after != UINT32_MAX) --store.fail_after;
        co_return answer(store, request);
    }
    [[nodiscard]] runtime::Task<void> close() override { co_return; }

    std::map<std::string, State> stores;  // by address

  private:
    Result<v1::RpcReply> answer(State& store, const v1::RpcRequest& request) {
        v1::RpcReply reply;
        if (request.has_apply_shards()) {
            for (const auto& shard : request.apply_shards().shards()) {
                if (store.lost_trays.contains(shard.tray_uuid()))
                    return fail(Errc::unavailable, "not mounted: " + shard.tray_uuid());
                const auto known = store.shards.find(shard.shard().id());
                if (known != store.shards.end() &&
                    shard.shard().size_bytes() < known->second.shard().size_bytes())
                    return fail(Errc::invalid_argument, "a shard never shrinks");
                store.shards.insert_or_assign(shard.shard().id(), shard);
                ++store.applies;
            }
            reply.mutable_apply_shards();
        } else if (request.has_delete_shards()) {
            for (const uint64_t id : request.delete_shards().shard_ids()) store.shards.erase(id);
            reply.mutable_delete_shards();
        } else if (request.has_add_tray()) {
            const auto disk = store.disks.find(request.add_tray().path());
            const std::string uuid =
                disk != store.disks.end()
                    ? disk->second
                    : "00000000-0000-4000-8000-00000000" + std::to_string(next_tray_++);
            store.last_add = request.add_tray();
            store.trays.emplace(uuid, request.add_tray().path());
            auto& tray = *reply.mutable_tray();
            tray.set_uuid(uuid);
            tray.set_path(request.add_tray().path());
            tray.set_capacity_bytes(request.add_tray().create_bytes());
            tray.set_free_bytes(request.add_tray().create_bytes());
            tray.set_incarnation(disk != store.disks.end() ? ++next_incarnation_ : 1);
            tray.set_health(v1::HEALTH_OK);
        } else if (request.has_accept_loss()) {
            uint32_t accepted = 0;
            for (const uint64_t id : request.accept_loss().shard_ids()) {
                accepted += static_cast<uint32_t>(store.damaged.erase(id));
            }
            reply.mutable_accept_loss()->set_shards(accepted);
        } else if (request.has_remove_tray()) {
            store.trays.erase(request.remove_tray().tray_uuid());
            reply.mutable_remove_tray();
        } else {
            return fail(Errc::unsupported);
        }
        return reply;
    }
    uint32_t next_tray_ = 1000;
    uint64_t next_incarnation_ = 100;
};

}  // namespace pf::conductor

// Stores: registration, heartbeats, and giving one that (re)started its epochs.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.hpp"
#include "base/uuid.hpp"
#include "conductor/core.hpp"
#include "conductor/keys.hpp"
#include "runtime/network.hpp"

namespace pf::conductor {

using runtime::Task;

namespace {

// What is persisted of a store: what is only true now is left out.
v1::Store persistent(const v1::Store& store, uint32_t id) {
    v1::Store record;
    record.set_id(id);
    record.set_uuid(store.uuid());
    record.set_data_address(store.data_address());
    record.set_http_address(store.http_address());
    record.set_version(store.version());
    return record;
}

Status check_registration(const v1::RegisterStoreRequest& request, const v1::Cluster& cluster) {
    if (!request.cluster_uuid().empty() && request.cluster_uuid() != cluster.uuid()) {
        return fail(Errc::invalid_argument,
                    fmt::format("the store belongs to cluster {}, this is cluster {}",
                                request.cluster_uuid(), cluster.uuid()));
    }
    PF_TRY(Uuid::parse(request.store().uuid()));
    PF_TRY(runtime::Address::parse(request.store().data_address()));
    if (static_cast<uint32_t>(request.store().trays_size()) > max_trays_per_store) {
        return fail(Errc::resource_exhausted,
                    fmt::format("the store has {} trays: at most {} are taken",
                                request.store().trays_size(), max_trays_per_store));
    }
    for (const auto& tray : request.store().trays()) PF_TRY(Uuid::parse(tray.uuid()));
    return {};
}

}  // namespace

Task<Result<v1::RegisterStoreReply>> Core::register_store(v1::RegisterStoreRequest request) {
    PF_CO_TRY(check_serving());
    PF_CO_TRY(check_registration(request, cluster_->record));
    co_await registering_.lock();
    const Unlock unlock(registering_);
    const StoreEntry* known = cluster_->store_by_uuid(request.store().uuid());
    uint32_t id = known == nullptr ? 0 : known->record.id();
    if (request.store().id() != 0 && request.store().id() != id) {
        co_return fail(Errc::invalid_argument,
                       fmt::format("store {} calls itself {}: its identity file is another's",
                                   request.store().uuid(), request.store().id()));
    }
    if (id == 0) {
        if (cluster_->stores.size() >= max_stores) {
            co_return fail(Errc::resource_exhausted,
                           fmt::format("the cluster has its {} stores", max_stores));
        }
        const Result<uint64_t> number = co_await next_number(store_ids_);
        if (!number) co_return std::unexpected<Error>(number.error());
        id = static_cast<uint32_t>(*number);
    }
    PF_CO_TRY(co_await save_store(id, request));
    for (auto& [uuid, tray] : cluster_->trays) {
        if (tray.record.store_id() != id) continue;
        tray.record.set_health(v1::HEALTH_OFFLINE);
        tray.mounted = false;
    }
    StoreEntry& store = cluster_->stores.at(id);
    take_tray_reports(store, request.store().trays());
    store.online = true;
    store.last_heartbeat = reactor_.now();
    store.loads.clear();
    ++store.registration;
    ++counters_.registrations;
    log_info("store {} registered: {}, {} trays", id, store.record.data_address(),
             request.store().trays_size());
    run_in_background(activate_store(id, store.registration));

    v1::RegisterStoreReply reply;
    reply.set_store_id(id);
    reply.set_cluster_uuid(cluster_->record.uuid());
    reply.set_heartbeat_ms(
        static_cast<uint32_t>(options_.heartbeat_interval / runtime::milliseconds));
    co_return reply;
}

Task<Status> Core::save_store(uint32_t store_id, v1::RegisterStoreRequest request) {
    v1::Store record = persistent(request.store(), store_id);
    const auto present = cluster_->stores.find(store_id);
    const meta::Version version = present == cluster_->stores.end() ? 0 : present->second.version;
    const std::string value = record.SerializeAsString();
    if (version == 0 || value != present->second.record.SerializeAsString()) {
        meta::Transaction transaction;
        transaction.expect(keys::store(store_id), version).put(keys::store(store_id), value);
        const auto saved = co_await commit(std::move(transaction));
        if (!saved) co_return std::unexpected<Error>(saved.error());
        StoreEntry& store = cluster_->stores[store_id];
        store.record = std::move(record);
        store.version = *saved;
    }
    for (const auto& tray : request.store().trays()) {
        const auto known = cluster_->trays.find(tray.uuid());
        const bool is_known = known != cluster_->trays.end();
        if (is_known && known->second.record.store_id() == store_id) continue;
        const uint32_t home = cluster_->home_of(tray.uuid());
        // Another store's goes on being that, unless it is here now and has nothing that is there.
        if (is_known && ((home != 0 && home != store_id) || tray.incarnation() == 0 ||
                         cluster_->mounted_at_home(known->second))) {
            continue;
        }
        v1::Tray fresh = tray;
        // One that was forgotten belongs where its shards are, which get their epochs as after any
        // mount.
        fresh.set_store_id(home != 0 ? home : store_id);
        if (home != 0) fresh.set_incarnation(0);
        PF_CO_TRY(co_await save_tray(std::move(fresh)));
    }
    co_return Status{};
}

Result<v1::HeartbeatReply> Core::heartbeat(const v1::HeartbeatRequest& request) {
    PF_TRY(check_serving());
    v1::HeartbeatReply reply;
    const auto found = cluster_->stores.find(request.store_id());
    if (found == cluster_->stores.end() || !found->second.online) {
        reply.set_register_again(!request.stopping());
        return reply;
    }
    if (static_cast<uint32_t>(request.trays_size()) > max_trays_per_store ||
        static_cast<uint32_t>(request.loads_size()) > max_loads_per_heartbeat) {
        return fail(Errc::resource_exhausted, "too many trays or loads in one heartbeat");
    }
    ++counters_.heartbeats;
    StoreEntry& store = found->second;
    store.last_heartbeat = reactor_.now();
    bool remounted = false;
    for (const auto& report : request.trays()) {
        const auto tray = cluster_->trays.find(report.uuid());
        if (tray == cluster_->trays.end()) {
            // A tray that is being added is reported before its addition is finished here.
            if (store.adding == 0) reply.set_register_again(true);
            continue;
        }
        // Also one that was away for a while: an activation may have passed it over.
        const bool is_new = report.incarnation() > tray->second.seen_incarnation;
        remounted |= tray->second.record.store_id() == request.store_id() &&
                     report.incarnation() != 0 && (is_new || !tray->second.mounted);
    }
    take_tray_reports(store, request.trays());
    store.loads.assign(request.loads().begin(), request.loads().end());
    if (request.stopping()) {
        log_info("store {} is stopping", request.store_id());
        store.online = false;
        ++store.registration;
    } else if (remounted) {
        ++store.registration;
        run_in_background(activate_store(request.store_id(), store.registration));
    }
    return reply;
}

// Offline is a matter of monotonic time only: so many heartbeats were missed.
Task<void> Core::watch_heartbeats() {
    for (;;) {
        const bool go_on = co_await pause(options_.heartbeat_interval);
        if (!go_on) co_return;
        const runtime::Nanos patience = options_.heartbeat_interval * options_.heartbeats_missed;
        for (auto& [id, store] : cluster_->stores) {
            if (!store.online || reactor_.now() - store.last_heartbeat <= patience) continue;
            log_warning("store {} is offline: {} heartbeats missed", id,
                        options_.heartbeats_missed);
            store.online = false;
            ++store.registration;
        }
    }
}

bool Core::still_registered(uint32_t store_id, uint64_t registration) const {
    const auto store = cluster_->stores.find(store_id);
    return !stopping_ && store != cluster_->stores.end() && store->second.online &&
           store->second.registration == registration;
}

// R1: a store that restarted has no role until its shards get new epochs. Retried while the store
// stays registered; a later registration begins anew.
Task<void> Core::activate_store(uint32_t store_id, uint64_t registration) {
    std::set<std::string> told;  // trays
    std::string said;            // once for each reason
    while (still_registered(store_id, registration)) {
        const Status activated = co_await activate_trays(store_id, told);
        if (!still_registered(store_id, registration)) co_return;
        if (activated) {
            log_info("store {} is active", store_id);
            co_return;
        }
        const std::string why = activated.error().text();
        if (why != said) log_warning("store {} is not active yet: {}", store_id, why);
        said = why;
        const bool go_on = co_await pause(options_.retry_interval);
        if (!go_on) co_return;
    }
}

// Tray by tray: one that fails keeps none of the others waiting. One that is not mounted is
// activated after its mount.
Task<Status> Core::activate_trays(uint32_t store_id, std::set<std::string>& told) {
    std::vector<std::string> uuids;
    for (const auto& [uuid, tray] : cluster_->trays) {
        const bool serves = tray.mounted && !tray.refused;
        if (tray.record.store_id() == store_id && serves && !told.contains(uuid))
            uuids.push_back(uuid);
    }
    Status first;
    for (const auto& uuid : uuids) {
        const Status activated = co_await activate_tray(uuid);
        if (activated) {
            told.insert(uuid);
        } else if (first) {
            first = activated;
        }
    }
    co_return first;
}

Task<Status> Core::activate_tray(std::string uuid) {
    const auto known = cluster_->trays.find(uuid);
    if (known == cluster_->trays.end()) co_return Status{};
    const uint64_t incarnation = known->second.seen_incarnation;
    std::vector<Volume> volumes;
    for (const auto& [id, volume] : cluster_->volumes) volumes.push_back(volume);
    Status first;
    for (const auto& volume : volumes) {
        const Status activated = co_await activate_volume(volume, uuid);
        if (activated) continue;
        if (first) first = activated;
        if (is_away(activated.error().code)) break;
    }
    PF_CO_TRY(first);
    // After the epochs: if we crash in between, the epochs are raised once more, which is harmless.
    const auto tray = cluster_->trays.find(uuid);
    if (tray == cluster_->trays.end()) co_return Status{};
    if (tray->second.record.incarnation() == incarnation) co_return Status{};
    v1::Tray record = tray->second.record;
    record.set_incarnation(incarnation);
    co_return co_await save_tray(std::move(record));
}

Task<Status> Core::activate_volume(Volume volume, std::string tray_uuid) {
    co_await volume->mutex.lock();
    const Unlock unlock(volume->mutex);
    if (volume->record.deleting()) co_return Status{};
    PF_CO_TRY(co_await raise_epochs(volume, tray_uuid));
    co_return co_await apply_shards(volume, 0, UINT32_MAX, std::move(tray_uuid));
}

// Once for each mount: a store that could not be told at first is told the same epochs again.
Task<Status> Core::raise_epochs(Volume volume, std::string tray_uuid) {
    const auto on_tray = [&](const v1::Replica& replica) {
        return replica.tray_uuid() == tray_uuid;
    };
    const uint64_t id = volume->record.id();
    auto tray = cluster_->trays.find(tray_uuid);
    if (tray == cluster_->trays.end() || tray->second.refused) co_return Status{};
    const uint64_t incarnation = tray->second.seen_incarnation;
    if (incarnation == tray->second.record.incarnation() || tray->second.raised.contains(id))
        co_return Status{};
    bool raised = false;
    for (uint32_t index = 0; index < volume->stored_shards(); ++index) {
        v1::Shard& shard = volume->shard(index);
        if (std::ranges::none_of(shard.in_sync(), on_tray)) continue;
        shard.set_epoch(shard.epoch() + 1);
        raised = true;
    }
    if (!raised) co_return Status{};
    PF_CO_TRY(co_await save_pages(volume, 0));
    tray = cluster_->trays.find(tray_uuid);
    if (tray != cluster_->trays.end() && tray->second.seen_incarnation == incarnation)
        tray->second.raised.insert(id);
    co_return Status{};
}

std::vector<v1::Store> Core::list_stores() const {
    std::vector<v1::Store> out;
    for (const auto& [id, store] : cluster_->stores) {
        out.push_back(cluster_->show(store, reactor_.now()));
    }
    return out;
}

Result<v1::Store> Core::show_store(uint32_t id) const {
    const auto store = cluster_->stores.find(id);
    if (store == cluster_->stores.end()) {
        return fail(Errc::not_found,
                    fmt::format("store {} does not exist: 'store list' shows those that do", id));
    }
    return cluster_->show(store->second, reactor_.now());
}

}  // namespace pf::conductor

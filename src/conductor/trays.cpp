// Trays: what stores report of them, and those that an operator adds and removes.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.hpp"
#include "base/paths.hpp"
#include "base/uuid.hpp"
#include "conductor/core.hpp"
#include "conductor/keys.hpp"

namespace pf::conductor {

using runtime::Task;

Task<Status> Core::save_tray(v1::Tray record) {
    const std::string key = keys::tray(record.uuid());
    const auto known = cluster_->trays.find(record.uuid());
    meta::Transaction transaction;
    transaction.expect(key, known == cluster_->trays.end() ? 0 : known->second.version)
        .put(key, record.SerializeAsString());
    const auto saved = co_await commit(std::move(transaction));
    if (!saved) co_return std::unexpected<Error>(saved.error());
    const auto [place, fresh] = cluster_->trays.try_emplace(record.uuid());
    TrayEntry& tray = place->second;
    tray.version = *saved;
    tray.seen_incarnation = std::max(tray.seen_incarnation, record.incarnation());
    if (tray.seen_incarnation == record.incarnation()) tray.raised.clear();
    tray.record = std::move(record);
    if (fresh) cluster_->count_replicas_of(tray);
    co_return Status{};
}

void Core::take_tray_report(uint32_t store_id, const v1::Tray& report) {
    const auto found = cluster_->trays.find(report.uuid());
    if (found == cluster_->trays.end()) return;  // added by hand: known after the next registration
    TrayEntry& tray = found->second;
    const auto refuse = [&](std::string why) {
        // Once for each reason, though a report of its own store may come in between.
        if (tray.said != why) log_error("tray {} is refused: {}", report.uuid(), why);
        tray.said = why;
        tray.refused = true;
        tray.record.set_message(std::move(why));
    };
    if (tray.record.store_id() != store_id) {
        // A copy: what serves where it belongs goes on.
        if (cluster_->mounted_at_home(tray)) return;
        return refuse(fmt::format("store {} reports it, but its replicas belong to store {}",
                                  store_id, tray.record.store_id()));
    }
    // R16: an older incarnation is an old disk or a restored image; it never serves. One that is
    // not mounted has none, and its store says why.
    const bool mounted = report.incarnation() != 0;
    tray.mounted = mounted;
    if (mounted &&
        report.incarnation() < std::max(tray.seen_incarnation, tray.record.incarnation())) {
        return refuse(
            fmt::format("it came back with incarnation {} after {}: an old disk or a "
                        "restored image",
                        report.incarnation(), tray.seen_incarnation));
    }
    const uint64_t incarnation = tray.record.incarnation();
    tray.refused = false;
    if (mounted) tray.said.clear();
    if (mounted && tray.seen_incarnation != report.incarnation()) {
        tray.seen_incarnation = report.incarnation();
        tray.raised.clear();
    }
    tray.record = report;
    tray.record.set_store_id(store_id);
    tray.record.set_incarnation(incarnation);  // until activation has persisted the new one
    if (tray.record.health() == v1::HEALTH_UNSPECIFIED) tray.record.set_health(v1::HEALTH_OK);
}

void Core::take_tray_reports(StoreEntry& store,
                             const google::protobuf::RepeatedPtrField<v1::Tray>& reports) {
    const uint32_t store_id = store.record.id();
    std::set<std::string> named;
    for (const auto& report : reports) named.insert(report.uuid());
    for (const auto& uuid : store.reported) {
        const auto found = cluster_->trays.find(uuid);
        if (found == cluster_->trays.end() || named.contains(uuid)) continue;
        TrayEntry& tray = found->second;
        if (tray.record.store_id() == store_id) {
            log_warning("tray {}: store {} does not have it any more", uuid, store_id);
            tray.mounted = false;
            tray.record.set_health(v1::HEALTH_OFFLINE);
        } else if (cluster_->mounted_at_home(tray)) {
            continue;  // a copy was taken away
        }
        tray.refused = false;
        tray.said.clear();
        tray.record.clear_message();
    }
    store.reported = std::move(named);
    for (const auto& report : reports) take_tray_report(store_id, report);
}

std::vector<v1::Tray> Core::list_trays() const {
    std::vector<v1::Tray> out;
    for (const auto& [uuid, tray] : cluster_->trays) out.push_back(cluster_->show(tray));
    return out;
}

Task<Result<v1::Tray>> Core::add_tray(uint32_t store_id, v1::AddTrayRequest request) {
    PF_CO_TRY(check_serving());
    if (store_id == 0 && cluster_->stores.size() == 1) {
        store_id = cluster_->stores.begin()->first;
    }
    const auto store = cluster_->stores.find(store_id);
    if (store_id != 0 && store == cluster_->stores.end()) {
        co_return fail(
            Errc::not_found,
            fmt::format("store {} does not exist: 'store list' shows those that do", store_id));
    }
    if (store != cluster_->stores.end()) ++store->second.adding;
    Result<v1::Tray> added = co_await add_tray_at(store_id, std::move(request));
    if (store != cluster_->stores.end()) --store->second.adding;
    co_return added;
}

Task<Result<v1::Tray>> Core::add_tray_at(uint32_t store_id, v1::AddTrayRequest request) {
    PF_CO_TRY(check_tray_path(request.path()));
    if (request.path().empty() || request.path().front() != '/') {
        co_return fail(Errc::invalid_argument,
                       fmt::format("tray path '{}' is not an absolute path of a device or file",
                                   request.path()));
    }
    if (store_id == 0) {
        co_return fail(Errc::invalid_argument,
                       fmt::format("the cluster has {} stores: say which with --store",
                                   cluster_->stores.size()));
    }
    request.set_cluster_uuid(cluster_->record.uuid());
    // Also for a store that lost its own list.
    request.set_mount_only(std::ranges::any_of(cluster_->trays, [&](const auto& each) {
        const TrayEntry& tray = each.second;
        return tray.replicas > 0 && tray.record.store_id() == store_id &&
               tray.record.path() == request.path();
    }));
    v1::RpcRequest rpc;
    *rpc.mutable_add_tray() = std::move(request);
    const auto reply = co_await call_store(store_id, std::move(rpc));
    if (!reply) co_return std::unexpected<Error>(reply.error());
    co_return co_await adopt_tray(store_id, reply->tray());
}

Task<Result<v1::Tray>> Core::adopt_tray(uint32_t store_id, v1::Tray record) {
    PF_CO_TRY(Uuid::parse(record.uuid()));
    record.set_store_id(store_id);
    if (record.health() == v1::HEALTH_UNSPECIFIED) record.set_health(v1::HEALTH_OK);
    const std::string uuid = record.uuid();
    uint32_t home = cluster_->home_of(uuid);
    const auto known = cluster_->trays.find(uuid);
    const bool ours = known != cluster_->trays.end() && known->second.record.store_id() == store_id;
    if (!ours && known != cluster_->trays.end() && cluster_->mounted_at_home(known->second))
        home = known->second.record.store_id();  // this is a copy
    if (home != 0 && home != store_id) {
        const Status refused = co_await give_back(store_id, home, std::move(record));
        co_return std::unexpected<Error>(refused.error());
    }
    if (home != 0 && !ours) {
        v1::Tray forgotten = record;
        forgotten.set_incarnation(0);
        PF_CO_TRY(co_await save_tray(std::move(forgotten)));
    }
    if (home != 0 || ours) {
        // A tray that was here before: its shards get their epochs as after any mount.
        take_tray_report(store_id, record);
        StoreEntry& store = cluster_->stores.at(store_id);
        ++store.registration;
        run_in_background(activate_store(store_id, store.registration));
        co_return cluster_->show(cluster_->trays.at(uuid));
    }
    PF_CO_TRY(co_await save_tray(record));
    take_tray_report(store_id, record);
    log_info("tray {} added to store {}", uuid, store_id);
    // What was at its path is gone: it was formatted over.
    const TrayEntry& added = cluster_->trays.at(uuid);
    for (auto& [other_uuid, other] : cluster_->trays) {
        if (other_uuid == uuid || other.record.store_id() != store_id ||
            other.record.path() != added.record.path()) {
            continue;
        }
        other.refused = false;
        other.mounted = false;
        other.record.set_health(v1::HEALTH_OFFLINE);
        other.record.clear_lost();
    }
    co_return cluster_->show(added);
}

Task<Status> Core::give_back(uint32_t store_id, uint32_t home, v1::Tray tray) {
    v1::RpcRequest rpc;
    rpc.mutable_remove_tray()->set_tray_uuid(tray.uuid());
    rpc.mutable_remove_tray()->set_force(true);
    const auto reply = co_await call_store(store_id, std::move(rpc));
    std::string what_now = fmt::format("start that store, or add it with --store {}", home);
    if (!reply) {
        what_now = fmt::format("store {} could not let go of it again ({})", store_id,
                               reply.error().text());
    }
    co_return fail(Errc::conflict, fmt::format("'{}' is tray {}, which belongs to store {}: {}",
                                               tray.path(), tray.uuid(), home, what_now));
}

Task<Status> Core::remove_tray(v1::RemoveTrayRequest request) {
    PF_CO_TRY(check_serving());
    const auto found = cluster_->trays.find(request.tray_uuid());
    if (found == cluster_->trays.end()) {
        co_return fail(Errc::not_found,
                       fmt::format("tray '{}' does not exist: 'tray list' shows those that do",
                                   request.tray_uuid()));
    }
    const uint32_t store_id = found->second.record.store_id();
    if (found->second.replicas > 0 && !request.force()) {
        co_return fail(Errc::busy,
                       fmt::format("tray {} holds {} shards, whose data would be lost: delete "
                                   "their volumes first, or use --force",
                                   request.tray_uuid(), found->second.replicas));
    }
    const std::string uuid = request.tray_uuid();
    const bool force = request.force();
    v1::RpcRequest rpc;
    *rpc.mutable_remove_tray() = std::move(request);
    // Also of stores that report it and do not own it, which would bring it back.
    std::vector<uint32_t> holders = {store_id};
    for (const auto& [id, store] : cluster_->stores) {
        if (id != store_id && store.online && store.reported.contains(uuid)) holders.push_back(id);
    }
    for (const uint32_t holder : holders) {
        const auto reply = co_await call_store(holder, rpc);
        if (reply || reply.error().code == Errc::not_found) continue;
        // A store that will never come back must not keep its trays listed for ever. One that
        // answers that it still has the tray would only bring it back with its next heartbeat.
        const Errc why = reply.error().code;
        const bool away = is_away(why) || why == Errc::unavailable;
        if (!force || !away) co_return std::unexpected<Error>(reply.error());
    }
    meta::Transaction transaction;
    transaction.remove(keys::tray(uuid));
    const auto removed = co_await commit(std::move(transaction));
    if (!removed) co_return std::unexpected<Error>(removed.error());
    cluster_->trays.erase(uuid);
    log_info("tray {} removed from store {}", uuid, store_id);
    co_return Status{};
}

}  // namespace pf::conductor

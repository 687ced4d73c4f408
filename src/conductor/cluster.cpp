#include "conductor/cluster.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/assert.hpp"

namespace pf::conductor {

uint32_t VolumeEntry::stored_shards() const {
    if (pages.empty()) return 0;
    const auto full = static_cast<uint32_t>(pages.size() - 1) * shards_per_page;
    return full + static_cast<uint32_t>(pages.back().shards.shards_size());
}

v1::Shard& VolumeEntry::shard(uint32_t index) {
    return *pages[index / shards_per_page].shards.mutable_shards(
        static_cast<int>(index % shards_per_page));
}
const v1::Shard& VolumeEntry::shard(uint32_t index) const {
    return pages[index / shards_per_page].shards.shards(static_cast<int>(index % shards_per_page));
}

std::set<std::string> VolumeEntry::tray_uuids() const {
    std::set<std::string> out;
    for (uint32_t i = 0; i < stored_shards(); ++i) {
        for (const auto& replica : shard(i).in_sync()) out.insert(replica.tray_uuid());
        for (const auto& replica : shard(i).recovering()) out.insert(replica.tray_uuid());
    }
    return out;
}

Result<std::shared_ptr<VolumeEntry>> Cluster::find_volume(std::string_view name) const {
    const auto found = names.find(name);
    if (found == names.end() || found->second == 0) {
        return fail(
            Errc::not_found,
            fmt::format("volume '{}' does not exist: 'volume list' shows those that do", name));
    }
    return volumes.at(found->second);
}

const StoreEntry* Cluster::store_by_uuid(std::string_view uuid) const {
    for (const auto& [id, store] : stores) {
        if (store.record.uuid() == uuid) return &store;
    }
    return nullptr;
}

v1::Health Cluster::tray_health(const TrayEntry& tray) const {
    if (tray.refused) return v1::HEALTH_ERROR;
    const auto store = stores.find(tray.record.store_id());
    if (store == stores.end() || !store->second.online) return v1::HEALTH_OFFLINE;
    return tray.record.health();
}

bool Cluster::mounted_at_home(const TrayEntry& tray) const {
    const auto store = stores.find(tray.record.store_id());
    return store != stores.end() && store->second.online && tray.mounted;
}

bool Cluster::tray_serves(const TrayEntry& tray) const {
    const v1::Health health = tray_health(tray);
    return health == v1::HEALTH_OK || health == v1::HEALTH_DEGRADED;
}

uint32_t Cluster::lost_shards(const VolumeEntry& volume) const {
    uint32_t shards = 0;
    for (const auto& [uuid, tray] : trays) {
        for (const auto& lost : tray.record.lost()) {
            if (lost.volume_id() == volume.record.id()) shards += lost.shards();
        }
    }
    return shards;
}

v1::Health Cluster::volume_health(const VolumeEntry& volume) const {
    // One replica for each shard so far: the volume is as well as the worst of its trays.
    v1::Health worst = v1::HEALTH_OK;
    for (const auto& uuid : volume.tray_uuids()) {
        const auto tray = trays.find(uuid);
        const auto health = tray == trays.end() ? v1::HEALTH_ERROR : tray_health(tray->second);
        if (health == v1::HEALTH_OFFLINE) return health;
        worst = std::max(worst, health);
    }
    if (lost_shards(volume) > 0) return v1::HEALTH_ERROR;
    return worst;
}

// With the names that the store does not know.
std::string Cluster::loss_message(const v1::Tray& tray) const {
    constexpr int most = 8;
    std::string named;
    uint32_t shards = 0;
    for (int i = 0; i < tray.lost_size(); ++i) {
        const v1::LostData& lost = tray.lost(i);
        shards += lost.shards();
        if (i >= most) continue;
        const auto volume = volumes.find(lost.volume_id());
        named += fmt::format("{}{}", i == 0 ? "" : ", ",
                             volume == volumes.end() ? fmt::format("{} (deleted)", lost.volume_id())
                                                     : volume->second->record.name());
    }
    if (tray.lost_size() > most) named += fmt::format(" and {} more", tray.lost_size() - most);
    return fmt::format(
        "{} shards of the volumes {} may have lost writes and answer no I/O: 'pfcli volume "
        "accept-loss NAME --force' lets them go on with what is left",
        shards, named);
}

std::string Cluster::absence_message(const TrayEntry& tray) const {
    const auto store = stores.find(tray.record.store_id());
    if (store == stores.end() || !store->second.online) return {};
    if (tray_health(tray) != v1::HEALTH_OFFLINE) return {};
    std::string why = "its store does not have it";
    for (const auto& [uuid, other] : trays) {
        const bool there = other.record.store_id() == tray.record.store_id() &&
                           other.record.path() == tray.record.path() &&
                           tray_health(other) != v1::HEALTH_OFFLINE;
        if (there) why = fmt::format("tray {} is in its place", uuid);
    }
    return fmt::format(
        "{}: 'pfcli tray remove {}{}' forgets it{}", why, tray.record.uuid(),
        tray.replicas > 0 ? " --force" : "",
        tray.replicas > 0 ? fmt::format(" and the data of its {} shards", tray.replicas) : "");
}

std::string Cluster::outage_message(const VolumeEntry& volume) const {
    for (const auto& uuid : volume.tray_uuids()) {
        const auto found = trays.find(uuid);
        if (found != trays.end() && tray_serves(found->second)) continue;
        std::string why = "it was removed";
        if (found != trays.end()) {
            const v1::Tray tray = show(found->second);
            why = tray.health() == v1::HEALTH_OFFLINE && tray.message().empty()
                      ? fmt::format("store {} is not reachable", tray.store_id())
                      : fmt::format("at '{}': {}", tray.path(), tray.message());
        }
        return fmt::format("tray {} does not serve, and I/O to its part of the volume waits: {}",
                           uuid, why);
    }
    return {};
}

v1::Volume Cluster::show(const VolumeEntry& volume) const {
    v1::Volume out = volume.record;
    out.set_health(volume_health(volume));
    out.set_open_handles(volume.open_handles);
    out.set_lost_shards(lost_shards(volume));
    if (out.lost_shards() > 0) {
        out.set_message(fmt::format(
            "{} of its {} shards may have lost writes and answer no I/O: 'pfcli volume accept-loss "
            "{} --force' lets them go on with what is left",
            out.lost_shards(), out.shard_count(), out.name()));
    }
    const std::string outage = outage_message(volume);
    if (!outage.empty()) out.set_message(outage);
    return out;
}

v1::Tray Cluster::show(const TrayEntry& tray) const {
    v1::Tray out = tray.record;
    out.set_health(tray_health(tray));
    if (out.lost_size() > 0) out.set_message(loss_message(out));
    const std::string absent = absence_message(tray);
    if (!absent.empty()) out.set_message(absent);
    return out;
}

v1::Store Cluster::show(const StoreEntry& store, runtime::Nanos now) const {
    v1::Store out = store.record;
    out.set_health(store.online ? v1::HEALTH_OK : v1::HEALTH_OFFLINE);
    if (store.last_heartbeat != 0) {
        out.set_last_heartbeat_ms((now - store.last_heartbeat) / runtime::milliseconds);
    }
    out.clear_trays();
    for (const auto& [uuid, tray] : trays) {
        if (tray.record.store_id() != store.record.id()) continue;
        *out.add_trays() = show(tray);
        if (store.online && tray_health(tray) != v1::HEALTH_OK) {
            out.set_health(v1::HEALTH_DEGRADED);
        }
    }
    return out;
}

void Cluster::count_replicas(const VolumeEntry& volume, uint32_t first_index, int direction) {
    const auto count = [&](const v1::Replica& replica, uint64_t size_bytes) {
        const auto found = trays.find(replica.tray_uuid());
        if (found == trays.end()) return;
        TrayEntry& tray = found->second;
        PF_ASSERT(direction > 0 || (tray.replicas > 0 && tray.promised_bytes >= size_bytes));
        tray.replicas += static_cast<uint32_t>(direction);
        tray.promised_bytes += static_cast<uint64_t>(direction) * size_bytes;
    };
    for (uint32_t i = first_index; i < volume.stored_shards(); ++i) {
        const v1::Shard& shard = volume.shard(i);
        for (const auto& replica : shard.in_sync()) count(replica, shard.size_bytes());
        for (const auto& replica : shard.recovering()) count(replica, shard.size_bytes());
    }
}

void Cluster::count_replicas_of(TrayEntry& tray) const {
    tray.replicas = 0;
    tray.promised_bytes = 0;
    const auto count = [&](const v1::Replica& replica, uint64_t size_bytes) {
        if (replica.tray_uuid() != tray.record.uuid()) return;
        ++tray.replicas;
        tray.promised_bytes += size_bytes;
    };
    for (const auto& [id, volume] : volumes) {
        for (uint32_t i = 0; i < volume->stored_shards(); ++i) {
            const v1::Shard& shard = volume->shard(i);
            for (const auto& replica : shard.in_sync()) count(replica, shard.size_bytes());
            for (const auto& replica : shard.recovering()) count(replica, shard.size_bytes());
        }
    }
}

uint32_t Cluster::home_of(const std::string& tray_uuid) const {
    for (const auto& [id, volume] : volumes) {
        for (uint32_t i = 0; i < volume->stored_shards(); ++i) {
            const v1::Shard& shard = volume->shard(i);
            for (const auto* replicas : {&shard.in_sync(), &shard.recovering()}) {
                for (const auto& replica : *replicas) {
                    if (replica.tray_uuid() == tray_uuid) return replica.store_id();
                }
            }
        }
    }
    return 0;
}

}  // namespace pf::conductor

#include "conductor/placement.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace pf::conductor {

Status check_replicas(const Cluster& cluster, uint32_t replicas) {
    if (replicas == 0) return fail(Errc::invalid_argument, "replicas must be at least 1");
    if (replicas > cluster.stores.size()) {
        // None at all: it is starting, and trying again helps.
        return fail(cluster.stores.empty() ? Errc::unavailable : Errc::invalid_argument,
                    fmt::format("{} replicas need {} stores, but the cluster has {}: add stores or "
                                "ask for fewer replicas",
                                replicas, replicas, cluster.stores.size()));
    }
    if (replicas > 1) {
        return fail(
            Errc::unsupported,
            fmt::format("{} replicas: this version places 1 replica of each shard", replicas));
    }
    return {};
}

Placement::Placement(const Cluster& cluster) : store_count_(cluster.stores.size()) {
    for (const auto& [uuid, tray] : cluster.trays) {
        if (!cluster.tray_serves(tray)) continue;
        const uint64_t free_bytes = tray.record.free_bytes();
        const auto unpromised = static_cast<int64_t>(tray.record.capacity_bytes()) -
                                static_cast<int64_t>(tray.promised_bytes);
        candidates_.push_back({{uuid, tray.record.store_id()},
                               std::min(static_cast<int64_t>(free_bytes), unpromised),
                               free_bytes,
                               cluster.tray_health(tray) == v1::HEALTH_OK});
    }
}

Result<std::vector<TrayChoice>> Placement::choose(uint32_t replicas, uint64_t shard_bytes) {
    std::vector<TrayChoice> chosen;
    while (chosen.size() < replicas) {
        Candidate* best = nullptr;
        for (auto& candidate : candidates_) {
            const bool taken = std::any_of(chosen.begin(), chosen.end(), [&](const auto& tray) {
                return tray.store_id == candidate.tray.store_id;
            });
            if (taken) continue;
            const auto rank = [](const Candidate& of) {
                return std::tuple(of.healthy, of.room_bytes, of.free_bytes);
            };
            if (best == nullptr || rank(candidate) > rank(*best)) best = &candidate;
        }
        if (best == nullptr) {
            return fail(Errc::unavailable,
                        fmt::format("no serving tray for replica {} of {}: the cluster has {} "
                                    "stores and {} serving trays, see 'store list' and 'tray list'",
                                    chosen.size() + 1, replicas, store_count_, candidates_.size()));
        }
        best->room_bytes -= static_cast<int64_t>(shard_bytes);
        chosen.push_back(best->tray);
    }
    return chosen;
}

}  // namespace pf::conductor

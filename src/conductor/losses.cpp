// T7: an operator accepts that shards lost writes. Nothing is kept here: the marks are the trays',
// and what is shown comes from their reports. Every step can be repeated.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/log.hpp"
#include "conductor/core.hpp"

namespace pf::conductor {

using runtime::Task;

namespace {

constexpr size_t shards_per_call = 1024;

Status check_force(bool force, const std::string& what) {
    if (force) return {};
    return fail(Errc::conflict,
                fmt::format("what is left of {} may be older than what was written: use --force "
                            "to go on with it",
                            what));
}

}  // namespace

Task<Result<uint32_t>> Core::accept_loss(uint32_t store_id, v1::AcceptLossRequest request) {
    v1::RpcRequest rpc;
    *rpc.mutable_accept_loss() = std::move(request);
    const auto reply = co_await call_store(store_id, std::move(rpc));
    if (!reply) co_return std::unexpected<Error>(reply.error());
    co_return reply->accept_loss().shards();
}

Task<Result<uint32_t>> Core::accept_volume_loss(std::string name, bool force) {
    PF_CO_TRY(check_serving());
    PF_CO_TRY_ASSIGN(const Volume volume, cluster_->find_volume(name));
    PF_CO_TRY(check_force(force, fmt::format("volume '{}'", name)));
    co_await volume->mutex.lock();
    const Unlock unlock(volume->mutex);
    std::map<std::pair<uint32_t, std::string>, std::vector<uint64_t>> by_tray;
    for (uint32_t index = 0; index < volume->stored_shards(); ++index) {
        const v1::Shard& shard = volume->shard(index);
        for (const auto& replica : shard.in_sync()) {
            by_tray[{replica.store_id(), replica.tray_uuid()}].push_back(shard.id());
        }
    }
    uint32_t accepted = 0;
    for (const auto& [place, ids] : by_tray) {
        for (size_t begin = 0; begin < ids.size(); begin += shards_per_call) {
            v1::AcceptLossRequest request;
            request.set_tray_uuid(place.second);
            const size_t end = std::min(ids.size(), begin + shards_per_call);
            for (size_t i = begin; i < end; ++i) request.add_shard_ids(ids[i]);
            PF_CO_TRY_ASSIGN(const uint32_t shards,
                             co_await accept_loss(place.first, std::move(request)));
            accepted += shards;
        }
        // Shown at once; the next heartbeat says the same.
        const auto tray = cluster_->trays.find(place.second);
        if (tray == cluster_->trays.end()) continue;
        auto& lost = *tray->second.record.mutable_lost();
        for (int i = lost.size() - 1; i >= 0; --i) {
            if (lost[i].volume_id() == volume->record.id()) lost.DeleteSubrange(i, 1);
        }
    }
    log_warning("volume '{}': the loss of {} shards was accepted", name, accepted);
    co_return accepted;
}

Task<Result<uint32_t>> Core::accept_tray_loss(std::string uuid, bool force) {
    PF_CO_TRY(check_serving());
    const auto found = cluster_->trays.find(uuid);
    if (found == cluster_->trays.end()) {
        co_return fail(
            Errc::not_found,
            fmt::format("tray '{}' does not exist: 'tray list' shows those that do", uuid));
    }
    PF_CO_TRY(check_force(force, fmt::format("the volumes on tray {}", uuid)));
    v1::AcceptLossRequest request;
    request.set_tray_uuid(uuid);
    PF_CO_TRY_ASSIGN(const uint32_t accepted,
                     co_await accept_loss(found->second.record.store_id(), std::move(request)));
    const auto tray = cluster_->trays.find(uuid);
    if (tray != cluster_->trays.end()) tray->second.record.clear_lost();
    log_warning("tray {}: the loss of {} shards was accepted", uuid, accepted);
    co_return accepted;
}

}  // namespace pf::conductor

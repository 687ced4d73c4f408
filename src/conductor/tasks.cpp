// Trims: what deletes volumes, and undoes creations and resizes that were cut short. Each step can
// be repeated, so a task is resumed by running it again.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.hpp"
#include "conductor/core.hpp"
#include "conductor/keys.hpp"

namespace pf::conductor {

using runtime::Task;

namespace {
constexpr int shards_per_delete = 1024;
}

Task<void> Core::trim_until_done(Volume volume) {
    // Without end by intention: a store that comes back after a month gets its deletions then.
    for (;;) {
        const bool go_on = co_await pause(options_.retry_interval);
        if (!go_on) co_return;
        const Status trimmed = co_await trim_once(volume);
        if (trimmed) co_return;
        log_debug("trim of volume {}: {}", volume->record.id(), trimmed.error().text());
    }
}

Task<Status> Core::trim_once(Volume volume) {
    co_await volume->mutex.lock();
    const Unlock unlock(volume->mutex);
    const auto task = cluster_->tasks.find(volume->record.id());
    if (task == cluster_->tasks.end()) co_return Status{};
    const uint32_t keep = task->second.keep_shards();
    PF_CO_TRY(co_await delete_on_stores(volume, keep));
    PF_CO_TRY(co_await drop_pages(volume, keep));
    co_return co_await finish_trim(volume);
}

Task<Status> Core::delete_on_stores(Volume volume, uint32_t keep) {
    std::map<std::pair<uint32_t, std::string>, std::vector<uint64_t>> by_tray;
    for (uint32_t index = keep; index < volume->stored_shards(); ++index) {
        const v1::Shard& shard = volume->shard(index);
        const auto add = [&](const v1::Replica& replica) {
            // A tray that was removed from the cluster took its replicas along.
            if (!cluster_->trays.contains(replica.tray_uuid())) return;
            by_tray[{replica.store_id(), replica.tray_uuid()}].push_back(shard.id());
        };
        for (const auto& replica : shard.in_sync()) add(replica);
        for (const auto& replica : shard.recovering()) add(replica);
    }
    for (const auto& [place, ids] : by_tray) {
        for (size_t begin = 0; begin < ids.size(); begin += shards_per_delete) {
            v1::RpcRequest request;
            auto* remove = request.mutable_delete_shards();
            remove->set_tray_uuid(place.second);
            const size_t end = std::min<size_t>(ids.size(), begin + shards_per_delete);
            for (size_t i = begin; i < end; ++i) remove->add_shard_ids(ids[i]);
            const auto reply = co_await call_store(place.first, std::move(request));
            if (!reply) co_return std::unexpected<Error>(reply.error());
        }
    }
    co_return Status{};
}

// From the end, so that what is left is always the beginning of the volume.
Task<Status> Core::drop_pages(Volume volume, uint32_t keep) {
    const size_t whole_pages = (keep + shards_per_page - 1) / shards_per_page;
    while (volume->pages.size() > whole_pages) {
        meta::Transaction transaction;
        const size_t first = std::max(
            whole_pages,
            volume->pages.size() - std::min<size_t>(volume->pages.size(), pages_per_transaction));
        for (size_t page = first; page < volume->pages.size(); ++page) {
            transaction.remove(keys::shard_page(volume->record.id(), page));
        }
        const auto dropped = co_await commit(std::move(transaction));
        if (!dropped) co_return std::unexpected<Error>(dropped.error());
        cluster_->count_replicas(*volume, static_cast<uint32_t>(first * shards_per_page), -1);
        volume->pages.resize(first);
    }
    cluster_->count_replicas(*volume, keep, -1);
    if (keep % shards_per_page != 0) {
        auto& last = *volume->pages[whole_pages - 1].shards.mutable_shards();
        const int kept = static_cast<int>(keep % shards_per_page);
        if (last.size() > kept) last.DeleteSubrange(kept, last.size() - kept);
    }
    if (keep > 0) PF_CO_TRY(co_await save_pages(volume, keep - 1));
    co_return Status{};
}

Task<Status> Core::finish_trim(Volume volume) {
    const uint64_t id = volume->record.id();
    meta::Transaction transaction;
    transaction.expect(keys::volume(id), volume->version).remove(keys::task(id));
    if (volume->record.deleting()) transaction.remove(keys::volume(id));
    const auto finished = co_await commit(std::move(transaction));
    if (!finished) co_return std::unexpected<Error>(finished.error());
    cluster_->tasks.erase(id);
    if (volume->record.deleting()) cluster_->volumes.erase(id);
    co_return Status{};
}

}  // namespace pf::conductor

// Shard states: made, saved in pages, brought to the stores in batches (R17).
#include <fmt/format.h>

#include <algorithm>

#include "base/units.hpp"
#include "base/uuid.hpp"
#include "conductor/core.hpp"
#include "conductor/keys.hpp"
#include "conductor/placement.hpp"

namespace pf::conductor {

using runtime::Task;

namespace {

constexpr uint32_t shards_per_apply = 256;

v1::Replica make_replica(const TrayChoice& tray, Rng& rng) {
    v1::Replica replica;
    const uint64_t high = rng.next();
    replica.set_uuid(Uuid::from_random(high, rng.next()).text());  // R16: new for each placement
    replica.set_store_id(tray.store_id);
    replica.set_tray_uuid(tray.tray_uuid);
    return replica;
}

v1::ApplyShard apply_of(const VolumeEntry& volume, uint32_t index, const v1::Replica& replica,
                        bool fresh) {
    v1::ApplyShard apply;
    *apply.mutable_shard() = volume.shard(index);
    // R11: the volume's record holds the writer token of all its shards.
    apply.mutable_shard()->set_writer_token(volume.record.writer_token());
    apply.set_replica_uuid(replica.uuid());
    apply.set_tray_uuid(replica.tray_uuid());
    apply.set_fresh(fresh);
    return apply;
}

}  // namespace

Status Core::place_shards(VolumeEntry& volume, uint64_t size_bytes) {
    const uint64_t shard_bytes = volume.record.shard_bytes();
    const auto count = static_cast<uint32_t>((size_bytes + shard_bytes - 1) / shard_bytes);
    const auto bytes_of = [&](uint32_t index) {
        return std::min(shard_bytes, size_bytes - index * shard_bytes);
    };
    Placement placement(*cluster_);
    const uint32_t present = volume.stored_shards();
    std::vector<v1::Shard> made;
    for (uint32_t index = present; index < count; ++index) {
        PF_TRY_ASSIGN(const auto trays,
                      placement.choose(volume.record.replicas(), bytes_of(index)));
        v1::Shard shard;
        shard.set_id(volume.record.id() << shard_index_bits | index);
        shard.set_index(index);
        shard.set_epoch(1);
        shard.set_snap_seq(1);
        shard.set_size_bytes(bytes_of(index));
        shard.set_primary_store_id(trays[0].store_id);
        for (const auto& tray : trays) *shard.add_in_sync() = make_replica(tray, reactor_.rng());
        made.push_back(std::move(shard));
    }
    // Nothing is changed before everything was found a place.
    if (present > 0) {
        // An earlier resize that failed may have left it larger, and a shard never shrinks.
        v1::Shard& last = volume.shard(present - 1);
        last.set_size_bytes(std::max(last.size_bytes(), bytes_of(present - 1)));
    }
    for (auto& shard : made) {
        if (shard.index() % shards_per_page == 0) volume.pages.emplace_back();
        *volume.pages.back().shards.add_shards() = std::move(shard);
    }
    return {};
}

Task<Status> Core::save_pages(Volume volume, uint32_t first_index) {
    const size_t end = volume->pages.size();
    for (size_t page = first_index / shards_per_page; page < end;) {
        meta::Transaction transaction;
        const size_t batch_end = std::min<size_t>(end, page + pages_per_transaction);
        for (size_t i = page; i < batch_end; ++i) {
            const std::string key = keys::shard_page(volume->record.id(), i);
            transaction.expect(key, volume->pages[i].version);
            transaction.put(key, volume->pages[i].shards.SerializeAsString());
        }
        const auto saved = co_await commit(std::move(transaction));
        if (!saved) co_return std::unexpected<Error>(saved.error());
        for (; page < batch_end; ++page) volume->pages[page].version = *saved;
    }
    co_return Status{};
}

// Shards from `fresh_from` on are being made; a store that does not have an older one has lost it.
// Of what is there already, all are told that can be: a batch is of one tray, and one that is
// refused keeps none of the others waiting. The first error is the answer.
Task<Status> Core::apply_shards(Volume volume, uint32_t first_index, uint32_t fresh_from,
                                std::string only_tray) {
    std::map<std::pair<uint32_t, std::string>, std::vector<v1::ApplyShard>> batches;  // by tray
    std::set<uint32_t> away;
    Status first;
    // Shards beyond the count are of a resize that is making them, or that its task will undo: told
    // of as present, a store that never made them would call them lost.
    const bool making = fresh_from != UINT32_MAX;
    const uint32_t count = making ? volume->stored_shards() : volume->record.shard_count();
    for (uint32_t index = first_index; index < count; ++index) {
        for (const auto& replica : volume->shard(index).in_sync()) {
            if (!only_tray.empty() && replica.tray_uuid() != only_tray) continue;
            // A tray that was removed from the cluster took its replicas along; on one that went
            // meanwhile none can be made, and its store says so.
            const bool fresh = index >= fresh_from;
            if (!fresh && !cluster_->trays.contains(replica.tray_uuid())) continue;
            batches[{replica.store_id(), replica.tray_uuid()}].push_back(
                apply_of(*volume, index, replica, fresh));
        }
        const bool last = index + 1 == count;
        for (auto& [place, batch] : batches) {
            if (batch.empty() || (!last && batch.size() < shards_per_apply)) continue;
            std::vector<v1::ApplyShard> full;
            full.swap(batch);
            if (away.contains(place.first)) continue;
            const Status told = co_await apply_batch(place.first, std::move(full));
            if (told) continue;
            if (making) co_return told;
            if (first) first = told;
            if (is_away(told.error().code)) away.insert(place.first);
        }
    }
    co_return first;
}

Task<Status> Core::apply_batch(uint32_t store_id, std::vector<v1::ApplyShard> batch) {
    v1::RpcRequest request;
    auto* apply = request.mutable_apply_shards();
    for (auto& shard : batch) *apply->add_shards() = std::move(shard);
    const auto reply = co_await call_store(store_id, std::move(request));
    if (!reply) co_return std::unexpected<Error>(reply.error());
    co_return Status{};
}

Result<v1::ListShardsReply> Core::list_shards(const v1::ListShardsRequest& request) const {
    constexpr uint32_t max_listed = 1024;
    const auto found = cluster_->volumes.find(request.volume_id());
    if (found == cluster_->volumes.end() || found->second->record.deleting()) {
        return fail(Errc::not_found, fmt::format("volume {} does not exist", request.volume_id()));
    }
    const VolumeEntry& volume = *found->second;
    v1::ListShardsReply out;
    const uint64_t wanted =
        uint64_t{request.first_index()} +
        (request.count() == 0 ? max_listed : std::min(request.count(), max_listed));
    // Shards beyond the count belong to a resize that is not finished.
    const auto end = std::min<uint64_t>(wanted, volume.record.shard_count());
    for (uint64_t index = request.first_index(); index < end; ++index) {
        auto& location = *out.add_shards();
        *location.mutable_shard() = volume.shard(static_cast<uint32_t>(index));
        location.mutable_shard()->set_writer_token(volume.record.writer_token());
        const auto store = cluster_->stores.find(location.shard().primary_store_id());
        if (store == cluster_->stores.end()) continue;
        // Also of a store that counts as offline: it may serve its clients while it cannot reach
        // us.
        location.set_primary_address(store->second.record.data_address());
    }
    return out;
}

}  // namespace pf::conductor

// The life of a volume. A volume is born as one that is being deleted: its record and a trim task
// are persisted first, then its shards, then the stores have them, and only then one transaction
// takes the task away and gives it its name. Whatever is cut short, the task undoes.
#include <fmt/format.h>

#include "base/log.hpp"
#include "base/units.hpp"
#include "conductor/core.hpp"
#include "conductor/keys.hpp"
#include "conductor/placement.hpp"

namespace pf::conductor {

using runtime::Task;

namespace {

Status check_shard_bytes(uint64_t shard_bytes, uint64_t size_bytes) {
    if (shard_bytes < chunk_bytes || shard_bytes > default_shard_bytes ||
        shard_bytes % chunk_bytes != 0) {
        return fail(Errc::invalid_argument,
                    fmt::format("shard size {} is not a multiple of 2 MiB from 2 MiB to 64 GiB",
                                shard_bytes));
    }
    const uint64_t shards = (size_bytes + shard_bytes - 1) / shard_bytes;
    if (shards > max_shards_per_volume) {
        return fail(Errc::invalid_argument,
                    fmt::format("{} shards of {}: a volume has at most {} shards, choose larger "
                                "ones",
                                shards, format_exact_size(shard_bytes), max_shards_per_volume));
    }
    return {};
}

// Holds a name while its volume is made.
class NameReservation {
  public:
    NameReservation(Cluster& cluster, std::string name)
        : cluster_(cluster), name_(std::move(name)) {
        cluster_.names.emplace(name_, 0);
    }
    NameReservation(const NameReservation&) = delete;
    NameReservation& operator=(const NameReservation&) = delete;
    ~NameReservation() {
        const auto found = cluster_.names.find(name_);
        if (found != cluster_.names.end() && found->second == 0) cluster_.names.erase(found);
    }

  private:
    Cluster& cluster_;
    std::string name_;
};

Status check_free_name(const Cluster& cluster, const std::string& name) {
    PF_TRY(check_volume_name(name));
    if (!cluster.names.contains(name)) return {};
    return fail(Errc::already_exists,
                fmt::format("volume '{}' exists already: choose another name", name));
}

}  // namespace

Task<Result<v1::Volume>> Core::create_volume(v1::CreateVolumeRequest request) {
    PF_CO_TRY(check_serving());
    if (request.shard_bytes() == 0) request.set_shard_bytes(default_shard_bytes);
    if (request.replicas() == 0) request.set_replicas(1);
    PF_CO_TRY(check_free_name(*cluster_, request.name()));
    PF_CO_TRY(check_volume_size(request.size_bytes()));
    PF_CO_TRY(check_shard_bytes(request.shard_bytes(), request.size_bytes()));
    PF_CO_TRY(check_replicas(*cluster_, request.replicas()));
    if (cluster_->volumes.size() >= max_volumes) {
        co_return fail(Errc::resource_exhausted,
                       fmt::format("the cluster has its {} volumes: delete some", max_volumes));
    }
    const NameReservation reservation(*cluster_, request.name());

    const Result<uint64_t> id = co_await next_number(volume_ids_);
    if (!id) co_return std::unexpected<Error>(id.error());
    const auto volume = std::make_shared<VolumeEntry>();
    volume->record.set_id(*id);
    volume->record.set_name(request.name());
    volume->record.set_size_bytes(request.size_bytes());
    volume->record.set_shard_bytes(request.shard_bytes());
    volume->record.set_replicas(request.replicas());
    volume->record.set_created_at_ms(options_.wall_clock_ms());
    volume->record.set_writer_token(1);
    volume->record.set_deleting(true);
    PF_CO_TRY(place_shards(*volume, request.size_bytes()));
    cluster_->count_replicas(*volume, 0, 1);  // before anyone else looks for room
    volume->record.set_shard_count(volume->stored_shards());

    const Status built = co_await build_volume(volume);
    if (!built) {
        log_warning("volume '{}' was not created: {}", request.name(), built.error().text());
        const bool persisted = cluster_->tasks.contains(*id);
        if (persisted) {
            // Undone before the caller hears of it if the stores can be reached, later if not.
            const Status undone = co_await trim_once(volume);
            if (!undone) run_in_background(trim_until_done(volume));
        }
        co_return std::unexpected<Error>(built.error());
    }
    ++counters_.volumes_created;
    log_info("volume '{}' created: {}, {} shards", request.name(),
             format_size(request.size_bytes()), volume->record.shard_count());
    co_return cluster_->show(*volume);
}

Task<Status> Core::build_volume(Volume volume) {
    co_await volume->mutex.lock();
    const Unlock unlock(volume->mutex);
    const uint64_t id = volume->record.id();
    v1::Task task;
    task.set_volume_id(id);
    meta::Transaction begin;
    begin.expect(keys::volume(id), 0)
        .put(keys::volume(id), volume->record.SerializeAsString())
        .put(keys::task(id), task.SerializeAsString());
    const auto begun = co_await commit(std::move(begin));
    if (!begun) {
        cluster_->count_replicas(*volume, 0, -1);
        co_return std::unexpected<Error>(begun.error());
    }
    volume->version = *begun;
    cluster_->volumes.emplace(id, volume);
    cluster_->tasks.emplace(id, task);

    PF_CO_TRY(co_await save_pages(volume, 0));
    PF_CO_TRY(co_await apply_shards(volume, 0, 0));
    co_return co_await publish_volume(volume);
}

Task<Status> Core::publish_volume(Volume volume) {
    const uint64_t id = volume->record.id();
    v1::Volume record = volume->record;
    record.set_deleting(false);
    meta::Transaction transaction;
    transaction.expect(keys::volume(id), volume->version)
        .expect(keys::name(record.name()), 0)
        .put(keys::volume(id), record.SerializeAsString())
        .put(keys::name(record.name()), std::to_string(id))
        .remove(keys::task(id));
    const auto published = co_await commit(std::move(transaction));
    if (!published) co_return std::unexpected<Error>(published.error());
    volume->version = *published;
    volume->record = std::move(record);
    cluster_->names.insert_or_assign(volume->record.name(), id);
    cluster_->tasks.erase(id);
    co_return Status{};
}

Task<Result<v1::Volume>> Core::resize_volume(v1::ResizeVolumeRequest request) {
    PF_CO_TRY(check_serving());
    PF_CO_TRY_ASSIGN(const Volume volume, cluster_->find_volume(request.name()));
    co_await volume->mutex.lock();
    const Unlock unlock(volume->mutex);
    const uint64_t old_bytes = volume->record.size_bytes();
    if (volume->record.deleting()) co_return fail(Errc::not_found, "the volume was deleted");
    PF_CO_TRY(check_volume_size(request.size_bytes()));
    PF_CO_TRY(check_shard_bytes(volume->record.shard_bytes(), request.size_bytes()));
    if (request.size_bytes() < old_bytes) {
        co_return fail(Errc::invalid_argument,
                       fmt::format("volume '{}' has {} bytes and cannot shrink to {}: a new size "
                                   "must be larger",
                                   request.name(), old_bytes, request.size_bytes()));
    }
    if (request.size_bytes() == old_bytes) co_return cluster_->show(*volume);
    if (cluster_->tasks.contains(volume->record.id())) {
        co_return fail(Errc::busy, fmt::format("an earlier resize of volume '{}' is being undone: "
                                               "try again in some seconds, or, if a store is "
                                               "away, when it is back (pfcli store list)",
                                               request.name()));
    }
    const Status grown = co_await grow_volume(volume, request.size_bytes());
    if (!grown) {
        if (cluster_->tasks.contains(volume->record.id())) {
            run_in_background(trim_until_done(volume));
        }
        co_return std::unexpected<Error>(grown.error());
    }
    log_info("volume '{}' resized to {}", request.name(), format_size(request.size_bytes()));
    co_return cluster_->show(*volume);
}

// As a creation: the task that undoes it comes first and goes with the new size. The last shard may
// stay larger at its store after a failure; nobody addresses what is beyond the volume's size.
Task<Status> Core::grow_volume(Volume volume, uint64_t size_bytes) {
    const uint64_t id = volume->record.id();
    const uint32_t old_count = volume->record.shard_count();
    v1::Task task;
    task.set_volume_id(id);
    task.set_keep_shards(old_count);
    meta::Transaction begin;
    begin.expect(keys::task(id), 0).put(keys::task(id), task.SerializeAsString());
    const auto begun = co_await commit(std::move(begin));
    if (!begun) co_return std::unexpected<Error>(begun.error());
    cluster_->tasks.emplace(id, task);

    // The last of the present shards may grow as well.
    cluster_->count_replicas(*volume, old_count - 1, -1);
    const Status placed = place_shards(*volume, size_bytes);
    cluster_->count_replicas(*volume, old_count - 1, 1);
    PF_CO_TRY(placed);
    PF_CO_TRY(co_await save_pages(volume, old_count - 1));
    PF_CO_TRY(co_await apply_shards(volume, old_count - 1, old_count));

    v1::Volume record = volume->record;
    record.set_size_bytes(size_bytes);
    record.set_shard_count(volume->stored_shards());
    meta::Transaction finish;
    finish.expect(keys::volume(id), volume->version)
        .put(keys::volume(id), record.SerializeAsString())
        .remove(keys::task(id));
    const auto finished = co_await commit(std::move(finish));
    if (!finished) co_return std::unexpected<Error>(finished.error());
    volume->version = *finished;
    volume->record = std::move(record);
    cluster_->tasks.erase(id);
    co_return Status{};
}

Task<Result<v1::Volume>> Core::rename_volume(v1::RenameVolumeRequest request) {
    PF_CO_TRY(check_serving());
    PF_CO_TRY_ASSIGN(const Volume volume, cluster_->find_volume(request.name()));
    PF_CO_TRY(check_free_name(*cluster_, request.new_name()));
    const NameReservation reservation(*cluster_, request.new_name());
    co_await volume->mutex.lock();
    const Unlock unlock(volume->mutex);
    v1::Volume record = volume->record;
    if (record.deleting() || record.name() != request.name()) {
        co_return fail(Errc::not_found, "the volume was renamed or deleted meanwhile");
    }
    record.set_name(request.new_name());
    const uint64_t id = record.id();
    meta::Transaction transaction;
    transaction.expect(keys::volume(id), volume->version)
        .expect(keys::name(record.name()), 0)
        .put(keys::volume(id), record.SerializeAsString())
        .put(keys::name(record.name()), std::to_string(id))
        .remove(keys::name(request.name()));
    const auto renamed = co_await commit(std::move(transaction));
    if (!renamed) co_return std::unexpected<Error>(renamed.error());
    volume->version = *renamed;
    volume->record = std::move(record);
    cluster_->names.erase(request.name());
    cluster_->names.insert_or_assign(request.new_name(), id);
    log_info("volume '{}' renamed to '{}'", request.name(), request.new_name());
    co_return cluster_->show(*volume);
}

Task<Result<bool>> Core::delete_volume(v1::DeleteVolumeRequest request) {
    PF_CO_TRY(check_serving());
    PF_CO_TRY_ASSIGN(const Volume volume, cluster_->find_volume(request.name()));
    {
        co_await volume->mutex.lock();
        const Unlock unlock(volume->mutex);
        if (volume->record.deleting() || volume->record.name() != request.name()) {
            co_return fail(Errc::not_found, "the volume was renamed or deleted meanwhile");
        }
        if (!request.force()) PF_CO_TRY(check_not_open(*volume));
        const uint64_t id = volume->record.id();
        v1::Volume record = volume->record;
        record.set_deleting(true);
        v1::Task task;
        task.set_volume_id(id);
        meta::Transaction transaction;
        transaction.expect(keys::volume(id), volume->version)
            .put(keys::volume(id), record.SerializeAsString())
            .put(keys::task(id), task.SerializeAsString())
            .remove(keys::name(request.name()))
            .remove(keys::open_mark(id));
        const auto marked = co_await commit(std::move(transaction));
        if (!marked) co_return std::unexpected<Error>(marked.error());
        volume->version = *marked;
        volume->record = std::move(record);
        volume->open_mark = false;
        cluster_->names.erase(request.name());
        cluster_->tasks.insert_or_assign(id, task);
    }
    ++counters_.volumes_deleted;
    log_info("volume '{}' deleted", request.name());
    const Status trimmed = co_await trim_once(volume);
    if (trimmed) co_return true;
    log_warning("volume '{}' goes on being deleted: {}", request.name(), trimmed.error().text());
    run_in_background(trim_until_done(volume));
    co_return false;
}

Result<v1::Volume> Core::show_volume(std::string_view name, uint64_t id) const {
    if (id == 0) {
        PF_TRY_ASSIGN(const Volume volume, cluster_->find_volume(name));
        return cluster_->show(*volume);
    }
    const auto found = cluster_->volumes.find(id);
    if (found == cluster_->volumes.end() || found->second->record.deleting()) {
        return fail(Errc::not_found, fmt::format("volume {} does not exist", id));
    }
    return cluster_->show(*found->second);
}

v1::ListVolumesReply Core::list_volumes(std::string_view after, uint32_t limit) const {
    constexpr uint32_t max_listed = 1024;
    const int bounded = static_cast<int>(limit == 0 ? max_listed : std::min(limit, max_listed));
    v1::ListVolumesReply out;
    for (auto at = cluster_->names.upper_bound(after); at != cluster_->names.end(); ++at) {
        if (at->second == 0) continue;
        if (out.volumes_size() == bounded) {
            out.set_more(true);
            break;
        }
        *out.add_volumes() = cluster_->show(*cluster_->volumes.at(at->second));
    }
    return out;
}

}  // namespace pf::conductor

// Opening volumes: sessions, handles that end with their connection, and writer tokens.
#include <fmt/format.h>

#include <utility>

#include "base/log.hpp"
#include "conductor/core.hpp"
#include "conductor/keys.hpp"

namespace pf::conductor {

using runtime::Task;

Task<Result<v1::OpenVolumeReply>> Core::open_volume(v1::OpenVolumeRequest request,
                                                    uint64_t connection) {
    PF_CO_TRY(check_serving());
    if (request.read_only() && request.exclusive()) {
        co_return fail(Errc::invalid_argument, "a read-only open cannot be exclusive");
    }
    if (cluster_->handles.size() >= max_handles) {
        co_return fail(Errc::resource_exhausted,
                       fmt::format("{} volumes are open, which is the limit", max_handles));
    }
    PF_CO_TRY_ASSIGN(const Volume volume, cluster_->find_volume(request.name()));
    v1::OpenVolumeReply reply;
    if (!request.read_only()) {
        // R8: a session is never given out twice, whatever crashes.
        const Result<uint64_t> session = co_await next_number(sessions_);
        if (!session) co_return std::unexpected<Error>(session.error());
        reply.set_session(*session);
    }
    co_await volume->mutex.lock();
    const Unlock unlock(volume->mutex);
    if (volume->record.deleting()) {
        co_return fail(Errc::not_found, fmt::format("volume '{}' was deleted", request.name()));
    }
    if (request.exclusive()) PF_CO_TRY(co_await take_writer_token(volume));
    PF_CO_TRY(co_await put_open_mark(volume));

    const uint64_t id = next_handle_++;
    Handle handle;
    handle.volume_id = volume->record.id();
    handle.session = reply.session();
    handle.connection = connection;
    handle.read_only = request.read_only();
    handle.client = request.client().substr(0, 256);
    cluster_->handles.emplace(id, std::move(handle));
    ++volume->open_handles;
    ++counters_.volumes_opened;
    reply.set_handle(id);
    reply.set_writer_token(volume->record.writer_token());
    *reply.mutable_volume() = cluster_->show(*volume);
    co_return reply;
}

// R11: the new token is durable, and every store refuses the older ones, before anyone gets it.
Task<Status> Core::take_writer_token(Volume volume) {
    v1::Volume record = volume->record;
    const uint64_t id = record.id();
    record.set_writer_token(record.writer_token() + 1);
    meta::Transaction transaction;
    transaction.expect(keys::volume(id), volume->version)
        .put(keys::volume(id), record.SerializeAsString());
    const auto saved = co_await commit(std::move(transaction));
    if (!saved) co_return std::unexpected<Error>(saved.error());
    volume->version = *saved;
    volume->record = std::move(record);
    Status told = co_await apply_shards(volume, 0, UINT32_MAX);
    // Those that were not told refuse the writers that come with it, so it has to be brought there
    // though this open fails.
    if (!told && !std::exchange(volume->token_untold, true))
        run_in_background(tell_writer_token(volume));
    co_return told;
}

Task<void> Core::tell_writer_token(Volume volume) {
    while (volume->token_untold) {
        const bool go_on = co_await pause(options_.retry_interval);
        if (!go_on) co_return;
        co_await volume->mutex.lock();
        const Unlock unlock(volume->mutex);
        if (volume->record.deleting()) co_return;
        const Status told = co_await apply_shards(volume, 0, UINT32_MAX);
        volume->token_untold = !told;
    }
}

Status Core::close_volume(uint64_t handle, uint64_t connection) {
    const auto found = cluster_->handles.find(handle);
    if (found == cluster_->handles.end() || found->second.connection != connection) {
        return fail(Errc::not_found, fmt::format("handle {} is not open here", handle));
    }
    const auto volume = cluster_->volumes.find(found->second.volume_id);
    cluster_->handles.erase(found);
    if (volume == cluster_->volumes.end()) return {};
    --volume->second->open_handles;
    // At the end the mark stays: the clients come back to the next conductor.
    if (volume->second->open_handles == 0 && !stopping_) {
        run_in_background(drop_open_mark(volume->second));
    }
    return {};
}

// Durable before the handle is given out. The volume's mutex is held.
Task<Status> Core::put_open_mark(Volume volume) {
    if (volume->open_mark) co_return Status{};
    const uint64_t id = volume->record.id();
    meta::Transaction transaction;
    transaction.expect(keys::volume(id), volume->version).put(keys::open_mark(id), "1");
    const auto saved = co_await commit(std::move(transaction));
    if (!saved) co_return std::unexpected<Error>(saved.error());
    volume->open_mark = true;
    co_return Status{};
}

// A mark that cannot be removed stays; it only makes the next start more careful.
Task<void> Core::drop_open_mark(Volume volume) {
    co_await volume->mutex.lock();
    const Unlock unlock(volume->mutex);
    if (volume->open_handles > 0 || volume->was_open || !volume->open_mark || stopping_) co_return;
    meta::Transaction transaction;
    transaction.remove(keys::open_mark(volume->record.id()));
    const auto removed = co_await commit(std::move(transaction));
    if (removed) volume->open_mark = false;
}

Task<void> Core::end_reopen_grace() {
    const bool go_on = co_await pause(reopen_grace);
    if (!go_on) co_return;
    std::vector<Volume> volumes;
    for (const auto& [id, volume] : cluster_->volumes) {
        if (std::exchange(volume->was_open, false)) volumes.push_back(volume);
    }
    for (const auto& volume : volumes) co_await drop_open_mark(volume);
}

Status Core::check_not_open(const VolumeEntry& volume) const {
    if (volume.open_handles > 0) {
        return fail(Errc::busy,
                    fmt::format("volume '{}' is open by {} client{}: close it there, or "
                                "delete it with --force",
                                volume.record.name(), volume.open_handles,
                                volume.open_handles == 1 ? "" : "s"));
    }
    const runtime::Nanos now = reactor_.now();
    if (!volume.was_open || now >= reopen_grace_end_) return {};
    return fail(Errc::busy,
                fmt::format("volume '{}' was open before the conductor restarted, and its clients "
                            "may come back: wait {} s, or delete it with --force",
                            volume.record.name(),
                            (reopen_grace_end_ - now + runtime::seconds - 1) / runtime::seconds));
}

void Core::close_connection(uint64_t connection) {
    std::vector<uint64_t> ids;
    for (const auto& [id, handle] : cluster_->handles) {
        if (handle.connection == connection) ids.push_back(id);
    }
    for (const uint64_t id : ids) {
        const Status closed = close_volume(id, connection);
        PF_ASSERT(closed.has_value());
    }
}

}  // namespace pf::conductor

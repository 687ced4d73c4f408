// Opening, describing and closing volumes.
#include "client/capi.hpp"

namespace {

using namespace pf;
using client::capi::explain;
using client::capi::SlotLock;
using runtime::Task;

using OpenResult = Result<std::unique_ptr<client::Volume>>;

Task<OpenResult> open_volume(client::Cluster* cluster, std::string name, uint32_t flags) {
    co_return co_await cluster->open(std::move(name), (flags & PFBD_READ_ONLY) != 0,
                                     (flags & PFBD_EXCLUSIVE) != 0);
}

// The core ends on its reactor, where it lived.
Task<Status> close_volume(pfbd_volume* volume) {
    Status closed = co_await volume->core->close();
    // The core knows the I/O that it was given. What asks it again and again for block states ends
    // at its next question, which is refused by now.
    while (client::capi::has_taken_slots(*volume))
        co_await runtime::sleep_for(runtime::milliseconds);
    volume->core.reset();
    co_return closed;
}

Task<Result<client::VolumeInfo>> refresh_volume(client::Volume* volume) {
    const Status refreshed = co_await volume->refresh();
    if (!refreshed) co_return std::unexpected(refreshed.error());
    co_return volume->info();
}

}  // namespace

extern "C" {

int pfbd_open(pfbd_context* context, const char* name, uint32_t flags, pfbd_volume** opened) {
    if (opened == nullptr || name == nullptr)
        return explain(Errc::invalid_argument, "name or volume is NULL");
    *opened = nullptr;
    if (const int refused = context->refuse_waiting(); refused != 0) return refused;
    if ((flags & ~uint32_t{PFBD_READ_ONLY | PFBD_EXCLUSIVE}) != 0)
        return explain(Errc::invalid_argument, "pfbd_open: unknown flags");
    client::Cluster* cluster = context->cluster.get();
    std::string wanted(name);
    auto core =
        context->wait_for([cluster, wanted, flags] { return open_volume(cluster, wanted, flags); });
    if (!core) return explain(core.error());
    auto volume = std::make_unique<pfbd_volume>();
    volume->context = context;
    volume->core = std::move(*core);
    volume->info = volume->core->info();
    client::capi::make_slots(*volume);
    const std::lock_guard lock(context->mutex);
    context->volumes.insert(volume.get());
    *opened = volume.release();
    return 0;
}

int pfbd_close(pfbd_volume* volume) {
    if (volume == nullptr) return 0;
    pfbd_context* context = volume->context;
    if (const int refused = context->refuse_waiting(); refused != 0) return refused;
    {
        const SlotLock lock(*volume);
        volume->closing = true;
    }
    const Status closed = context->wait_for([volume] { return close_volume(volume); });
    {
        const std::lock_guard lock(context->mutex);
        context->volumes.erase(volume);
    }
    delete volume;
    return closed ? 0 : explain(closed.error());
}

int pfbd_get_info(pfbd_volume* volume, pfbd_info* info) {
    if (info == nullptr) return explain(Errc::invalid_argument, "info is NULL");
    const SlotLock lock(*volume);
    const client::VolumeInfo& from = volume->info;
    *info = {};
    info->size_bytes = from.size_bytes;
    info->volume_id = from.id;
    info->shard_count =
        static_cast<uint32_t>((from.size_bytes + from.shard_bytes - 1) / from.shard_bytes);
    info->replicas = from.replicas;
    info->read_only = from.read_only ? 1 : 0;
    info->shard_bytes = from.shard_bytes;
    return 0;
}

int pfbd_refresh(pfbd_volume* volume) {
    if (const int refused = volume->context->refuse_waiting(); refused != 0) return refused;
    client::Volume* core = volume->core.get();
    const auto info = volume->context->wait_for([core] { return refresh_volume(core); });
    if (!info) return explain(info.error());
    const SlotLock lock(*volume);
    volume->info = *info;
    return 0;
}

}  // extern "C"

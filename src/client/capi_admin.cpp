// Administration of volumes.
#include <cerrno>

#include "client/capi.hpp"

namespace {

using namespace pf;
using client::capi::explain;
using runtime::Task;

Task<Status> create(client::Cluster* cluster, std::string name, uint64_t size, uint32_t replicas) {
    auto made = co_await cluster->create_volume(std::move(name), size, replicas);
    if (!made) co_return std::unexpected(std::move(made).error());
    co_return Status{};
}
Task<Status> remove(client::Cluster* cluster, std::string name, bool force) {
    co_return co_await cluster->delete_volume(std::move(name), force);
}
Task<Status> rename(client::Cluster* cluster, std::string name, std::string new_name) {
    co_return co_await cluster->rename_volume(std::move(name), std::move(new_name));
}
Task<Status> resize(client::Cluster* cluster, std::string name, uint64_t size) {
    co_return co_await cluster->resize_volume(std::move(name), size);
}
Task<Result<client::VolumeInfo>> stat(client::Cluster* cluster, std::string name) {
    co_return co_await cluster->stat(std::move(name));
}
Task<Result<std::vector<client::VolumeInfo>>> list(client::Cluster* cluster) {
    co_return co_await cluster->list();
}

template <class Make>
int administer(pfbd_context* context, Make make) {
    if (const int refused = context->refuse_waiting(); refused != 0) return refused;
    const Status done = context->wait_for(std::move(make));
    return done ? 0 : explain(done.error());
}

int refuse_null() {
    return explain(Errc::invalid_argument, "a name is NULL");
}

}  // namespace

extern "C" {

int pfbd_volume_create(pfbd_context* context, const char* name, uint64_t size_bytes,
                       uint32_t replicas) {
    if (name == nullptr) return refuse_null();
    client::Cluster* cluster = context->cluster.get();
    std::string wanted(name);
    return administer(context, [=] { return create(cluster, wanted, size_bytes, replicas); });
}

int pfbd_volume_delete(pfbd_context* context, const char* name, int force) {
    if (name == nullptr) return refuse_null();
    client::Cluster* cluster = context->cluster.get();
    std::string wanted(name);
    return administer(context, [=] { return remove(cluster, wanted, force != 0); });
}

int pfbd_volume_rename(pfbd_context* context, const char* name, const char* new_name) {
    if (name == nullptr || new_name == nullptr) return refuse_null();
    client::Cluster* cluster = context->cluster.get();
    std::string from(name);
    std::string to(new_name);
    return administer(context, [=] { return rename(cluster, from, to); });
}

int pfbd_volume_resize(pfbd_context* context, const char* name, uint64_t size_bytes) {
    if (name == nullptr) return refuse_null();
    client::Cluster* cluster = context->cluster.get();
    std::string wanted(name);
    return administer(context, [=] { return resize(cluster, wanted, size_bytes); });
}

int pfbd_volume_exists(pfbd_context* context, const char* name) {
    if (name == nullptr) return refuse_null();
    if (const int refused = context->refuse_waiting(); refused != 0) return refused;
    client::Cluster* cluster = context->cluster.get();
    std::string wanted(name);
    const auto found = context->wait_for([=] { return stat(cluster, wanted); });
    if (found) return 1;
    return found.error().code == Errc::not_found ? 0 : explain(found.error());
}

int pfbd_volume_list(pfbd_context* context,
                     void (*each)(void* argument, const char* name, uint64_t size_bytes),
                     void* argument) {
    if (each == nullptr) return explain(Errc::invalid_argument, "each is NULL");
    if (const int refused = context->refuse_waiting(); refused != 0) return refused;
    client::Cluster* cluster = context->cluster.get();
    const auto volumes = context->wait_for([=] { return list(cluster); });
    if (!volumes) return explain(volumes.error());
    for (const client::VolumeInfo& volume : *volumes)
        each(argument, volume.name.c_str(), volume.size_bytes);
    return 0;
}

}  // extern "C"

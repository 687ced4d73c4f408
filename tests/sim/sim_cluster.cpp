#include "sim_cluster.hpp"

#include <fmt/format.h>

#include "conductor/net_store_link.hpp"
#include "conductor/rpc_server.hpp"

namespace pf::test {

using namespace runtime::sim;
using runtime::Task;

struct SimCluster::ConductorProcess {
    ConductorProcess(runtime::Reactor& reactor, meta::MemoryStore& metadata,
                     const conductor::CoreOptions& options)
        : engine(reactor, metadata, 200 * runtime::microseconds),
          core(reactor, engine, stores, options),
          rpc(core) {}

    meta::MemoryEngine engine;
    conductor::NetStoreLink stores;
    conductor::Core core;
    conductor::RpcServer rpc;
    std::unique_ptr<net::Server> server;
    std::string problem;
};

namespace {

template <class Process>
Task<void> start_conductor(std::shared_ptr<Process> process) {
    const Status started = co_await process->core.start();
    if (!started) {
        process->problem = started.error().text();
        co_return;
    }
    auto server = net::Server::listen({"", SimCluster::conductor_port}, process->rpc);
    if (server) {
        process->server = std::move(*server);
    } else {
        process->problem = server.error().text();
    }
}

}  // namespace

std::string volume_name(uint32_t index) {
    return fmt::format("volume{}", index);
}

SimCluster::SimCluster(const ClusterShape& shape)
    : shape_(shape),
      sim_({.seed = shape.seed}),
      conductor_node_(sim_.add_node("conductor")),
      store_node_(sim_.add_node("store")) {
    for (uint32_t i = 0; i < shape.trays + shape.spare_disks; ++i) {
        DiskModel model;
        model.size_bytes = shape.disk_bytes;
        model.volatile_cache = shape.volatile_cache;
        model.fua = shape.fua;
        const bool spare = i >= shape.trays;  // added by its path
        SimDisk& disk = store_node_.add_disk(fmt::format("{}disk{}", spare ? "/" : "", i), model);
        if (spare)
            spare_ = &disk;
        else
            disks_.push_back(&disk);
    }
}

std::shared_ptr<void> SimCluster::boot_conductor(SimReactor& reactor) {
    conductor::CoreOptions options;
    options.wall_clock_ms = [] { return uint64_t{1'700'000'000'000}; };
    auto process = std::make_shared<ConductorProcess>(reactor, metadata_, options);
    conductor_ = process;
    reactor.spawn(start_conductor(process));
    return process;
}

std::shared_ptr<void> SimCluster::boot_store(SimReactor& reactor) {
    auto process = std::make_shared<StoreProcess>();
    store_ = process;
    reactor.spawn(start_store(reactor, process));
    return process;
}

Task<void> SimCluster::start_store(SimReactor& reactor, std::shared_ptr<StoreProcess> process) {
    pfs::StoreOptions options;
    options.id = Uuid::from_random(3, 4);
    options.cluster = cluster_uuid_;
    options.trays = trays_;
    options.listen = {"store", store_port};
    options.data_address = fmt::format("store:{}", store_port);
    options.conductor = {"conductor", conductor_port};
    options.version = "test";
    options.discard = shape_.discard;
    options.slow_io = 3600 * runtime::seconds;
    options.save_cluster = [this](const Uuid& cluster) {
        cluster_uuid_ = cluster;
        return Status{};
    };
    options.save_trays = [this](const std::vector<pfs::TrayPlace>& places) {
        trays_ = places;
        return Status{};
    };
    auto started = co_await pfs::Store::start(reactor, options);
    if (!started) co_return;
    process->store = std::move(*started);
    process->store->join();
}

pfs::Store* SimCluster::store() const {
    const auto process = store_.lock();
    return process ? process->store.get() : nullptr;
}

bool SimCluster::ready() const {
    const auto process = conductor_.lock();
    return process && process->server && store() != nullptr && store()->registered();
}

bool SimCluster::healthy() const {
    if (!ready()) return false;
    const conductor::ClusterStatus status = conductor_.lock()->core.status();
    return status.stores_online == 1 && status.trays_ok == trays_.size();
}

std::string SimCluster::create() {
    conductor_node_.start([this](SimReactor& reactor) { return boot_conductor(reactor); });
    store_node_.start([this](SimReactor& reactor) { return boot_store(reactor); });
    if (!sim_.run_until([this] { return ready(); }, sim_.now() + 60 * runtime::seconds))
        return "the store did not register";
    const auto trays = sim_.run_task(store_node_, make_trays());
    if (!trays || !trays->empty()) return trays.value_or("adding trays did not end");
    sim_.run_for(3 * runtime::seconds);  // a heartbeat reports them
    const auto volumes = sim_.run_task(conductor_node_, make_volumes());
    return volumes.value_or("creating volumes did not end");
}

Task<std::string> SimCluster::make_trays() {
    for (SimDisk* disk : disks_) {
        pureflash::v1::AddTrayRequest request;
        request.set_path(disk->name());
        Task<Result<pureflash::v1::Tray>> adding = store()->add_tray(request);
        const auto added = co_await adding;
        if (!added) co_return added.error().text();
    }
    co_return std::string();
}

Task<std::string> SimCluster::make_volumes() {
    const auto process = conductor_.lock();
    for (uint32_t i = 0; i < shape_.volumes; ++i) {
        pureflash::v1::CreateVolumeRequest request;
        request.set_name(volume_name(i));
        request.set_size_bytes(shape_.volume_bytes);
        request.set_shard_bytes(shape_.shard_bytes);
        request.set_replicas(1);
        auto creating = process->core.create_volume(request);
        const auto created = co_await creating;
        if (!created) co_return created.error().text();
    }
    co_return std::string();
}

Task<Errc> SimCluster::add_spare_tray(bool force) {
    const auto process = conductor_.lock();
    pureflash::v1::AddTrayRequest request;
    request.set_path(spare_->name());
    request.set_force(force);
    auto adding = process->core.add_tray(0, request);
    const auto added = co_await adding;
    co_return added ? Errc::ok : added.error().code;
}

Task<Errc> SimCluster::remove_empty_tray() {
    const auto process = conductor_.lock();
    for (const auto& [uuid, tray] : process->core.cluster().trays) {
        if (tray.replicas != 0) continue;
        pureflash::v1::RemoveTrayRequest request;
        request.set_tray_uuid(tray.record.uuid());
        auto removing = process->core.remove_tray(request);
        const Status removed = co_await removing;
        co_return removed ? Errc::ok : removed.error().code;
    }
    co_return Errc::not_found;
}

Task<Errc> SimCluster::accept_loss(std::string volume) {
    const auto process = conductor_.lock();
    if (!volume.empty()) {
        auto accepting = process->core.accept_volume_loss(volume, true);
        const auto accepted = co_await accepting;
        co_return accepted ? Errc::ok : accepted.error().code;
    }
    for (const auto& tray : process->core.list_trays()) {
        auto accepting = process->core.accept_tray_loss(tray.uuid(), true);
        const auto accepted = co_await accepting;
        if (!accepted) co_return accepted.error().code;
    }
    co_return Errc::ok;
}

bool SimCluster::has_losses() const {
    const auto process = conductor_.lock();
    if (!process) return false;
    for (const auto& tray : process->core.list_trays()) {
        if (tray.lost_size() > 0) return true;
    }
    return false;
}

size_t SimCluster::tray_count() const {
    const auto process = conductor_.lock();
    return process ? process->core.list_trays().size() : 0;
}

uint32_t SimCluster::open_handles() const {
    const auto process = conductor_.lock();
    return process ? process->core.status().open_handles : 0;
}

meta::MemoryEngine* SimCluster::metadata() const {
    const auto process = conductor_.lock();
    return process ? &process->engine : nullptr;
}

SimNode& SimCluster::add_client(const std::string& name) {
    return sim_.add_node(name);
}

client::ClusterOptions SimCluster::client_options(runtime::Nanos io_timeout, uint32_t depth) {
    client::ClusterOptions options;
    options.conductor = {"conductor", conductor_port};
    options.client_name = "simulation";
    options.depth = depth;
    options.io_timeout = io_timeout;
    return options;
}

}  // namespace pf::test

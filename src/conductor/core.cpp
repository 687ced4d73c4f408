#include "conductor/core.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.hpp"
#include "base/uuid.hpp"
#include "conductor/keys.hpp"

namespace pf::conductor {

using runtime::Task;

namespace {
constexpr runtime::Nanos leader_ttl = 10 * runtime::seconds;
constexpr uint32_t metadata_format = 1;
}  // namespace

Core::Core(runtime::Reactor& reactor, meta::Engine& engine, StoreLink& stores, CoreOptions options)
    : reactor_(reactor),
      engine_(engine),
      stores_(stores),
      options_(std::move(options)),
      cluster_(std::make_unique<Cluster>()) {}

Core::~Core() = default;

Task<Status> Core::start() {
    auto leadership = co_await engine_.campaign("conductor", options_.identity, leader_ttl);
    if (!leadership) co_return std::unexpected<Error>(leadership.error());
    leadership_ = *leadership;
    auto loaded = co_await load_cluster(engine_);
    if (!loaded) co_return std::unexpected<Error>(loaded.error());
    cluster_ = std::move(*loaded);
    PF_CO_TRY(co_await ensure_cluster());
    serving_ = true;
    reopen_grace_end_ = reactor_.now() + reopen_grace;
    run_in_background(end_reopen_grace());
    for (const auto& [volume_id, task] : cluster_->tasks) {
        const auto volume = cluster_->volumes.find(volume_id);
        if (volume == cluster_->volumes.end()) {
            co_return fail(Errc::corrupt,
                           fmt::format("a task names volume {}, which is not there", volume_id));
        }
        run_in_background(trim_until_done(volume->second));
    }
    run_in_background(keep_leading());
    run_in_background(watch_heartbeats());
    log_info("cluster {} has {} volumes, {} stores, {} trays, {} tasks to resume",
             cluster_->record.uuid(), cluster_->names.size(), cluster_->stores.size(),
             cluster_->trays.size(), cluster_->tasks.size());
    co_return Status{};
}

Task<void> Core::keep_leading() {
    for (;;) {
        const bool go_on = co_await pause(leader_ttl / 4);
        if (!go_on) co_return;
        const Status kept = co_await engine_.keep_alive(leadership_.lease);
        if (kept) continue;
        // The lease ran out, because this process was stopped for longer than it lasts. With an
        // embedded engine nobody else can have led meanwhile: what is in memory is still what is
        // stored.
        log_warning("the leader's lease ran out: taking it again");
        auto leadership = co_await engine_.campaign("conductor", options_.identity, leader_ttl);
        if (!leadership) {
            log_error("cannot lead again: {}", leadership.error().text());
            continue;
        }
        leadership_ = *leadership;
    }
}

Task<void> Core::stop() {
    stopping_ = true;
    serving_ = false;
    co_await stores_.close();
    co_await background_.wait();
}

Status Core::check_serving() const {
    if (serving_ && !stopping_) return {};
    return fail(Errc::unavailable, "the conductor is starting or stopping: try again");
}

void Core::run_in_background(Task<void> task) {
    background_.add();
    reactor_.spawn(background(std::move(task)));
}

Task<void> Core::background(Task<void> task) {
    // Adopted here, so that the work and its captures end before the count goes down.
    {
        const Task<void> work = std::move(task);
        co_await work;
    }
    background_.done();
}

// Waits, but not longer than stop() may take.
Task<bool> Core::pause(runtime::Nanos duration) {
    const runtime::Nanos end = reactor_.now() + duration;
    while (!stopping_ && reactor_.now() < end) {
        const runtime::Nanos left = end - reactor_.now();
        co_await runtime::sleep_for(std::min<runtime::Nanos>(left, 250 * runtime::milliseconds));
    }
    co_return !stopping_;
}

Task<Result<meta::Version>> Core::commit(meta::Transaction transaction) {
    transaction.expect(leadership_.guard.key, leadership_.guard.version);
    Result<meta::Version> version = co_await engine_.commit(std::move(transaction));
    if (!version && version.error().code == Errc::conflict) {
        log_error("metadata commit: {}", version.error().text());
        co_return version;  // refused, which says nothing of the file
    }
    std::string problem;
    if (!version) problem = version.error().text();
    // Once for each reason: what waits for the metadata tries again for ever.
    if (!problem.empty() && problem != metadata_problem_) log_error("metadata commit: {}", problem);
    if (problem.empty() && !metadata_problem_.empty()) log_info("metadata is written again");
    metadata_problem_ = std::move(problem);
    co_return version;
}

Task<Result<uint64_t>> Core::next_number(Counter& counter) {
    co_await counter.mutex.lock();
    const Unlock unlock(counter.mutex);
    if (counter.next < counter.end) co_return counter.next++;
    const std::string key = keys::counter(counter.name);
    const Result<meta::Entry> stored = co_await engine_.get(key);
    uint64_t next = 1;
    meta::Version version = 0;
    if (stored) {
        next = std::strtoull(stored->value.c_str(), nullptr, 10);
        version = stored->version;
        if (next == 0) co_return fail(Errc::corrupt, fmt::format("'{}' is not a number", key));
    } else if (stored.error().code != Errc::not_found) {
        co_return std::unexpected<Error>(stored.error());
    }
    meta::Transaction transaction;
    transaction.expect(key, version).put(key, std::to_string(next + counter.block));
    const auto saved = co_await commit(std::move(transaction));
    if (!saved) co_return std::unexpected<Error>(saved.error());
    counter.next = next;
    counter.end = next + counter.block;
    co_return counter.next++;
}

Task<Status> Core::ensure_cluster() {
    if (!cluster_->record.uuid().empty()) {
        if (cluster_->record.format() == metadata_format) co_return Status{};
        co_return fail(Errc::unsupported_version,
                       fmt::format("the cluster's metadata has format {}, this build reads {}",
                                   cluster_->record.format(), metadata_format));
    }
    v1::Cluster record;
    const uint64_t high = reactor_.rng().next();
    record.set_uuid(Uuid::from_random(high, reactor_.rng().next()).text());
    record.set_name(options_.cluster_name);
    record.set_format(metadata_format);
    meta::Transaction transaction;
    const std::string key(keys::cluster);
    transaction.expect(key, 0).put(key, record.SerializeAsString());
    const auto saved = co_await commit(std::move(transaction));
    if (!saved) co_return std::unexpected<Error>(saved.error());
    cluster_->record = std::move(record);
    co_return Status{};
}

Task<Result<v1::RpcReply>> Core::call_store(uint32_t store_id, v1::RpcRequest request) {
    const auto store = cluster_->stores.find(store_id);
    if (store == cluster_->stores.end() || !store->second.online || stopping_) {
        co_return fail(Errc::unavailable,
                       fmt::format("store {} is not reachable now: see 'store list'", store_id));
    }
    ++counters_.store_calls;
    std::string address = store->second.record.data_address();
    Result<v1::RpcReply> reply =
        co_await stores_.call(std::move(address), std::move(request), options_.store_timeout);
    if (!reply) {
        ++counters_.store_call_errors;
        Error error = reply.error();
        error.message = fmt::format("store {}: {}", store_id, error.text());
        co_return std::unexpected<Error>(std::move(error));
    }
    co_return reply;
}

ClusterStatus Core::status() const {
    ClusterStatus out;
    out.cluster = cluster_->record;
    out.open_handles = static_cast<uint32_t>(cluster_->handles.size());
    out.tasks = static_cast<uint32_t>(cluster_->tasks.size());
    if (!metadata_problem_.empty()) {
        out.health = v1::HEALTH_ERROR;
        out.message =
            fmt::format("the last change of the metadata was not written: {}", metadata_problem_);
    }
    const auto worsen = [&](v1::Health health) {
        if (health != v1::HEALTH_OK) out.health = std::max(out.health, v1::HEALTH_DEGRADED);
    };
    for (const auto& [id, store] : cluster_->stores) {
        ++out.stores;
        out.stores_online += store.online ? 1 : 0;
        worsen(store.online ? v1::HEALTH_OK : v1::HEALTH_OFFLINE);
    }
    uint32_t serving_trays = 0;
    for (const auto& [uuid, tray] : cluster_->trays) {
        ++out.trays;
        const auto health = cluster_->tray_health(tray);
        worsen(health);
        out.trays_ok += health == v1::HEALTH_OK ? 1 : 0;
        if (!cluster_->tray_serves(tray)) {
            const v1::Tray shown = cluster_->show(tray);
            if (out.message.empty() && !shown.message().empty()) {
                out.message = fmt::format("tray {} at '{}' does not serve: {}", uuid, shown.path(),
                                          shown.message());
            }
            continue;
        }
        ++serving_trays;
        out.capacity_bytes += tray.record.capacity_bytes();
        out.free_bytes += tray.record.free_bytes();
        out.user_bytes += tray.record.user_bytes();
    }
    if (serving_trays == 0) {
        worsen(v1::HEALTH_OFFLINE);
        if (out.message.empty()) {
            out.message = out.trays == 0 ? "there is no tray: 'pfcli tray add PATH' adds one"
                                         : "no tray serves: see 'pfcli store list' and 'tray list'";
        }
    }
    for (const auto& [name, id] : cluster_->names) {
        if (id == 0) continue;
        ++out.volumes;
        const VolumeEntry& volume = *cluster_->volumes.at(id);
        out.volume_bytes += volume.record.size_bytes();
        out.volumes_with_losses += cluster_->lost_shards(volume) > 0 ? 1 : 0;
        const auto health = cluster_->volume_health(volume);
        if (health == v1::HEALTH_ERROR || health == v1::HEALTH_OFFLINE)
            out.health = v1::HEALTH_ERROR;
    }
    return out;
}

std::vector<VolumeRate> Core::rates() const {
    std::map<uint64_t, VolumeRate> by_volume;
    struct Ops {
        double reads = 0, writes = 0;
    };
    std::map<uint64_t, Ops> ops;
    for (const auto& [id, store] : cluster_->stores) {
        if (!store.online) continue;
        for (const auto& load : store.loads) {
            const auto volume = cluster_->volumes.find(load.volume_id());
            if (volume == cluster_->volumes.end() || volume->second->record.deleting()) continue;
            if (load.interval_us() == 0) continue;
            const double seconds = static_cast<double>(load.interval_us()) / 1e6;
            VolumeRate& rate = by_volume[load.volume_id()];
            rate.name = volume->second->record.name();
            rate.read_iops += static_cast<double>(load.reads()) / seconds;
            rate.write_iops += static_cast<double>(load.writes()) / seconds;
            rate.read_bytes_per_second += static_cast<double>(load.read_bytes()) / seconds;
            rate.write_bytes_per_second += static_cast<double>(load.write_bytes()) / seconds;
            rate.read_latency_seconds += static_cast<double>(load.read_us()) / 1e6;
            rate.write_latency_seconds += static_cast<double>(load.write_us()) / 1e6;
            ops[load.volume_id()].reads += static_cast<double>(load.reads());
            ops[load.volume_id()].writes += static_cast<double>(load.writes());
        }
    }
    std::vector<VolumeRate> out;
    for (auto& [id, rate] : by_volume) {
        const Ops& count = ops[id];
        rate.read_latency_seconds /= std::max(count.reads, 1.0);
        rate.write_latency_seconds /= std::max(count.writes, 1.0);
        out.push_back(std::move(rate));
    }
    return out;
}

}  // namespace pf::conductor

// What the store tells others: registration, heartbeats, metrics, health.
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "base/log.hpp"
#include "runtime/call_on.hpp"
#include "store/store.hpp"

namespace pf::pfs {

using runtime::call_on;
using runtime::Task;
namespace v1 = pureflash::v1;

namespace {

// The conductor takes no more in one heartbeat.
constexpr size_t max_loads_reported = 4096;

constexpr std::string_view opcode_name(size_t opcode) {
    constexpr std::array<std::string_view, opcode_count> names = {
        "none",         "ping",          "read",         "write",
        "flush",        "discard",       "write_zeroes", "compare_and_write",
        "open_session", "close_session", "abort",        "block_states",
        "rpc"};
    return names[opcode];
}

// Sums over all reactors.
void add_store(MetricsPage& page, const WorkerNumbers& sum) {
    const StoreStats& stats = sum.stats;
    for (size_t opcode = 1; opcode < opcode_count; ++opcode) {
        const LatencyHistogram& latency = stats.latency[opcode];
        if (latency.count() == 0) continue;
        const MetricLabels labels = {{"op", std::string(opcode_name(opcode))}};
        page.histogram("pureflash_store_op_seconds", "From receipt to answer of a command.", labels,
                       latency);
        page.counter("pureflash_store_op_errors_total", "Commands answered with an error.", labels,
                     static_cast<double>(stats.errors[opcode]));
    }
    const auto count = [&page](std::string_view name, std::string_view help, uint64_t value) {
        page.counter(name, help, {}, static_cast<double>(value));
    };
    count("pureflash_store_read_bytes_total", "Bytes read by clients.", stats.read_bytes);
    count("pureflash_store_written_bytes_total", "Bytes written by clients.", stats.written_bytes);
    count("pureflash_store_merged_writes_total",
          "Writes below a block, merged with its old content.", stats.merged_writes);
    count("pureflash_store_answered_resends_total",
          "Resent requests that had been applied already.", stats.answered_resends);
    count("pureflash_store_voided_requests_total", "Requests aborted before they were applied.",
          stats.voided_requests);
    count("pureflash_store_bad_payloads_total", "Payloads that did not match their checksum.",
          stats.bad_payloads);
    count("pureflash_store_slow_operations_total", "Commands slower than the slow I/O limit.",
          stats.slow_operations);
    page.gauge("pureflash_store_shards", "Shards served.", {}, static_cast<double>(sum.shards));
}

void add_tray(MetricsPage& page, size_t reactor, const TrayNumbers& tray) {
    const MetricLabels labels = {{"path", tray.path}};
    page.gauge("pureflash_tray_up", "1 if the tray serves.", labels, tray.serves ? 1 : 0);
    page.gauge("pureflash_tray_reactor", "Number of the reactor that owns the tray.", labels,
               static_cast<double>(reactor));
    if (!tray.mounted) return;
    const tray::Usage& usage = tray.usage;
    const tray::Counters& counters = tray.counters;
    const auto gauge = [&](std::string_view name, std::string_view help, uint64_t value) {
        page.gauge(name, help, labels, static_cast<double>(value));
    };
    const auto total = [&](std::string_view name, std::string_view help, uint64_t value) {
        page.counter(name, help, labels, static_cast<double>(value));
    };
    gauge("pureflash_tray_capacity_bytes", "Size of the data area.",
          usage.capacity_blocks * block_bytes);
    gauge("pureflash_tray_free_bytes", "Allocatable now.", usage.free_blocks * block_bytes);
    gauge("pureflash_tray_user_bytes", "Mapped by volumes.", usage.user_blocks * block_bytes);
    gauge("pureflash_tray_damaged_shards",
          "Shards that may have lost writes and answer no I/O until that is accepted.",
          tray.damaged_shards);
    gauge("pureflash_tray_log_used_bytes", "Log that a restart would replay.",
          usage.log_used_bytes);
    gauge("pureflash_tray_tables_resident_bytes", "Tables in memory.",
          usage.resident_tables * block_bytes);
    gauge("pureflash_tray_tables_old_bytes", "Of these, tables that only snapshots need.",
          usage.old_tables * block_bytes);
    total("pureflash_tray_table_loads_total", "Tables read because they were not in memory.",
          counters.table_loads);
    total("pureflash_tray_blocks_written_total", "Data blocks written.", counters.blocks_written);
    total("pureflash_tray_log_blocks_total", "Log blocks written.", counters.log_blocks);
    total("pureflash_tray_table_blocks_total", "Metadata blocks written.", counters.table_blocks);
    total("pureflash_tray_flushes_total", "Flushes of the device.", counters.flushes);
    total("pureflash_tray_checkpoints_total", "Checkpoints completed.", counters.checkpoints);
    page.counter("pureflash_tray_checkpoint_seconds_total", "Time with a checkpoint under way.",
                 labels, static_cast<double>(counters.checkpoint_ns) / 1e9);
    total("pureflash_tray_checksum_errors_total", "Blocks that failed their checksum.",
          counters.checksum_errors);
}

// How the work is spread.
void add_reactor(MetricsPage& page, size_t reactor, const WorkerNumbers& numbers) {
    const MetricLabels labels = {{"reactor", std::to_string(reactor)}};
    page.gauge("pureflash_store_reactor_connections",
               "Open connections to shards of the reactor's trays.", labels,
               static_cast<double>(numbers.connections));
    uint64_t commands = 0;
    for (const LatencyHistogram& latency : numbers.stats.latency) commands += latency.count();
    page.counter("pureflash_store_reactor_commands_total", "Commands the reactor answered.", labels,
                 static_cast<double>(commands));
    for (const TrayNumbers& tray : numbers.trays) add_tray(page, reactor, tray);
}

}  // namespace

Task<v1::RegisterStoreRequest> Store::registration() {
    v1::RegisterStoreRequest request;
    v1::Store& store = *request.mutable_store();
    store.set_id(store_id_);
    store.set_uuid(options_.id.text());
    store.set_data_address(options_.data_address);
    store.set_http_address(options_.http_address);
    store.set_version(options_.version);
    Task<std::string> asking = problem();
    const std::string wrong = co_await asking;
    store.set_health(wrong.empty() ? v1::HEALTH_OK : v1::HEALTH_DEGRADED);
    for (const auto& each : workers_) {
        Task<std::vector<v1::Tray>> describing =
            call_on(each->reactor(), [&each] { return each->describe_trays(); });
        for (v1::Tray& tray : co_await describing) {
            tray.set_store_id(store_id_);
            *store.add_trays() = std::move(tray);
        }
    }
    if (!membership_.cluster.is_zero()) request.set_cluster_uuid(membership_.cluster.text());
    co_return request;
}

Task<Status> Store::registered(v1::RegisterStoreReply reply) {
    store_id_ = reply.store_id();
    PF_CO_TRY_ASSIGN(const Uuid cluster, Uuid::parse(reply.cluster_uuid()));
    if (cluster == membership_.cluster) co_return Status{};
    if (!membership_.cluster.is_zero()) {
        co_return fail(Errc::conflict,
                       fmt::format("the conductor is of cluster {}, this store of {}",
                                   cluster.text(), membership_.cluster.text()));
    }
    Task<void> locking = control_.lock();
    co_await locking;
    const ControlUnlock unlock(control_);
    if (options_.save_cluster) PF_CO_TRY(options_.save_cluster(cluster));
    membership_.cluster = cluster;
    for (const auto& each : workers_) {
        co_await call_on(each->reactor(), [&] { each->set_cluster(cluster); });
    }
    log_info("joined cluster {} as store {}", cluster.text(), store_id_);
    Task<void> mounting = mount_trays();
    co_await mounting;
    co_return Status{};
}

VolumeLoads busiest(VolumeLoads loads, size_t limit) {
    const size_t kept = std::min(loads.size(), limit);
    const auto operations = [](const auto& each) { return each.second.reads + each.second.writes; };
    std::ranges::partial_sort(loads, loads.begin() + static_cast<ptrdiff_t>(kept),
                              std::ranges::greater(), operations);
    loads.resize(kept);
    return loads;
}

Task<v1::HeartbeatRequest> Store::heartbeat() {
    v1::HeartbeatRequest request;
    request.set_store_id(store_id_);
    const runtime::Nanos now = home_.now();
    const uint64_t interval_us = (now - last_heartbeat_at_) / runtime::microseconds;
    last_heartbeat_at_ = now;
    std::map<uint64_t, ShardLoad> loads;
    for (const auto& each : workers_) {
        Task<WorkerLoad> taking = call_on(each->reactor(), [&each] { return each->take_load(); });
        WorkerLoad taken = co_await taking;
        for (v1::Tray& tray : taken.trays) {
            tray.set_store_id(store_id_);
            *request.add_trays() = std::move(tray);
        }
        for (const auto& [volume, load] : taken.volumes) loads[volume].add(load);
    }
    for (const auto& [volume, load] : busiest({loads.begin(), loads.end()}, max_loads_reported)) {
        v1::VolumeLoad& message = *request.add_loads();
        message.set_volume_id(volume);
        message.set_reads(load.reads);
        message.set_writes(load.writes);
        message.set_read_bytes(load.read_bytes);
        message.set_write_bytes(load.write_bytes);
        message.set_read_us(load.read_us);
        message.set_write_us(load.write_us);
        message.set_interval_us(interval_us);
    }
    co_return request;
}

Task<std::string> Store::problem() const {
    for (const auto& each : workers_) {
        Task<std::string> asking = call_on(each->reactor(), [&each] { return each->problem(); });
        std::string problem = co_await asking;
        if (!problem.empty()) co_return problem;
    }
    co_return std::string();
}

Task<MetricsPage> Store::metrics() const {
    MetricsPage page;
    WorkerNumbers sum;
    for (size_t i = 0; i < workers_.size(); ++i) {
        const Worker& worker = *workers_[i];
        Task<WorkerNumbers> counting =
            call_on(worker.reactor(), [&worker] { return worker.numbers(); });
        const WorkerNumbers numbers = co_await counting;
        sum.stats.add(numbers.stats);
        sum.shards += numbers.shards;
        add_reactor(page, i, numbers);
    }
    add_store(page, sum);
    page.gauge("pureflash_store_connections", "Open connections.", {}, server_->connections());
    co_return page;
}

}  // namespace pf::pfs

// What the store tells others: registration, heartbeats, metrics, health.
#include <fmt/format.h>

#include "base/log.hpp"
#include "store/store.hpp"

namespace pf::pfs {

using runtime::Task;
namespace v1 = pureflash::v1;

namespace {

constexpr unsigned volume_shift = 20;  // a shard's id is volume_id * 2^20 + index

constexpr std::string_view opcode_name(size_t opcode) {
    constexpr std::array<std::string_view, opcode_count> names = {
        "none",         "ping",          "read",         "write",         "flush", "discard",
        "write_zeroes", "compare_write", "open_session", "close_session", "abort", "block_states",
        "rpc"};
    return names[opcode];
}

}  // namespace

v1::RegisterStoreRequest Store::registration() {
    v1::RegisterStoreRequest request;
    v1::Store& store = *request.mutable_store();
    store.set_id(store_id_);
    store.set_uuid(options_.id.text());
    store.set_data_address(options_.data_address);
    store.set_http_address(options_.http_address);
    store.set_version(options_.version);
    store.set_health(problem().empty() ? v1::HEALTH_OK : v1::HEALTH_DEGRADED);
    for (const auto& slot : trays_.slots()) {
        if (!slot->id.is_zero()) *store.add_trays() = slot->describe(store_id_);
    }
    if (!options_.cluster.is_zero()) request.set_cluster_uuid(options_.cluster.text());
    return request;
}

Task<Status> Store::registered(v1::RegisterStoreReply reply) {
    store_id_ = reply.store_id();
    PF_CO_TRY_ASSIGN(const Uuid cluster, Uuid::parse(reply.cluster_uuid()));
    if (cluster == options_.cluster) co_return Status{};
    if (!options_.cluster.is_zero()) {
        co_return fail(Errc::conflict,
                       fmt::format("the conductor is of cluster {}, this store of {}",
                                   cluster.text(), options_.cluster.text()));
    }
    Task<void> locking = control_.lock();
    co_await locking;
    const ControlUnlock unlock(control_);
    if (options_.save_cluster) PF_CO_TRY(options_.save_cluster(cluster));
    options_.cluster = cluster;
    trays_.set_cluster(cluster);
    log_info("joined cluster {} as store {}", cluster.text(), store_id_);
    Task<void> mounting = mount_trays();
    co_await mounting;
    co_return Status{};
}

v1::HeartbeatRequest Store::heartbeat() {
    v1::HeartbeatRequest request;
    request.set_store_id(store_id_);
    for (const auto& slot : trays_.slots()) {
        if (!slot->id.is_zero()) *request.add_trays() = slot->describe(store_id_);
    }
    const runtime::Nanos now = reactor_.now();
    const uint64_t interval_us = (now - last_heartbeat_at_) / runtime::microseconds;
    last_heartbeat_at_ = now;
    std::map<uint64_t, ShardLoad> loads;
    for (const auto& [id, shard] : shards_) {
        const ShardLoad load = shard->take_load();
        if (load.reads + load.writes != 0) loads[id >> volume_shift].add(load);
    }
    for (const auto& [volume, load] : loads) {
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
    return request;
}

std::string Store::problem() const {
    for (const auto& slot : trays_.slots()) {
        if (!slot->serves()) {
            return fmt::format("tray {}: {}", slot->path,
                               slot->problem.empty() ? "failed" : slot->problem);
        }
        const std::string lost = slot->loss_message();
        if (!lost.empty()) return fmt::format("tray {}: {}", slot->path, lost);
    }
    return {};
}

void Store::fill(MetricsPage& page) const {
    for (size_t opcode = 1; opcode < opcode_count; ++opcode) {
        const LatencyHistogram& latency = stats_.latency[opcode];
        if (latency.count() == 0) continue;
        const MetricLabels labels = {{"op", std::string(opcode_name(opcode))}};
        page.histogram("pureflash_store_op_seconds", "From receipt to answer of a command.", labels,
                       latency);
        page.counter("pureflash_store_op_errors_total", "Commands answered with an error.", labels,
                     static_cast<double>(stats_.errors[opcode]));
    }
    const auto count = [&page](std::string_view name, std::string_view help, uint64_t value) {
        page.counter(name, help, {}, static_cast<double>(value));
    };
    count("pureflash_store_read_bytes_total", "Bytes read by clients.", stats_.read_bytes);
    count("pureflash_store_written_bytes_total", "Bytes written by clients.", stats_.written_bytes);
    count("pureflash_store_merged_writes_total",
          "Writes below a block, merged with its old content.", stats_.merged_writes);
    count("pureflash_store_answered_resends_total",
          "Resent requests that had been applied already.", stats_.answered_resends);
    count("pureflash_store_voided_requests_total", "Requests aborted before they were applied.",
          stats_.voided_requests);
    count("pureflash_store_bad_payloads_total", "Payloads that did not match their checksum.",
          stats_.bad_payloads);
    count("pureflash_store_slow_operations_total", "Commands slower than the slow I/O limit.",
          stats_.slow_operations);
    page.gauge("pureflash_store_shards", "Shards served.", {}, static_cast<double>(shards_.size()));
    page.gauge("pureflash_store_connections", "Open connections.", {}, server_->connections());
    for (const auto& slot : trays_.slots()) {
        const MetricLabels labels = {{"path", slot->path}};
        page.gauge("pureflash_tray_up", "1 if the tray serves.", labels, slot->serves() ? 1 : 0);
        if (slot->tray == nullptr) continue;
        const tray::Usage usage = slot->tray->usage();
        const tray::Counters counters = slot->tray->counters();
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
        uint64_t damaged = 0;
        for (const auto& [volume, shards] : slot->lost()) damaged += shards;
        gauge("pureflash_tray_damaged_shards",
              "Shards that may have lost writes and answer no I/O until that is accepted.",
              damaged);
        gauge("pureflash_tray_log_used_bytes", "Log that a restart would replay.",
              usage.log_used_bytes);
        gauge("pureflash_tray_tables_resident_bytes", "Tables in memory.",
              usage.resident_tables * block_bytes);
        gauge("pureflash_tray_tables_old_bytes", "Of these, tables that only snapshots need.",
              usage.old_tables * block_bytes);
        total("pureflash_tray_table_loads_total", "Tables read because they were not in memory.",
              counters.table_loads);
        total("pureflash_tray_blocks_written_total", "Data blocks written.",
              counters.blocks_written);
        total("pureflash_tray_log_blocks_total", "Log blocks written.", counters.log_blocks);
        total("pureflash_tray_table_blocks_total", "Metadata blocks written.",
              counters.table_blocks);
        total("pureflash_tray_flushes_total", "Flushes of the device.", counters.flushes);
        total("pureflash_tray_checkpoints_total", "Checkpoints completed.", counters.checkpoints);
        page.counter("pureflash_tray_checkpoint_seconds_total", "Time with a checkpoint under way.",
                     labels, static_cast<double>(counters.checkpoint_ns) / 1e9);
        total("pureflash_tray_checksum_errors_total", "Blocks that failed their checksum.",
              counters.checksum_errors);
    }
}

}  // namespace pf::pfs

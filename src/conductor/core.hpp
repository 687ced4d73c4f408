// The control plane's logic: volumes, stores, trays, sessions and tasks, over a metadata engine and
// a link to the stores. Deterministic on one reactor: what it cannot know (the wall clock, for
// people) comes in through the options.
//
// Durability: what a call answers is in the metadata engine. A volume becomes visible only after
// every store has its shards; what a crash interrupts is a persisted task that start() resumes.
// Bounds: volumes, shards, handles and background work have limits that are refused by name.
#pragma once

#include <functional>
#include <set>
#include <string>

#include "conductor/cluster.hpp"
#include "conductor/request_times.hpp"
#include "conductor/store_link.hpp"
#include "runtime/reactor.hpp"

namespace pf::conductor {

struct CoreOptions {
    std::string cluster_name = "pureflash";
    std::string identity = "conductor";  // of this one among several, for people
    runtime::Nanos heartbeat_interval = runtime::seconds;
    uint32_t heartbeats_missed = 4;  // before a store counts as offline
    runtime::Nanos store_timeout = 10 * runtime::seconds;
    runtime::Nanos retry_interval = 500 * runtime::milliseconds;
    std::function<uint64_t()> wall_clock_ms = [] { return uint64_t{0}; };
};

// After its start the conductor waits so long for clients to come back: one pauses at most 5 s
// between its attempts, and an attempt takes a heartbeat or two.
inline constexpr runtime::Nanos reopen_grace = 15 * runtime::seconds;
inline constexpr uint32_t max_volumes = 65536;
inline constexpr uint32_t max_handles = 65536;
inline constexpr uint32_t max_stores = 1024;
inline constexpr uint32_t max_trays_per_store = 64;
inline constexpr uint32_t max_loads_per_heartbeat = 4096;

struct ClusterStatus {
    v1::Cluster cluster;
    v1::Health health = v1::HEALTH_OK;
    // Why metadata cannot be written; or the first tray that does not serve, and why; or that none
    // does.
    std::string message;
    uint32_t volumes = 0;
    uint32_t stores = 0;
    uint32_t stores_online = 0;
    uint32_t trays = 0;
    uint32_t trays_ok = 0;
    uint32_t open_handles = 0;
    uint32_t tasks = 0;
    uint32_t volumes_with_losses = 0;
    uint64_t capacity_bytes = 0;
    uint64_t free_bytes = 0;
    uint64_t user_bytes = 0;
    uint64_t volume_bytes = 0;
};

// What a volume does now, for `top`.
struct VolumeRate {
    std::string name;
    double read_iops = 0;
    double write_iops = 0;
    double read_bytes_per_second = 0;
    double write_bytes_per_second = 0;
    double read_latency_seconds = 0;  // mean
    double write_latency_seconds = 0;
};

struct CoreCounters {
    uint64_t volumes_created = 0, volumes_deleted = 0, volumes_opened = 0;
    uint64_t heartbeats = 0, registrations = 0, store_calls = 0, store_call_errors = 0;
};

class Core {
  public:
    Core(runtime::Reactor& reactor, meta::Engine& engine, StoreLink& stores, CoreOptions options);
    ~Core();

    // Becomes the leader, reads what is persisted and resumes tasks.
    [[nodiscard]] runtime::Task<Status> start();
    // Refuses new work and waits for what is under way.
    [[nodiscard]] runtime::Task<void> stop();

    // --- volumes ---
    [[nodiscard]] runtime::Task<Result<v1::Volume>> create_volume(v1::CreateVolumeRequest request);
    [[nodiscard]] runtime::Task<Result<v1::Volume>> resize_volume(v1::ResizeVolumeRequest request);
    [[nodiscard]] runtime::Task<Result<v1::Volume>> rename_volume(v1::RenameVolumeRequest request);
    // True when its space is freed already; false when a task goes on doing that.
    [[nodiscard]] runtime::Task<Result<bool>> delete_volume(v1::DeleteVolumeRequest request);
    // T7: its shards that may have lost writes go on with what is left. Refused without `force`.
    [[nodiscard]] runtime::Task<Result<uint32_t>> accept_volume_loss(std::string name, bool force);
    [[nodiscard]] Result<v1::Volume> show_volume(std::string_view name, uint64_t id = 0) const;
    [[nodiscard]] v1::ListVolumesReply list_volumes(std::string_view after, uint32_t limit) const;

    // --- clients; `connection` is the caller's number for the RPC connection, never reused ---
    [[nodiscard]] runtime::Task<Result<v1::OpenVolumeReply>> open_volume(
        v1::OpenVolumeRequest request, uint64_t connection);
    [[nodiscard]] Status close_volume(uint64_t handle, uint64_t connection);
    void close_connection(uint64_t connection);
    [[nodiscard]] Result<v1::ListShardsReply> list_shards(
        const v1::ListShardsRequest& request) const;

    // --- stores and trays ---
    [[nodiscard]] runtime::Task<Result<v1::RegisterStoreReply>> register_store(
        v1::RegisterStoreRequest request);
    [[nodiscard]] Result<v1::HeartbeatReply> heartbeat(const v1::HeartbeatRequest& request);
    [[nodiscard]] std::vector<v1::Store> list_stores() const;
    [[nodiscard]] Result<v1::Store> show_store(uint32_t id) const;
    [[nodiscard]] std::vector<v1::Tray> list_trays() const;
    // `store_id` 0: the only store there is.
    [[nodiscard]] runtime::Task<Result<v1::Tray>> add_tray(uint32_t store_id,
                                                           v1::AddTrayRequest request);
    [[nodiscard]] runtime::Task<Status> remove_tray(v1::RemoveTrayRequest request);
    // The same for all shards on a tray, of deleted volumes too.
    [[nodiscard]] runtime::Task<Result<uint32_t>> accept_tray_loss(std::string uuid, bool force);

    // --- for people ---
    [[nodiscard]] ClusterStatus status() const;
    [[nodiscard]] std::vector<VolumeRate> rates() const;
    [[nodiscard]] const CoreCounters& counters() const { return counters_; }
    // Recorded by the servers in front: REST on any thread, RPC on the reactor.
    [[nodiscard]] RequestTimes& rest_times() { return rest_times_; }
    [[nodiscard]] const RequestTimes& rest_times() const { return rest_times_; }
    [[nodiscard]] RequestTimes& rpc_times() { return rpc_times_; }
    [[nodiscard]] const RequestTimes& rpc_times() const { return rpc_times_; }
    [[nodiscard]] const Cluster& cluster() const { return *cluster_; }
    [[nodiscard]] bool serving() const { return serving_; }

  private:
    // Numbers that are never given out twice: reserved in blocks, so that most cost no commit.
    struct Counter {
        std::string name;
        uint64_t block = 1;
        uint64_t next = 0;
        uint64_t end = 0;
        runtime::Mutex mutex;
    };

    [[nodiscard]] Status check_serving() const;
    [[nodiscard]] runtime::Task<Result<meta::Version>> commit(meta::Transaction transaction);
    [[nodiscard]] runtime::Task<Result<uint64_t>> next_number(Counter& counter);
    [[nodiscard]] runtime::Task<Status> ensure_cluster();
    [[nodiscard]] runtime::Task<Result<v1::RpcReply>> call_store(uint32_t store_id,
                                                                 v1::RpcRequest request);
    // False once stop() was called.
    [[nodiscard]] runtime::Task<bool> pause(runtime::Nanos duration);
    void run_in_background(runtime::Task<void> task);
    [[nodiscard]] runtime::Task<void> background(runtime::Task<void> task);

    // volumes.cpp, shards.cpp
    using Volume = std::shared_ptr<VolumeEntry>;
    [[nodiscard]] runtime::Task<Status> build_volume(Volume volume);
    [[nodiscard]] runtime::Task<Status> publish_volume(Volume volume);
    [[nodiscard]] runtime::Task<Status> grow_volume(Volume volume, uint64_t size_bytes);
    [[nodiscard]] Status place_shards(VolumeEntry& volume, uint64_t size_bytes);
    [[nodiscard]] runtime::Task<Status> save_pages(Volume volume, uint32_t first_index);
    [[nodiscard]] runtime::Task<Status> apply_shards(Volume volume, uint32_t first_index,
                                                     uint32_t fresh_from,
                                                     std::string only_tray = {});
    [[nodiscard]] runtime::Task<Status> take_writer_token(Volume volume);
    [[nodiscard]] runtime::Task<void> tell_writer_token(Volume volume);
    [[nodiscard]] runtime::Task<Status> apply_batch(uint32_t store_id,
                                                    std::vector<v1::ApplyShard> batch);

    // handles.cpp: which volumes are open, for the next start.
    [[nodiscard]] runtime::Task<Status> put_open_mark(Volume volume);
    [[nodiscard]] runtime::Task<void> drop_open_mark(Volume volume);
    [[nodiscard]] runtime::Task<void> end_reopen_grace();
    [[nodiscard]] Status check_not_open(const VolumeEntry& volume) const;

    // losses.cpp
    [[nodiscard]] runtime::Task<Result<uint32_t>> accept_loss(uint32_t store_id,
                                                              v1::AcceptLossRequest request);

    // tasks.cpp: trims a volume to the shards its task keeps; deletes it when that is none.
    [[nodiscard]] runtime::Task<Status> trim_once(Volume volume);
    [[nodiscard]] runtime::Task<void> trim_until_done(Volume volume);
    [[nodiscard]] runtime::Task<Status> delete_on_stores(Volume volume, uint32_t keep);
    [[nodiscard]] runtime::Task<Status> drop_pages(Volume volume, uint32_t keep);
    [[nodiscard]] runtime::Task<Status> finish_trim(Volume volume);

    // stores.cpp
    [[nodiscard]] runtime::Task<Status> save_store(uint32_t store_id,
                                                   v1::RegisterStoreRequest request);
    [[nodiscard]] runtime::Task<Status> save_tray(v1::Tray record);
    [[nodiscard]] runtime::Task<Result<v1::Tray>> add_tray_at(uint32_t store_id,
                                                              v1::AddTrayRequest request);
    [[nodiscard]] runtime::Task<Result<v1::Tray>> adopt_tray(uint32_t store_id, v1::Tray record);
    // Has the store let go of a tray that it was given and that belongs to another; the refusal.
    [[nodiscard]] runtime::Task<Status> give_back(uint32_t store_id, uint32_t home, v1::Tray tray);
    void take_tray_report(uint32_t store_id, const v1::Tray& report);
    // All that the store has now: what it had before and does not name any more is gone from it.
    void take_tray_reports(StoreEntry& store,
                           const google::protobuf::RepeatedPtrField<v1::Tray>& reports);
    [[nodiscard]] runtime::Task<void> activate_store(uint32_t store_id, uint64_t registration);
    [[nodiscard]] runtime::Task<Status> activate_trays(uint32_t store_id,
                                                       std::set<std::string>& told);
    [[nodiscard]] runtime::Task<Status> activate_tray(std::string uuid);
    [[nodiscard]] runtime::Task<Status> activate_volume(Volume volume, std::string tray_uuid);
    [[nodiscard]] runtime::Task<Status> raise_epochs(Volume volume, std::string tray_uuid);
    // Renews the leader's lease for as long as the conductor runs.
    [[nodiscard]] runtime::Task<void> keep_leading();
    [[nodiscard]] runtime::Task<void> watch_heartbeats();
    [[nodiscard]] bool still_registered(uint32_t store_id, uint64_t registration) const;

    runtime::Reactor& reactor_;
    meta::Engine& engine_;
    StoreLink& stores_;
    CoreOptions options_;
    std::unique_ptr<Cluster> cluster_;
    meta::Leadership leadership_;
    Counter volume_ids_{.name = "volume", .block = 1, .mutex = {}};
    Counter store_ids_{.name = "store", .block = 1, .mutex = {}};
    Counter sessions_{.name = "session", .block = 1024, .mutex = {}};
    uint64_t next_handle_ = 1;
    runtime::Nanos reopen_grace_end_ = 0;
    runtime::Mutex registering_;
    bool serving_ = false;
    bool stopping_ = false;
    std::string metadata_problem_;  // of the last commit
    runtime::WaitGroup background_;
    CoreCounters counters_;
    RequestTimes rest_times_;
    RequestTimes rpc_times_;
};

// Unlocks at the end of a scope; lock first: `co_await mutex.lock(); Unlock unlock(mutex);`.
class Unlock {
  public:
    explicit Unlock(runtime::Mutex& mutex) : mutex_(mutex) {}
    Unlock(const Unlock&) = delete;
    Unlock& operator=(const Unlock&) = delete;
    ~Unlock() { mutex_.unlock(); }

  private:
    runtime::Mutex& mutex_;
};

}  // namespace pf::conductor

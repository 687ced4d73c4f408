// The store daemon's logic: the process-wide part. It owns one data port and the line to the
// conductor, knows which tray is on which reactor, and hands each connection to the reactor that
// owns its shard. Trays, shards and I/O belong to its workers, one per reactor (worker.hpp).
//
// The data path needs none of the control plane: shards of mounted trays serve as soon as the store
// has started (see shard.hpp on roles after a restart). Control calls (apply, delete, trays, fence)
// run one at a time; what they answer is durable.
//
// Thread rule: everything on the home reactor, which is a data reactor too; workers are reached by
// call_on only, and never for an I/O. Failure: a tray that cannot be mounted or fails is reported
// and stops nothing else.
#pragma once

#include <functional>
#include <map>

#include "base/metrics.hpp"
#include "store/conductor_link.hpp"
#include "store/worker.hpp"

namespace pf::pfs {

struct StoreOptions {
    Uuid id;                       // of the store, kept by its data folder
    Uuid cluster;                  // zero: not in a cluster yet; learned at registration
    std::vector<TrayPlace> trays;  // mounted at start
    // Trays are spread over these; the home reactor is the first. Empty: the home reactor alone.
    std::vector<runtime::Reactor*> reactors;
    runtime::Address listen;     // data port
    std::string data_address;    // told to clients; empty: what was bound
    std::string http_address;    // told to people
    runtime::Address conductor;  // RPC address; an empty host: none
    std::string version;
    runtime::Nanos slow_io = 2 * runtime::seconds;
    uint16_t max_depth = 1024;  // commands in flight granted to a connection
    uint64_t tray_cache_bytes = uint64_t{64} << 20;
    bool discard = false;                         // trim freed blocks on the device
    WriteCache write_cache = WriteCache::detect;  // of trays without a setting of their own (T10)
    // Keep what changed for the next start; an error refuses the change. May be empty.
    std::function<Status(const Uuid& cluster)> save_cluster;
    std::function<Status(const std::vector<TrayPlace>& trays)> save_trays;
};

// Ends the control call that holds the lock.
class ControlUnlock {
  public:
    explicit ControlUnlock(runtime::Mutex& mutex) : mutex_(mutex) {}
    ControlUnlock(const ControlUnlock&) = delete;
    ControlUnlock& operator=(const ControlUnlock&) = delete;
    ~ControlUnlock() { mutex_.unlock(); }

  private:
    runtime::Mutex& mutex_;
};

class Store final : public net::Handler, public LinkOwner {
  public:
    static constexpr uint32_t max_rpcs = 32;  // running and waiting in line; more are told `busy`

    // Mounts the trays and listens. Fails only if the port cannot be listened on.
    [[nodiscard]] static runtime::Task<Result<std::unique_ptr<Store>>> start(runtime::Reactor& home,
                                                                             StoreOptions options);
    ~Store() override;

    // Starts the line to the conductor of the options.
    void join();
    [[nodiscard]] bool registered() const { return link_ && link_->registered(); }

    // Stops serving, ends what runs and stops the trays. Call before destroying.
    [[nodiscard]] runtime::Task<void> stop();

    [[nodiscard]] const runtime::Address& address() const { return server_->local(); }
    [[nodiscard]] uint32_t id() const { return store_id_; }  // 0: never registered
    [[nodiscard]] Uuid cluster() const { return membership_.cluster; }
    [[nodiscard]] bool has_tray(const std::string& path) const;  // mounted or not
    // To be used on its reactor.
    [[nodiscard]] const Worker& worker(size_t index) const { return *workers_[index]; }
    [[nodiscard]] runtime::Task<MetricsPage> metrics() const;
    // Why the store is not healthy; empty if it is.
    [[nodiscard]] runtime::Task<std::string> problem() const;

    // --- control, one call at a time: RPCs hold the lock while they run these ---
    // All of them, whatever becomes of one: a bad tray must not keep the others away. The first
    // error.
    [[nodiscard]] runtime::Task<Status> apply_shards(pureflash::v1::ApplyShardsRequest request);
    [[nodiscard]] runtime::Task<Status> apply_on_tray(Uuid tray_id,
                                                      std::vector<tray::ShardState> states);
    // Unavailable while the tray of the request is in this store's list but not mounted: what is on
    // it cannot be deleted, and would be back with it.
    [[nodiscard]] runtime::Task<Status> delete_shards(pureflash::v1::DeleteShardsRequest request);
    // All on the same tray, and known.
    [[nodiscard]] runtime::Task<Status> delete_on_tray(std::vector<tray::ShardId> ids);
    [[nodiscard]] runtime::Task<Status> fence_session(tray::ShardId id, uint64_t session);
    // Returns how many shards had a loss to accept (T7).
    [[nodiscard]] runtime::Task<Result<uint32_t>> accept_loss(
        pureflash::v1::AcceptLossRequest request);
    // This one takes the lock itself: for the process, which adds trays while RPCs come in already.
    [[nodiscard]] runtime::Task<Result<pureflash::v1::Tray>> add_tray(
        pureflash::v1::AddTrayRequest request);
    [[nodiscard]] runtime::Task<Status> remove_tray(pureflash::v1::RemoveTrayRequest request);

    // --- net::Handler: routes every connection, serves those that name no shard ---
    [[nodiscard]] net::Route route(const wire::Hello& hello) override;
    [[nodiscard]] Status on_hello(net::ServerChannel& channel, const wire::Hello& hello,
                                  wire::HelloReply& reply) override;
    [[nodiscard]] runtime::Task<void> on_command(net::ServerChannel& channel,
                                                 net::Incoming incoming) override;
    void on_disconnect(net::ServerChannel& /*channel*/) override {}
    void on_peer_error(const runtime::Address& peer, const Error& error) override;

    // --- LinkOwner ---
    [[nodiscard]] runtime::Task<pureflash::v1::RegisterStoreRequest> registration() override;
    [[nodiscard]] runtime::Task<pureflash::v1::HeartbeatRequest> heartbeat() override;
    [[nodiscard]] runtime::Task<Status> registered(
        pureflash::v1::RegisterStoreReply reply) override;

  private:
    // A tray stays with the worker that it was given to for as long as the process has it.
    struct Assignment {
        TrayPlace place;
        Worker* worker = nullptr;
    };
    struct Location {
        Worker* worker = nullptr;
        Uuid tray;
    };

    Store(runtime::Reactor& home, StoreOptions options);
    [[nodiscard]] runtime::Task<void> start_workers();
    [[nodiscard]] runtime::Task<void> stop_workers();
    [[nodiscard]] runtime::Task<void> mount_trays();
    [[nodiscard]] runtime::Task<void> mount_tray(TrayPlace place, std::string problem);
    [[nodiscard]] runtime::Task<void> serve_shards(Assignment& at, MountedTray mounted);
    [[nodiscard]] Worker& least_loaded() const;
    [[nodiscard]] Assignment* find_tray(const Uuid& id);
    [[nodiscard]] Assignment* find_path(const std::string& path);
    [[nodiscard]] runtime::Task<Result<pureflash::v1::Tray>> add_tray_locked(
        pureflash::v1::AddTrayRequest request);
    [[nodiscard]] runtime::Task<Status> forget_tray(Assignment& at);
    [[nodiscard]] runtime::Task<Result<std::string>> run_rpc(std::string request);
    [[nodiscard]] runtime::Task<void> answer_rpc(net::ServerChannel& channel,
                                                 net::Incoming incoming);
    [[nodiscard]] runtime::Task<Result<pureflash::v1::RpcReply>> dispatch(
        pureflash::v1::RpcRequest request);
    // Of all trays, or of all but this one.
    [[nodiscard]] Status save_trays(const Uuid& without = {});

    runtime::Reactor& home_;
    StoreOptions options_;
    Membership membership_;
    uint32_t store_id_ = 0;
    std::vector<std::unique_ptr<Worker>> workers_;  // as options_.reactors
    std::vector<Assignment> trays_;
    std::map<tray::ShardId, Location> shards_;
    runtime::Mutex control_;  // one control call at a time
    uint32_t rpcs_ = 0;       // that wait for it, or run
    runtime::Nanos last_heartbeat_at_ = 0;
    std::unique_ptr<net::Server> server_;
    std::unique_ptr<ConductorLink> link_;
};

}  // namespace pf::pfs

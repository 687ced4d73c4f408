// The store daemon's logic: trays, the shards on them, one data port, and the line to the
// conductor.
//
// The data path needs none of the control plane: shards of mounted trays serve as soon as the store
// has started (see shard.hpp on roles after a restart). Control calls (apply, delete, trays, fence)
// run one at a time; what they answer is durable.
//
// Thread rule: one reactor, which owns all trays of this store. Failure: a tray that cannot be
// mounted or fails is reported and stops nothing else.
#pragma once

#include <functional>
#include <map>

#include "base/metrics.hpp"
#include "store/conductor_link.hpp"
#include "store/shard.hpp"
#include "store/tray_set.hpp"

namespace pf::pfs {

struct StoreOptions {
    Uuid id;                       // of the store, kept by its data folder
    Uuid cluster;                  // zero: not in a cluster yet; learned at registration
    std::vector<TrayPlace> trays;  // mounted at start
    runtime::Address listen;       // data port
    std::string data_address;      // told to clients; empty: what was bound
    std::string http_address;      // told to people
    runtime::Address conductor;    // RPC address; an empty host: none
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
    // Mounts the trays and listens. Fails only if the port cannot be listened on.
    [[nodiscard]] static runtime::Task<Result<std::unique_ptr<Store>>> start(
        runtime::Reactor& reactor, StoreOptions options);
    ~Store() override;

    // Starts the line to the conductor of the options.
    void join();
    [[nodiscard]] bool registered() const { return link_ && link_->registered(); }

    // Stops serving, ends what runs and stops the trays. Call before destroying.
    [[nodiscard]] runtime::Task<void> stop();

    [[nodiscard]] const runtime::Address& address() const { return server_->local(); }
    [[nodiscard]] uint32_t id() const { return store_id_; }  // 0: never registered
    [[nodiscard]] Uuid cluster() const { return options_.cluster; }
    [[nodiscard]] const StoreStats& stats() const { return stats_; }
    [[nodiscard]] size_t shard_count() const { return shards_.size(); }
    [[nodiscard]] Shard* find_shard(tray::ShardId id);
    [[nodiscard]] bool has_tray(const std::string& path) const;  // mounted or not
    void fill(MetricsPage& page) const;
    // Why the store is not healthy; empty if it is.
    [[nodiscard]] std::string problem() const;

    // --- control (also reached by RPC) ---
    [[nodiscard]] runtime::Task<Status> apply_shard(pureflash::v1::ApplyShard request);
    [[nodiscard]] runtime::Task<Status> delete_shard(tray::ShardId id);
    [[nodiscard]] runtime::Task<Status> fence_session(tray::ShardId id, uint64_t session);
    // Returns how many shards had a loss to accept (T7).
    [[nodiscard]] runtime::Task<Result<uint32_t>> accept_loss(
        pureflash::v1::AcceptLossRequest request);
    [[nodiscard]] runtime::Task<Result<pureflash::v1::Tray>> add_tray(
        pureflash::v1::AddTrayRequest request);
    [[nodiscard]] runtime::Task<Status> remove_tray(pureflash::v1::RemoveTrayRequest request);

    // --- net::Handler ---
    [[nodiscard]] Status on_hello(net::ServerChannel& channel, const wire::Hello& hello,
                                  wire::HelloReply& reply) override;
    [[nodiscard]] runtime::Task<void> on_command(net::ServerChannel& channel,
                                                 net::Incoming incoming) override;
    void on_disconnect(net::ServerChannel& channel) override;
    void on_peer_error(const runtime::Address& peer, const Error& error) override;

    // --- LinkOwner ---
    [[nodiscard]] pureflash::v1::RegisterStoreRequest registration() override;
    [[nodiscard]] pureflash::v1::HeartbeatRequest heartbeat() override;
    [[nodiscard]] runtime::Task<Status> registered(
        pureflash::v1::RegisterStoreReply reply) override;

  private:
    // What a channel's `user` points to: the shard of its handshake, found once.
    struct Connection : ListHook {
        Shard* shard = nullptr;  // nullptr: none was named, or it was deleted
        uint64_t session = 0;
    };

    Store(runtime::Reactor& reactor, StoreOptions options);
    [[nodiscard]] runtime::Task<void> mount_trays();
    void adopt_shards(TraySlot& slot);
    [[nodiscard]] runtime::Task<void> drop_shard(Shard& shard);
    [[nodiscard]] runtime::Task<void> run_unnamed(net::ServerChannel& channel,
                                                  net::Incoming incoming);
    [[nodiscard]] runtime::Task<Result<std::string>> run_rpc(std::string request);
    [[nodiscard]] runtime::Task<Result<pureflash::v1::RpcReply>> dispatch(
        pureflash::v1::RpcRequest request);
    [[nodiscard]] Status save_trays();

    runtime::Reactor& reactor_;
    StoreOptions options_;
    uint64_t incarnation_;  // of this process, for clients
    uint32_t store_id_ = 0;
    StoreStats stats_;
    Scratch scratch_;
    ShardContext context_;
    TraySet trays_;
    std::map<tray::ShardId, std::unique_ptr<Shard>> shards_;
    List<Connection> connections_;
    runtime::Mutex control_;  // one control call at a time
    runtime::Nanos last_heartbeat_at_ = 0;
    std::unique_ptr<net::Server> server_;
    std::unique_ptr<ConductorLink> link_;
};

}  // namespace pf::pfs

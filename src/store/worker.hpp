// The part of a store that lives on one reactor: its trays, the shards on them, and the connections
// that named one of these shards. An I/O begins and ends here, without a lock and without another
// reactor.
//
// The store calls the control functions on the worker's reactor (call_on), one at a time; what they
// answer is durable.
//
// Thread rule: everything, construction and destruction too, on its reactor. What goes in and out
// of control functions is plain values. Failure: a tray that cannot be mounted or fails is reported
// and stops nothing else.
#pragma once

#include <map>

#include "store/shard.hpp"
#include "store/tray_set.hpp"

namespace pf::pfs {

// What connections are told of the store.
struct Membership {
    Uuid cluster;              // zero: none yet
    uint64_t incarnation = 0;  // of this process
    uint16_t max_depth = 0;    // commands in flight granted to a connection

    // Fills the reply, or refuses: conflict.
    [[nodiscard]] Status accept(const wire::Hello& hello, wire::HelloReply& reply) const;
};

// Answers data commands of a connection without a shard: none was named, or it was deleted.
[[nodiscard]] runtime::Task<void> answer_without_shard(net::ServerChannel& channel,
                                                       net::Incoming incoming);

struct WorkerOptions {
    Membership membership;
    tray::MountOptions mount;
    WriteCache write_cache = WriteCache::detect;  // of trays without a setting of their own (T10)
    runtime::Nanos slow_io = 2 * runtime::seconds;
};

// A tray after its mount was tried.
struct MountedTray {
    Uuid id;                            // zero: never mounted anywhere
    std::vector<tray::ShardId> shards;  // on it; none if it could not be mounted
    pureflash::v1::Tray description;    // without the store's id
};

// For a heartbeat.
struct WorkerLoad {
    std::vector<pureflash::v1::Tray> trays;  // without the store's id
    std::map<uint64_t, ShardLoad> volumes;   // since the previous one, those with any
};

// For metrics.
struct TrayNumbers {
    std::string path;
    bool serves = false;
    bool mounted = false;  // usage and counters are known
    uint64_t damaged_shards = 0;
    tray::Usage usage;
    tray::Counters counters;
};
struct WorkerNumbers {
    StoreStats stats;
    size_t shards = 0;
    size_t connections = 0;
    std::vector<TrayNumbers> trays;
};

class Worker final : public net::Handler {
  public:
    Worker(runtime::Reactor& reactor, const WorkerOptions& options);
    ~Worker() override;

    // The one thing that may be asked for from anywhere.
    [[nodiscard]] runtime::Reactor& reactor() const { return context_.reactor; }

    // --- control ---
    void set_cluster(const Uuid& cluster);
    // Not tried if there is a `problem` already.
    [[nodiscard]] runtime::Task<MountedTray> mount(TrayPlace place, std::string problem);
    [[nodiscard]] runtime::Task<Result<MountedTray>> add_tray(AddTray request);
    [[nodiscard]] bool has_mounted(const Uuid& tray) const;
    // Serves the shards of the tray, but not those that another tray of the store serves.
    void serve(const Uuid& tray, const std::vector<tray::ShardId>& elsewhere);
    // With the shards on it.
    [[nodiscard]] runtime::Task<Status> remove_tray(Uuid tray);
    // What became of each, in their order.
    [[nodiscard]] runtime::Task<std::vector<Status>> apply_shards(
        Uuid tray, std::vector<tray::ShardState> states);
    [[nodiscard]] runtime::Task<Status> delete_shards(Uuid tray, std::vector<tray::ShardId> ids);
    [[nodiscard]] runtime::Task<Status> fence_session(tray::ShardId id, uint64_t session);
    // T7: of these shards of the tray, or of all if none is named. Returns how many had a loss.
    [[nodiscard]] runtime::Task<Result<uint32_t>> accept_loss(Uuid tray,
                                                              std::vector<tray::ShardId> ids);
    // Ends what runs and stops the trays; no connection is left. Call before destroying.
    [[nodiscard]] runtime::Task<void> stop();

    // --- reports ---
    [[nodiscard]] Shard* find_shard(tray::ShardId id) const;
    // Why a tray does not serve; empty if all do.
    [[nodiscard]] std::string problem() const;
    [[nodiscard]] std::vector<pureflash::v1::Tray> describe_trays() const;
    [[nodiscard]] WorkerLoad take_load();
    [[nodiscard]] WorkerNumbers numbers() const;

    // --- net::Handler: connections that named a shard ---
    [[nodiscard]] Status on_hello(net::ServerChannel& channel, const wire::Hello& hello,
                                  wire::HelloReply& reply) override;
    [[nodiscard]] runtime::Task<void> on_command(net::ServerChannel& channel,
                                                 net::Incoming incoming) override;
    void on_disconnect(net::ServerChannel& channel) override;
    void on_peer_error(const runtime::Address& peer, const Error& error) override;

  private:
    // What a channel's `user` points to: the shard of its handshake, found once.
    struct Connection : ListHook {
        explicit Connection(net::ServerChannel& of) : channel(of) {}
        net::ServerChannel& channel;
        Shard* shard = nullptr;  // nullptr: it was deleted, or the connection was replaced
        uint64_t session = 0;
    };
    void end_older_connections(Shard& shard, uint64_t session);

    [[nodiscard]] MountedTray describe(const TraySlot& slot) const;
    [[nodiscard]] runtime::Task<void> drop_shard(Shard& shard);

    Membership membership_;
    StoreStats stats_;
    Scratch scratch_;
    ShardContext context_;
    TraySet trays_;
    std::map<tray::ShardId, std::unique_ptr<Shard>> shards_;
    List<Connection> connections_;
    size_t connection_count_ = 0;
};

}  // namespace pf::pfs

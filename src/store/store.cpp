#include "store/store.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.hpp"

namespace pf::pfs {

using runtime::Task;

namespace {
tray::MountOptions mount_options(const StoreOptions& options) {
    tray::MountOptions mount;
    mount.cluster = options.cluster;
    mount.cache_bytes = options.tray_cache_bytes;
    mount.discard = options.discard;
    return mount;
}
}  // namespace

Store::Store(runtime::Reactor& reactor, StoreOptions options)
    : reactor_(reactor),
      options_(std::move(options)),
      incarnation_(reactor.rng().next()),
      scratch_(reactor.buffers()),
      context_{reactor, scratch_, stats_, options_.slow_io},
      trays_(reactor, mount_options(options_), options_.write_cache) {}

Store::~Store() {
    server_.reset();
    // Only a process that is killed still has connections here.
    while (Connection* each = connections_.pop_front()) delete each;
}

Task<Result<std::unique_ptr<Store>>> Store::start(runtime::Reactor& reactor, StoreOptions options) {
    std::unique_ptr<Store> store(new Store(reactor, std::move(options)));
    if (!store->options_.cluster.is_zero()) {
        Task<void> mounting = store->mount_trays();
        co_await mounting;
    }
    Result<std::unique_ptr<net::Server>> server =
        net::Server::listen(store->options_.listen, *store);
    if (!server) {
        Task<void> stopping = store->trays_.stop();
        co_await stopping;
        co_return std::unexpected<Error>(server.error());
    }
    store->server_ = std::move(*server);
    if (store->options_.data_address.empty()) {
        store->options_.data_address = store->address().text();
    }
    store->last_heartbeat_at_ = reactor.now();
    co_return store;
}

void Store::join() {
    PF_ASSERT(!link_);
    link_ = std::make_unique<ConductorLink>(options_.conductor, *this);
    link_->start(reactor_);
}

Task<void> Store::stop() {
    if (link_) {
        Task<void> saying_goodbye = link_->stop();
        co_await saying_goodbye;
    }
    Task<void> closing = server_->stop();
    co_await closing;
    for (auto& [id, shard] : shards_) {
        Task<void> retiring = shard->retire();
        co_await retiring;
    }
    shards_.clear();
    Task<void> stopping = trays_.stop();
    co_await stopping;
}

Task<void> Store::mount_trays() {
    for (const TrayPlace& place : options_.trays) {
        Task<void> mounting = trays_.mount(place);
        co_await mounting;
    }
    for (const auto& slot : trays_.slots()) adopt_shards(*slot);
}

// R1, R3: each is a set of one (apply_shard refuses others), so it serves in the epoch it
// remembers.
void Store::adopt_shards(TraySlot& slot) {
    if (slot.tray == nullptr) return;
    for (const tray::ShardState& state : slot.tray->shards()) {
        if (shards_.contains(state.shard)) {
            log_error("tray {} holds shard {:#x}, which another tray of this store serves: ignored",
                      slot.path, state.shard);
            continue;
        }
        shards_[state.shard] = std::make_unique<Shard>(context_, *slot.tray, state);
    }
}

bool Store::has_tray(const std::string& path) const {
    const auto is_it = [&path](const auto& slot) { return slot->path == path; };
    return std::ranges::any_of(trays_.slots(), is_it);
}

Shard* Store::find_shard(tray::ShardId id) {
    const auto found = shards_.find(id);
    return found == shards_.end() ? nullptr : found->second.get();
}

Status Store::on_hello(net::ServerChannel& channel, const wire::Hello& hello,
                       wire::HelloReply& reply) {
    Uuid asked;
    std::copy(std::begin(hello.cluster), std::end(hello.cluster), asked.bytes.begin());
    if (!asked.is_zero() && asked != options_.cluster) {
        return fail(Errc::conflict, fmt::format("this store is of cluster {}, not {}",
                                                options_.cluster.text(), asked.text()));
    }
    Shard* shard = nullptr;
    if (hello.shard != 0) {
        shard = find_shard(hello.shard);
        if (shard == nullptr) {
            return fail(Errc::not_found, fmt::format("shard {:#x} is not here", hello.shard));
        }
        if (hello.session != 0 && shard->fenced(hello.session)) {
            return fail(Errc::fenced, "the session was ended");
        }
    }
    auto connection = std::make_unique<Connection>();
    connection->shard = shard;
    connection->session = hello.session;
    if (shard != nullptr) shard->attach(hello.session);
    connections_.push_back(*connection);
    channel.user = connection.release();  // until on_disconnect
    reply.depth = std::min(hello.depth, options_.max_depth);
    reply.incarnation = incarnation_;
    std::copy(options_.cluster.bytes.begin(), options_.cluster.bytes.end(),
              std::begin(reply.cluster));
    return {};
}

Task<void> Store::on_command(net::ServerChannel& channel, net::Incoming incoming) {
    Shard* shard = static_cast<Connection*>(channel.user)->shard;
    if (shard != nullptr) return shard->run(channel, std::move(incoming));
    return run_unnamed(channel, std::move(incoming));
}

void Store::on_disconnect(net::ServerChannel& channel) {
    std::unique_ptr<Connection> connection(
        static_cast<Connection*>(std::exchange(channel.user, nullptr)));
    if (connection->shard != nullptr) connection->shard->detach(connection->session);
}

void Store::on_peer_error(const runtime::Address& peer, const Error& error) {
    log_warning("client {} was disconnected: {}", peer.text(), error.text());
}

}  // namespace pf::pfs

#include "store/store.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.hpp"
#include "runtime/call_on.hpp"

namespace pf::pfs {

using runtime::call_on;
using runtime::Task;

Store::Store(runtime::Reactor& home, StoreOptions options)
    : home_(home),
      options_(std::move(options)),
      membership_{options_.cluster, home.rng().next(), options_.max_depth} {
    if (options_.reactors.empty()) options_.reactors.push_back(&home);
    PF_ASSERT(options_.reactors.front() == &home);
}

Store::~Store() {
    server_.reset();
    // A process that is killed, in the simulator, has its one worker at home.
    PF_ASSERT(workers_.size() <= 1);
}

Task<Result<std::unique_ptr<Store>>> Store::start(runtime::Reactor& home, StoreOptions options) {
    std::unique_ptr<Store> store(new Store(home, std::move(options)));
    Task<void> starting = store->start_workers();
    co_await starting;
    if (!store->membership_.cluster.is_zero()) {
        Task<void> mounting = store->mount_trays();
        co_await mounting;
    }
    Result<std::unique_ptr<net::Server>> server =
        net::Server::listen(store->options_.listen, *store);
    if (!server) {
        Task<void> stopping = store->stop_workers();
        co_await stopping;
        co_return std::unexpected<Error>(server.error());
    }
    store->server_ = std::move(*server);
    if (store->options_.data_address.empty()) {
        store->options_.data_address = store->address().text();
    }
    store->last_heartbeat_at_ = home.now();
    co_return store;
}

void Store::join() {
    PF_ASSERT(!link_);
    link_ = std::make_unique<ConductorLink>(options_.conductor, *this);
    link_->start(home_);
}

Task<void> Store::stop() {
    if (link_) {
        Task<void> saying_goodbye = link_->stop();
        co_await saying_goodbye;
    }
    Task<void> closing = server_->stop();
    co_await closing;
    Task<void> stopping = stop_workers();
    co_await stopping;
}

// --- workers, each made and ended on its reactor ---

Task<void> Store::start_workers() {
    WorkerOptions worker;
    worker.membership = membership_;
    worker.mount.cluster = membership_.cluster;
    worker.mount.cache_bytes = options_.tray_cache_bytes;
    worker.mount.discard = options_.discard;
    worker.write_cache = options_.write_cache;
    worker.slow_io = options_.slow_io;
    for (runtime::Reactor* reactor : options_.reactors) {
        Task<std::unique_ptr<Worker>> making = call_on(
            *reactor, [reactor, &worker] { return std::make_unique<Worker>(*reactor, worker); });
        workers_.push_back(co_await making);
    }
}

Task<void> Store::stop_workers() {
    shards_.clear();
    trays_.clear();
    for (std::unique_ptr<Worker>& worker : workers_) {
        runtime::Reactor& reactor = worker->reactor();
        co_await call_on(reactor, [&worker] { return worker->stop(); });
        co_await call_on(reactor, [&worker] { worker.reset(); });
    }
    workers_.clear();
}

// --- trays ---

// Disks change their names: a tray of the list may be at the path of another one, which it must not
// be taken for.
Task<void> Store::mount_trays() {
    const std::vector<TrayPlace>& listed = options_.trays;
    std::vector<Uuid> there;
    for (const TrayPlace& place : listed) {
        Task<Result<Uuid>> looking = tray_at(place.path);
        const Result<Uuid> found = co_await looking;
        there.push_back(found.value_or(Uuid{}));
    }
    for (size_t i = 0; i < listed.size(); ++i) {
        TrayPlace place = listed[i];
        std::string problem;
        const auto now_at = std::ranges::find(there, place.id);
        const auto other = std::ranges::find(listed, there[i], &TrayPlace::id);
        if (there[i] != place.id && !place.id.is_zero() && now_at != there.end()) {
            place.path = listed[static_cast<size_t>(now_at - there.begin())].path;
        } else if (there[i] != place.id && !there[i].is_zero() && other != listed.end()) {
            const bool moved = there[static_cast<size_t>(other - listed.begin())] != there[i];
            if (moved && place.id.is_zero()) continue;  // its new path is in the configuration
            problem = fmt::format("'{}' has tray {}, which is another of this store", place.path,
                                  there[i].text());
        }
        Task<void> mounting = mount_tray(std::move(place), std::move(problem));
        co_await mounting;
    }
}

Task<void> Store::mount_tray(TrayPlace place, std::string problem) {
    Worker& worker = least_loaded();
    trays_.push_back({place, &worker});
    Task<MountedTray> mounting =
        call_on(worker.reactor(), [&] { return worker.mount(place, problem); });
    MountedTray mounted = co_await mounting;
    Task<void> serving = serve_shards(trays_.back(), std::move(mounted));
    co_await serving;
}

// Few trays: fewest trays is least load, and ties go to the first, so that the same list is always
// spread the same way.
Worker& Store::least_loaded() const {
    const auto load = [this](const std::unique_ptr<Worker>& worker) {
        return std::ranges::count(trays_, worker.get(), &Assignment::worker);
    };
    return **std::ranges::min_element(workers_, {}, load);
}

Task<void> Store::serve_shards(Assignment& at, MountedTray mounted) {
    at.place.id = mounted.id;
    std::vector<tray::ShardId> elsewhere;
    for (const tray::ShardId shard : mounted.shards) {
        const bool fresh = shards_.try_emplace(shard, at.worker, mounted.id).second;
        if (fresh) continue;
        elsewhere.push_back(shard);
        log_error("tray {} holds shard {:#x}, which another tray of this store serves: ignored",
                  at.place.path, shard);
    }
    if (mounted.shards.empty()) co_return;
    Worker& worker = *at.worker;
    co_await call_on(worker.reactor(), [&] { worker.serve(mounted.id, elsewhere); });
}

bool Store::has_tray(const std::string& path) const {
    const auto is_it = [&path](const Assignment& at) { return at.place.path == path; };
    return std::ranges::any_of(trays_, is_it);
}

Store::Assignment* Store::find_tray(const Uuid& id) {
    for (Assignment& at : trays_) {
        if (!id.is_zero() && at.place.id == id) return &at;
    }
    return nullptr;
}

Store::Assignment* Store::find_path(const std::string& path) {
    for (Assignment& at : trays_) {
        if (same_place(at.place.path, path)) return &at;
    }
    return nullptr;
}

// --- connections ---

net::Route Store::route(const wire::Hello& hello) {
    const auto found = shards_.find(hello.shard);
    if (found == shards_.end()) return {&home_, this};
    Worker* worker = found->second.worker;
    return {&worker->reactor(), worker};
}

Status Store::on_hello(net::ServerChannel& /*channel*/, const wire::Hello& hello,
                       wire::HelloReply& reply) {
    PF_TRY(membership_.accept(hello, reply));
    if (hello.shard != 0) {
        return fail(Errc::not_found, fmt::format("shard {:#x} is not here", hello.shard));
    }
    return {};
}

Task<void> Store::on_command(net::ServerChannel& channel, net::Incoming incoming) {
    if (incoming.command.opcode == wire::Opcode::rpc) {
        return answer_rpc(channel, std::move(incoming));
    }
    return answer_without_shard(channel, std::move(incoming));
}

void Store::on_peer_error(const runtime::Address& peer, const Error& error) {
    log_warning("client {} was disconnected: {}", peer.text(), error.text());
}

}  // namespace pf::pfs

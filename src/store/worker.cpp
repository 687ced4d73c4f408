#include "store/worker.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.hpp"

namespace pf::pfs {

using runtime::Task;
namespace v1 = pureflash::v1;

Status Membership::accept(const wire::Hello& hello, wire::HelloReply& reply) const {
    Uuid asked;
    std::copy(std::begin(hello.cluster), std::end(hello.cluster), asked.bytes.begin());
    if (!asked.is_zero() && asked != cluster) {
        return fail(Errc::conflict, fmt::format("this store is of cluster {}, not {}",
                                                cluster.text(), asked.text()));
    }
    reply.depth = std::min(hello.depth, max_depth);
    reply.incarnation = incarnation;
    std::copy(cluster.bytes.begin(), cluster.bytes.end(), std::begin(reply.cluster));
    return {};
}

Task<void> answer_without_shard(net::ServerChannel& channel, net::Incoming incoming) {
    net::Reply answer;
    const bool ping = incoming.command.opcode == wire::Opcode::ping;
    answer.completion.status = static_cast<uint16_t>(ping ? Errc::ok : Errc::not_found);
    channel.reply(incoming.command, std::move(answer));
    co_return;
}

Worker::Worker(runtime::Reactor& reactor, const WorkerOptions& options)
    : membership_(options.membership),
      scratch_(reactor.buffers()),
      context_{reactor, scratch_, stats_, options.slow_io},
      trays_(reactor, options.mount, options.write_cache) {}

Worker::~Worker() {
    // Only a process that is killed still has connections here.
    while (Connection* each = connections_.pop_front()) delete each;
}

// --- connections ---

Status Worker::on_hello(net::ServerChannel& channel, const wire::Hello& hello,
                        wire::HelloReply& reply) {
    PF_TRY(membership_.accept(hello, reply));
    Shard* shard = find_shard(hello.shard);
    if (shard == nullptr) {  // deleted while the connection was handed over
        return fail(Errc::not_found, fmt::format("shard {:#x} is not here", hello.shard));
    }
    if (hello.session != 0 && shard->fenced(hello.session)) {
        return fail(Errc::fenced, "the session was ended");
    }
    if (hello.session != 0) end_older_connections(*shard, hello.session);
    auto connection = std::make_unique<Connection>(channel);
    connection->shard = shard;
    connection->session = hello.session;
    shard->attach(hello.session);
    connections_.push_back(*connection);
    ++connection_count_;
    channel.user = connection.release();  // until on_disconnect
    return {};
}

// R10: the tray remembers what was applied or voided, not what was refused. So before a session's
// new connection is answered nothing more may be taken from its older ones: a late copy of a
// request would run after the client got the refusal of the copy that it sent again. What was taken
// already is in the shard's in-flight table, where the newer copy waits for it.
void Worker::end_older_connections(Shard& shard, uint64_t session) {
    for (Connection* each = connections_.front(); each != nullptr;
         each = connections_.next(*each)) {
        if (each->shard != &shard || each->session != session) continue;
        shard.detach(session);
        each->shard = nullptr;
        each->channel.disconnect();
    }
}

Task<void> Worker::on_command(net::ServerChannel& channel, net::Incoming incoming) {
    Shard* shard = static_cast<Connection*>(channel.user)->shard;
    if (shard != nullptr) return shard->run(channel, std::move(incoming));
    return answer_without_shard(channel, std::move(incoming));
}

void Worker::on_disconnect(net::ServerChannel& channel) {
    std::unique_ptr<Connection> connection(
        static_cast<Connection*>(std::exchange(channel.user, nullptr)));
    if (connection->shard != nullptr) connection->shard->detach(connection->session);
    --connection_count_;
}

void Worker::on_peer_error(const runtime::Address& peer, const Error& error) {
    log_warning("client {} was disconnected: {}", peer.text(), error.text());
}

// --- trays ---

void Worker::set_cluster(const Uuid& cluster) {
    membership_.cluster = cluster;
    trays_.set_cluster(cluster);
}

MountedTray Worker::describe(const TraySlot& slot) const {
    MountedTray mounted;
    mounted.id = slot.id;
    mounted.description = slot.describe();
    if (slot.tray == nullptr) return mounted;
    for (const tray::ShardState& state : slot.tray->shards()) mounted.shards.push_back(state.shard);
    return mounted;
}

Task<MountedTray> Worker::mount(TrayPlace place, std::string problem) {
    if (problem.empty()) {
        Task<void> mounting = trays_.mount(std::move(place));
        co_await mounting;
    } else {
        trays_.leave_unmounted(std::move(place), std::move(problem));
    }
    co_return describe(*trays_.slots().back());
}

Task<Result<MountedTray>> Worker::add_tray(AddTray request) {
    Task<Result<TraySlot*>> adding = trays_.add(std::move(request));
    PF_CO_TRY_ASSIGN(const TraySlot* slot, co_await adding);
    co_return describe(*slot);
}

bool Worker::has_mounted(const Uuid& tray) const {
    return std::ranges::any_of(trays_.slots(), [&tray](const auto& slot) {
        return slot->id == tray && slot->tray != nullptr;
    });
}

// R1, R3: each is a set of one (the store refuses others), so it serves in the epoch it
// remembers.
void Worker::serve(const Uuid& tray, const std::vector<tray::ShardId>& elsewhere) {
    const TraySlot* slot = trays_.find(tray);
    PF_ASSERT(slot != nullptr);
    if (slot->tray == nullptr) return;
    for (const tray::ShardState& state : slot->tray->shards()) {
        if (std::ranges::find(elsewhere, state.shard) != elsewhere.end()) continue;
        shards_[state.shard] = std::make_unique<Shard>(context_, *slot->tray, state);
    }
}

Task<Status> Worker::remove_tray(Uuid tray) {
    TraySlot* slot = trays_.find(tray);
    if (slot == nullptr) co_return fail(Errc::not_found, "no such tray here: " + tray.text());
    std::vector<Shard*> on_it;
    for (const auto& [shard_id, shard] : shards_) {
        if (slot->tray != nullptr && &shard->tray() == slot->tray.get())
            on_it.push_back(shard.get());
    }
    for (Shard* shard : on_it) {
        Task<void> dropping = drop_shard(*shard);
        co_await dropping;
    }
    Task<Status> removing = trays_.remove(tray);
    const Status removed = co_await removing;
    co_return removed;
}

// --- shards ---

Shard* Worker::find_shard(tray::ShardId id) const {
    const auto found = shards_.find(id);
    return found == shards_.end() ? nullptr : found->second.get();
}

Task<std::vector<Status>> Worker::apply_shards(Uuid tray, std::vector<tray::ShardState> states) {
    const TraySlot* slot = trays_.find(tray);
    Status usable;
    if (slot == nullptr)
        usable = fail(Errc::not_found, "no such tray here: " + tray.text());
    else if (slot->tray == nullptr)
        usable = fail(Errc::unavailable, "not mounted: " + slot->problem);
    else if (!slot->serves())
        usable = fail(Errc::io_error, "the tray failed: " + slot->path);
    if (!usable) co_return std::vector<Status>(states.size(), usable);

    std::vector<tray::ShardState> made;
    for (const tray::ShardState& state : states) {
        if (find_shard(state.shard) == nullptr) made.push_back(state);
    }
    Task<std::vector<Status>> creating = slot->tray->create_shards(made);
    const std::vector<Status> created = co_await creating;
    std::map<tray::ShardId, Status> failed;
    for (size_t i = 0; i < made.size(); ++i) {
        const tray::ShardId id = made[i].shard;
        if (created[i])
            shards_[id] = std::make_unique<Shard>(context_, *slot->tray, made[i]);
        else
            failed.try_emplace(id, created[i]);
    }
    std::vector<Status> done;
    for (const tray::ShardState& state : states) {
        Shard* shard = find_shard(state.shard);
        if (shard == nullptr) {
            done.push_back(failed.at(state.shard));
            continue;
        }
        Task<Status> applying = shard->apply(state);  // nothing to do for one that was just made
        Status applied = co_await applying;
        done.push_back(std::move(applied));
    }
    co_return done;
}

// Nothing of the shard runs or is reached any more afterwards.
Task<void> Worker::drop_shard(Shard& shard) {
    Task<void> retiring = shard.retire();
    co_await retiring;
    for (Connection* each = connections_.front(); each != nullptr;
         each = connections_.next(*each)) {
        if (each->shard == &shard) each->shard = nullptr;
    }
    shards_.erase(shard.state().shard);
}

// May come again after the tray failed in between: a shard is not served then, but is on the tray.
Task<Status> Worker::delete_shards(Uuid tray, std::vector<tray::ShardId> ids) {
    TraySlot* slot = trays_.find(tray);
    if (slot == nullptr || slot->tray == nullptr) {
        co_return fail(Errc::not_found, "no such tray here: " + tray.text());
    }
    for (const tray::ShardId id : ids) {
        Shard* shard = find_shard(id);
        if (shard == nullptr) continue;
        Task<void> dropping = drop_shard(*shard);
        co_await dropping;
    }
    Task<Status> deleting = slot->tray->delete_shards(std::move(ids));
    const Status deleted = co_await deleting;
    co_return deleted;
}

Task<Status> Worker::fence_session(tray::ShardId id, uint64_t session) {
    Shard* shard = find_shard(id);
    if (shard == nullptr) co_return Status{};  // nothing of it is ever written here
    Task<Status> fencing = shard->fence(session);
    const Status fenced = co_await fencing;
    co_return fenced;
}

Task<Result<uint32_t>> Worker::accept_loss(Uuid tray, std::vector<tray::ShardId> ids) {
    const TraySlot* slot = trays_.find(tray);
    if (slot == nullptr) co_return fail(Errc::not_found, "no such tray here: " + tray.text());
    if (!slot->serves()) co_return fail(Errc::io_error, "the tray failed: " + slot->path);
    if (ids.empty()) {
        for (const tray::ShardState& state : slot->tray->shards()) ids.push_back(state.shard);
    }
    uint32_t accepted = 0;
    for (const tray::ShardId id : ids) {
        Shard* shard = find_shard(id);
        if (shard == nullptr || &shard->tray() != slot->tray.get()) continue;
        if (!shard->state().damaged) continue;
        Task<Status> accepting = shard->accept_loss();
        PF_CO_TRY(co_await accepting);
        ++accepted;
        log_warning("tray {}: shard {:#x} goes on with what is left of it", slot->path, id);
    }
    co_return accepted;
}

Task<void> Worker::stop() {
    for (auto& [id, shard] : shards_) {
        Task<void> retiring = shard->retire();
        co_await retiring;
    }
    shards_.clear();
    Task<void> stopping = trays_.stop();
    co_await stopping;
}

// --- reports ---

std::string Worker::problem() const {
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

std::vector<v1::Tray> Worker::describe_trays() const {
    std::vector<v1::Tray> trays;
    for (const auto& slot : trays_.slots()) {
        if (!slot->id.is_zero()) trays.push_back(slot->describe());
    }
    return trays;
}

WorkerLoad Worker::take_load() {
    WorkerLoad all;
    all.trays = describe_trays();
    for (const auto& [id, shard] : shards_) {
        const ShardLoad load = shard->take_load();
        if (load.reads + load.writes != 0) all.volumes[id >> shard_index_bits].add(load);
    }
    return all;
}

WorkerNumbers Worker::numbers() const {
    WorkerNumbers all{stats_, shards_.size(), connection_count_, {}};
    for (const auto& slot : trays_.slots()) {
        TrayNumbers& tray = all.trays.emplace_back();
        tray.path = slot->path;
        tray.serves = slot->serves();
        tray.mounted = slot->tray != nullptr;
        if (!tray.mounted) continue;
        tray.usage = slot->tray->usage();
        tray.counters = slot->tray->counters();
        for (const auto& [volume, shards] : slot->lost()) tray.damaged_shards += shards;
    }
    return all;
}

}  // namespace pf::pfs

// What the conductor tells the store: shards, trays, fences. Every call may come again after a lost
// answer, so each is written to be repeated.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.hpp"
#include "net/rpc.hpp"
#include "runtime/call_on.hpp"
#include "store/store.hpp"

namespace pf::pfs {

using runtime::call_on;
using runtime::Task;
namespace v1 = pureflash::v1;

namespace {

constexpr uint64_t max_shard_blocks = uint64_t{1} << 24;  // the tray's limit: 64 GiB

Result<tray::ShardState> parse_state(const v1::ApplyShard& request) {
    const v1::Shard& shard = request.shard();
    const uint64_t blocks = shard.size_bytes() / block_bytes;
    if (shard.id() == 0 || shard.epoch() == 0 || shard.size_bytes() % block_bytes != 0 ||
        blocks == 0 || blocks > max_shard_blocks) {
        return fail(Errc::invalid_argument,
                    fmt::format("shard {:#x}: id, epoch and size must be set, and the size a "
                                "multiple of 4 KiB up to 64 GiB (epoch {}, {} bytes)",
                                shard.id(), shard.epoch(), shard.size_bytes()));
    }
    if (shard.in_sync_size() > 1 || shard.recovering_size() > 0) {
        return fail(Errc::unsupported, "this store does not replicate yet: one replica per shard");
    }
    tray::ShardState state;
    state.shard = shard.id();
    PF_TRY_ASSIGN(state.replica, Uuid::parse(request.replica_uuid()));
    state.blocks = static_cast<uint32_t>(blocks);
    state.epoch = shard.epoch();
    state.writer_token = shard.writer_token();
    state.snap_seq = std::max<uint32_t>(shard.snap_seq(), 1);
    // T7: one that should be here and is not was lost with the record that made it. It must not
    // come back empty as if nothing had ever been written.
    state.damaged = !request.fresh();
    return state;
}

}  // namespace

Task<Status> Store::apply_shards(v1::ApplyShardsRequest request) {
    Status first;
    const auto note = [&first](Status applied) {
        if (first && !applied) first = std::move(applied);
    };
    std::map<Uuid, std::vector<tray::ShardState>> by_tray;
    for (const v1::ApplyShard& shard : request.shards()) {
        const Result<tray::ShardState> state = parse_state(shard);
        const Result<Uuid> tray_id = Uuid::parse(shard.tray_uuid());
        if (!state)
            note(std::unexpected<Error>(state.error()));
        else if (!tray_id)
            note(std::unexpected<Error>(tray_id.error()));
        else
            by_tray[*tray_id].push_back(*state);
    }
    for (auto& [tray_id, states] : by_tray) {
        Task<Status> applying = apply_on_tray(tray_id, std::move(states));
        Status applied = co_await applying;
        note(std::move(applied));
    }
    co_return first;
}

Task<Status> Store::apply_on_tray(Uuid tray_id, std::vector<tray::ShardState> states) {
    const Assignment* at = find_tray(tray_id);
    if (at == nullptr) co_return fail(Errc::not_found, "no such tray here: " + tray_id.text());
    Status first;
    std::erase_if(states, [&](tray::ShardState& state) {
        const auto known = shards_.find(state.shard);
        if (known == shards_.end()) return false;
        state.damaged = false;
        if (known->second.tray == tray_id) return false;
        first = fail(Errc::conflict,
                     fmt::format("shard {:#x} is on another tray of this store", state.shard));
        return true;
    });
    Worker& worker = *at->worker;
    Task<std::vector<Status>> applying =
        call_on(worker.reactor(), [&] { return worker.apply_shards(tray_id, states); });
    std::vector<Status> applied = co_await applying;
    for (size_t i = 0; i < states.size(); ++i) {
        if (!applied[i]) {
            if (first) first = std::move(applied[i]);
            continue;
        }
        if (states[i].damaged) {
            log_error(
                "tray {}: shard {:#x} is missing: it answers no I/O until the loss is accepted",
                at->place.path, states[i].shard);
        }
        shards_.try_emplace(states[i].shard, &worker, tray_id);
    }
    co_return first;
}

Task<Status> Store::delete_on_tray(std::vector<tray::ShardId> ids) {
    if (ids.empty()) co_return Status{};
    const auto known = shards_.find(ids.front());
    Worker& worker = *known->second.worker;
    const Uuid tray = known->second.tray;
    Task<Status> deleting =
        call_on(worker.reactor(), [&] { return worker.delete_shards(tray, ids); });
    PF_CO_TRY(co_await deleting);
    // Not before: told again, none must be called gone while it is not.
    for (const tray::ShardId id : ids) shards_.erase(id);
    co_return Status{};
}

Task<Status> Store::delete_shards(v1::DeleteShardsRequest request) {
    const Result<Uuid> tray = Uuid::parse(request.tray_uuid());
    const Assignment* at = tray ? find_tray(*tray) : nullptr;
    if (at != nullptr) {
        const Worker& worker = *at->worker;
        const bool mounted = co_await call_on(
            worker.reactor(), [&worker, &tray] { return worker.has_mounted(*tray); });
        if (!mounted) {
            co_return fail(
                Errc::unavailable,
                fmt::format("tray {} at '{}' is not mounted: its shards are deleted when "
                            "it is back",
                            request.tray_uuid(), at->place.path));
        }
    }
    std::vector<tray::ShardId> together;
    for (const uint64_t id : request.shard_ids()) {
        const auto known = shards_.find(id);
        if (known == shards_.end()) continue;  // gone already
        if (!together.empty() && shards_.at(together.front()).tray != known->second.tray) {
            Task<Status> deleting = delete_on_tray(std::exchange(together, {}));
            PF_CO_TRY(co_await deleting);
        }
        together.push_back(id);
    }
    Task<Status> deleting = delete_on_tray(std::move(together));
    PF_CO_TRY(co_await deleting);
    co_return Status{};
}

Task<Status> Store::fence_session(tray::ShardId id, uint64_t session) {
    const auto known = shards_.find(id);
    if (known == shards_.end()) co_return Status{};  // nothing of it is ever written here
    Worker& worker = *known->second.worker;
    Task<Status> fencing =
        call_on(worker.reactor(), [&] { return worker.fence_session(id, session); });
    const Status fenced = co_await fencing;
    co_return fenced;
}

Task<Result<uint32_t>> Store::accept_loss(v1::AcceptLossRequest request) {
    PF_CO_TRY_ASSIGN(const Uuid tray_id, Uuid::parse(request.tray_uuid()));
    const Assignment* at = find_tray(tray_id);
    if (at == nullptr) co_return fail(Errc::not_found, "no such tray here: " + tray_id.text());
    Worker& worker = *at->worker;
    const std::vector<tray::ShardId> ids(request.shard_ids().begin(), request.shard_ids().end());
    Task<Result<uint32_t>> accepting =
        call_on(worker.reactor(), [&] { return worker.accept_loss(tray_id, ids); });
    PF_CO_TRY_ASSIGN(const uint32_t accepted, co_await accepting);
    if (accepted > 0 && link_) link_->report_soon();
    co_return accepted;
}

Task<Result<v1::Tray>> Store::add_tray(v1::AddTrayRequest request) {
    Task<void> locking = control_.lock();
    co_await locking;
    const ControlUnlock unlock(control_);
    Task<Result<v1::Tray>> adding = add_tray_locked(std::move(request));
    Result<v1::Tray> added = co_await adding;
    co_return added;
}

Task<Result<v1::Tray>> Store::add_tray_locked(v1::AddTrayRequest request) {
    if (membership_.cluster.is_zero()) {
        co_return fail(Errc::unavailable, "this store has not joined a cluster yet; try again");
    }
    if (!request.cluster_uuid().empty() && request.cluster_uuid() != membership_.cluster.text()) {
        co_return fail(Errc::conflict,
                       fmt::format("this store is of cluster {}", membership_.cluster.text()));
    }
    // By what is there first: a tray that was moved stays with its worker.
    Task<Result<Uuid>> looking = tray_at(request.path());
    const Result<Uuid> there = co_await looking;
    Assignment* at = there ? find_tray(*there) : nullptr;
    if (at == nullptr) at = find_path(request.path());
    if (at == nullptr && trays_.size() == TraySet::max_trays) {
        co_return fail(Errc::resource_exhausted,
                       fmt::format("a store has at most {} trays", TraySet::max_trays));
    }
    Worker& worker = at != nullptr ? *at->worker : least_loaded();
    AddTray add;
    add.path = request.path();
    add.create_bytes = request.create_bytes();
    add.force = request.force();
    add.mount_only = request.mount_only();
    if (!request.write_cache().empty()) {
        PF_CO_TRY_ASSIGN(add.write_cache, parse_write_cache(request.write_cache()));
    }
    for (const Assignment& other : trays_) {
        if (other.worker != &worker) add.others.push_back(other.place.id);
    }
    Task<Result<MountedTray>> adding =
        call_on(worker.reactor(), [&] { return worker.add_tray(add); });
    PF_CO_TRY_ASSIGN(MountedTray added, co_await adding);
    if (at == nullptr) at = &trays_.emplace_back(TrayPlace{request.path(), {}, {}}, &worker);
    at->place.path = added.description.path();
    at->place.id = added.id;
    at->place.write_cache = add.write_cache;
    const Status saved = save_trays();
    if (!saved) {
        Task<Status> forgetting = forget_tray(*at);
        PF_CO_TRY(co_await forgetting);
        co_return std::unexpected<Error>(saved.error());
    }
    if (link_) link_->report_soon();
    v1::Tray description = std::move(added.description);
    description.set_store_id(store_id_);
    Task<void> serving = serve_shards(*at, std::move(added));
    co_await serving;
    log_info("tray {} added from {}", description.uuid(), request.path());
    co_return description;
}

// The worker lets go of the tray, then it is in no list any more.
Task<Status> Store::forget_tray(Assignment& at) {
    const Uuid id = at.place.id;
    Worker& worker = *at.worker;
    Task<Status> removing = call_on(worker.reactor(), [&] { return worker.remove_tray(id); });
    PF_CO_TRY(co_await removing);
    std::erase_if(shards_, [&id](const auto& each) { return each.second.tray == id; });
    std::erase_if(trays_, [&id](const Assignment& each) { return each.place.id == id; });
    if (link_) link_->report_soon();
    co_return Status{};
}

Task<Status> Store::remove_tray(v1::RemoveTrayRequest request) {
    PF_CO_TRY_ASSIGN(const Uuid id, Uuid::parse(request.tray_uuid()));
    Assignment* at = find_tray(id);
    if (at == nullptr) {
        // Gone for good only once no list on disk has it, as one may whose update failed.
        PF_CO_TRY(save_trays());
        co_return fail(Errc::not_found, "no such tray here: " + id.text());
    }
    const auto on_it =
        std::ranges::count_if(shards_, [&id](const auto& each) { return each.second.tray == id; });
    if (on_it > 0 && !request.force()) {
        co_return fail(Errc::busy, fmt::format("the tray holds {} shards; move or delete them, or "
                                               "use --force to give them up",
                                               on_it));
    }
    // The list first: a tray that is let go of while it is in there is back after a restart.
    PF_CO_TRY(save_trays(id));
    Task<Status> forgetting = forget_tray(*at);
    const Status forgotten = co_await forgetting;
    if (!forgotten) PF_CO_TRY(save_trays());
    co_return forgotten;
}

Status Store::save_trays(const Uuid& without) {
    if (!options_.save_trays) return {};
    std::vector<TrayPlace> places;
    places.reserve(trays_.size());
    for (const Assignment& at : trays_) {
        if (without.is_zero() || at.place.id != without) places.push_back(at.place);
    }
    return options_.save_trays(places);
}

Task<void> Store::answer_rpc(net::ServerChannel& channel, net::Incoming incoming) {
    if (!incoming.payload_ok) {  // T13: it may say anything, with a flipped bit
        net::rpc_reply(channel, incoming.command, fail(Errc::bad_payload));
        co_return;
    }
    if (rpcs_ == max_rpcs) {
        net::rpc_reply(channel, incoming.command,
                       fail(Errc::busy, "too many calls wait for this store; try again"));
        co_return;
    }
    Task<Result<std::string>> running = run_rpc(std::string(net::rpc_request(incoming)));
    const wire::Command command = incoming.command;
    {
        // The buffers that I/O needs are not for calls that wait in line.
        const net::Incoming read = std::move(incoming);
    }
    ++rpcs_;
    Result<std::string> result = co_await running;
    --rpcs_;
    net::rpc_reply(channel, command, std::move(result));
}

Task<Result<std::string>> Store::run_rpc(std::string bytes) {
    v1::RpcRequest request;
    if (!request.ParseFromString(bytes)) {
        co_return fail(Errc::protocol, "the bytes are no RpcRequest");
    }
    Task<void> locking = control_.lock();
    co_await locking;
    const ControlUnlock unlock(control_);
    Task<Result<v1::RpcReply>> dispatching = dispatch(std::move(request));
    PF_CO_TRY_ASSIGN(const v1::RpcReply reply, co_await dispatching);
    co_return reply.SerializeAsString();
}

Task<Result<v1::RpcReply>> Store::dispatch(v1::RpcRequest request) {
    v1::RpcReply reply;
    switch (request.method_case()) {
        case v1::RpcRequest::kApplyShards: {
            Task<Status> applying = apply_shards(request.apply_shards());
            PF_CO_TRY(co_await applying);
            reply.mutable_apply_shards();
            break;
        }
        case v1::RpcRequest::kDeleteShards: {
            Task<Status> deleting = delete_shards(request.delete_shards());
            PF_CO_TRY(co_await deleting);
            reply.mutable_delete_shards();
            break;
        }
        case v1::RpcRequest::kFenceSession:
            for (const uint64_t id : request.fence_session().shard_ids()) {
                Task<Status> fencing = fence_session(id, request.fence_session().session());
                PF_CO_TRY(co_await fencing);
            }
            reply.mutable_fence_session();
            break;
        case v1::RpcRequest::kAcceptLoss: {
            Task<Result<uint32_t>> accepting = accept_loss(request.accept_loss());
            PF_CO_TRY_ASSIGN(const uint32_t shards, co_await accepting);
            reply.mutable_accept_loss()->set_shards(shards);
            break;
        }
        case v1::RpcRequest::kAddTray: {
            Task<Result<v1::Tray>> adding = add_tray_locked(request.add_tray());
            PF_CO_TRY_ASSIGN(*reply.mutable_tray(), co_await adding);
            break;
        }
        case v1::RpcRequest::kRemoveTray: {
            Task<Status> removing = remove_tray(request.remove_tray());
            PF_CO_TRY(co_await removing);
            reply.mutable_remove_tray();
            break;
        }
        default:
            co_return fail(Errc::unsupported, fmt::format("method {} is not for a store",
                                                          static_cast<int>(request.method_case())));
    }
    co_return reply;
}

}  // namespace pf::pfs

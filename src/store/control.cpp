// What the conductor tells the store: shards, trays, fences. Every call may come again after a lost
// answer, so each is written to be repeated.
#include <fmt/format.h>

#include "base/log.hpp"
#include "net/rpc.hpp"
#include "store/store.hpp"

namespace pf::pfs {

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
    return state;
}

}  // namespace

Task<Status> Store::apply_shard(v1::ApplyShard request) {
    PF_CO_TRY_ASSIGN(tray::ShardState state, parse_state(request));
    PF_CO_TRY_ASSIGN(const Uuid tray_id, Uuid::parse(request.tray_uuid()));
    TraySlot* slot = trays_.find(tray_id);
    if (slot == nullptr) co_return fail(Errc::not_found, "no such tray here: " + tray_id.text());
    if (!slot->serves()) co_return fail(Errc::io_error, "the tray failed: " + slot->path);
    if (Shard* shard = find_shard(state.shard)) {
        if (&shard->tray() != slot->tray.get()) {
            co_return fail(
                Errc::conflict,
                fmt::format("shard {:#x} is on another tray of this store", state.shard));
        }
        Task<Status> applying = shard->apply(state);
        const Status applied = co_await applying;
        co_return applied;
    }
    // T7: one that should be here and is not was lost with the record that made it. It must not
    // come back empty as if nothing had ever been written.
    state.damaged = !request.fresh();
    if (state.damaged) {
        log_error("tray {}: shard {:#x} is missing: it answers no I/O until the loss is accepted",
                  slot->path, state.shard);
    }
    Task<Status> creating = slot->tray->create_shard(state);
    PF_CO_TRY(co_await creating);
    shards_[state.shard] = std::make_unique<Shard>(context_, *slot->tray, state);
    co_return Status{};
}

// Nothing of the shard runs or is reached any more afterwards.
Task<void> Store::drop_shard(Shard& shard) {
    Task<void> retiring = shard.retire();
    co_await retiring;
    for (Connection* each = connections_.front(); each != nullptr;
         each = connections_.next(*each)) {
        if (each->shard == &shard) each->shard = nullptr;
    }
    shards_.erase(shard.state().shard);
}

Task<Status> Store::delete_shard(tray::ShardId id) {
    Shard* shard = find_shard(id);
    if (shard == nullptr) co_return Status{};  // gone already
    tray::Tray& tray = shard->tray();
    Task<void> dropping = drop_shard(*shard);
    co_await dropping;
    Task<Status> deleting = tray.delete_shard(id);
    const Status deleted = co_await deleting;
    co_return deleted;
}

Task<Status> Store::fence_session(tray::ShardId id, uint64_t session) {
    Shard* shard = find_shard(id);
    if (shard == nullptr) co_return Status{};  // nothing of it is ever written here
    Task<Status> fencing = shard->fence(session);
    const Status fenced = co_await fencing;
    co_return fenced;
}

Task<Result<uint32_t>> Store::accept_loss(v1::AcceptLossRequest request) {
    PF_CO_TRY_ASSIGN(const Uuid tray_id, Uuid::parse(request.tray_uuid()));
    const TraySlot* slot = trays_.find(tray_id);
    if (slot == nullptr) co_return fail(Errc::not_found, "no such tray here: " + tray_id.text());
    if (!slot->serves()) co_return fail(Errc::io_error, "the tray failed: " + slot->path);
    std::vector<tray::ShardId> ids(request.shard_ids().begin(), request.shard_ids().end());
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
    if (accepted > 0 && link_) link_->report_soon();
    co_return accepted;
}

Task<Result<v1::Tray>> Store::add_tray(v1::AddTrayRequest request) {
    if (options_.cluster.is_zero()) {
        co_return fail(Errc::unavailable, "this store has not joined a cluster yet; try again");
    }
    if (!request.cluster_uuid().empty() && request.cluster_uuid() != options_.cluster.text()) {
        co_return fail(Errc::conflict,
                       fmt::format("this store is of cluster {}", options_.cluster.text()));
    }
    AddTray add;
    add.path = request.path();
    add.create_bytes = request.create_bytes();
    add.force = request.force();
    if (!request.write_cache().empty()) {
        PF_CO_TRY_ASSIGN(add.write_cache, parse_write_cache(request.write_cache()));
    }
    Task<Result<TraySlot*>> adding = trays_.add(add);
    PF_CO_TRY_ASSIGN(TraySlot * slot, co_await adding);
    const Status saved = save_trays();
    if (!saved) {
        Task<Status> removing = trays_.remove(slot->tray->id());
        PF_CO_TRY(co_await removing);
        co_return std::unexpected<Error>(saved.error());
    }
    adopt_shards(*slot);
    log_info("tray {} added from {}", slot->tray->id().text(), slot->path);
    co_return slot->describe(store_id_);
}

Task<Status> Store::remove_tray(v1::RemoveTrayRequest request) {
    PF_CO_TRY_ASSIGN(const Uuid id, Uuid::parse(request.tray_uuid()));
    TraySlot* slot = trays_.find(id);
    if (slot == nullptr) co_return fail(Errc::not_found, "no such tray here: " + id.text());
    std::vector<Shard*> on_it;
    for (const auto& [shard_id, shard] : shards_) {
        if (slot->tray != nullptr && &shard->tray() == slot->tray.get())
            on_it.push_back(shard.get());
    }
    if (!on_it.empty() && !request.force()) {
        co_return fail(Errc::busy, fmt::format("the tray holds {} shards; move or delete them, or "
                                               "use --force to give them up",
                                               on_it.size()));
    }
    for (Shard* shard : on_it) {
        Task<void> dropping = drop_shard(*shard);
        co_await dropping;
    }
    Task<Status> removing = trays_.remove(id);
    PF_CO_TRY(co_await removing);
    co_return save_trays();
}

Status Store::save_trays() {
    if (link_) link_->report_soon();
    if (!options_.save_trays) return {};
    return options_.save_trays(trays_.places());
}

// Commands of a connection that named no shard: RPC, or data for a shard that was deleted.
Task<void> Store::run_unnamed(net::ServerChannel& channel, net::Incoming incoming) {
    if (incoming.command.opcode == wire::Opcode::rpc) {
        Task<Result<std::string>> running = run_rpc(std::string(net::rpc_request(incoming)));
        Result<std::string> result = co_await running;
        net::rpc_reply(channel, incoming.command, std::move(result));
        co_return;
    }
    net::Reply answer;
    const bool ping = incoming.command.opcode == wire::Opcode::ping;
    answer.completion.status = static_cast<uint16_t>(ping ? Errc::ok : Errc::not_found);
    channel.reply(incoming.command, std::move(answer));
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
            // All of them, whatever becomes of one: a bad tray must not keep the others away.
            Status first;
            for (const v1::ApplyShard& shard : request.apply_shards().shards()) {
                Task<Status> applying = apply_shard(shard);
                Status applied = co_await applying;
                if (first && !applied) first = std::move(applied);
            }
            PF_CO_TRY(std::move(first));
            reply.mutable_apply_shards();
            break;
        }
        case v1::RpcRequest::kDeleteShards:
            for (const uint64_t id : request.delete_shards().shard_ids()) {
                Task<Status> deleting = delete_shard(id);
                PF_CO_TRY(co_await deleting);
            }
            reply.mutable_delete_shards();
            break;
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
            Task<Result<v1::Tray>> adding = add_tray(request.add_tray());
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

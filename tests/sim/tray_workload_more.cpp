// The operations of a Workload other than writes.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/crc32c.hpp"
#include "tray_workload.hpp"

namespace pf::test {

using runtime::Task;
using tray::ShardId;
using tray::SnapSeq;

bool Workload::may_read(const Reader& reader, uint32_t block, uint32_t crc) {
    if (crc == block_crc(reader.before.at(block))) return true;
    return std::ranges::any_of(reader.during, [&](const ModelOperation& operation) {
        return operation.kind == ModelOperation::Kind::write && operation.shard == reader.shard &&
               operation.snap_seq == reader.snap_seq && block - operation.block < operation.count &&
               crc == block_crc(operation.tag_of(block));
    });
}

Task<Status> Workload::read(ShardId shard_id) {
    const ModelShard& shard = model_.shards.at(shard_id);
    auto chosen = shard.generations.find(shard.head);
    if (rng_.below(3) == 0) {
        chosen = shard.generations.begin();
        std::advance(chosen, static_cast<long>(rng_.below(shard.generations.size())));
    }
    if (chosen->second.nameless) co_return Status{};
    const auto block = static_cast<uint32_t>(rng_.below(shard.blocks));
    const uint32_t room =
        std::min(blocks_per_chunk - block % blocks_per_chunk, shard.blocks - block);
    const auto count = static_cast<uint32_t>(rng_.between(1, std::min(room, 32u)));
    Reader now{shard_id, chosen->first, chosen->second, {}};
    for (const auto& [id, operation] : model_.in_flight) now.during.push_back(operation);
    readers_.push_front(std::move(now));
    const auto reader = readers_.begin();

    auto data =
        co_await runtime::Reactor::current().buffers().allocate(size_t{count} * block_bytes);
    std::vector<uint32_t> crcs(count);
    tray::ReadRequest request;
    request.shard = shard_id;
    request.snap_seq = reader->snap_seq;
    request.block = block;
    request.count = count;
    request.to = data.bytes();
    request.crcs = crcs;
    Status done = co_await tray_.read(request);
    // Gone if its deletion was asked for, and not else. A shard made again under the name of the
    // one that was read may have answered instead.
    const auto saw = [&](ModelOperation::Kind kind) {
        return std::ranges::any_of(reader->during, [&](const ModelOperation& operation) {
            return operation.kind == kind && operation.shard == shard_id &&
                   (operation.snap_seq == reader->snap_seq || operation.snap_seq == 0);
        });
    };
    const bool shard_deleted = saw(ModelOperation::Kind::delete_shard);
    const bool deleted = shard_deleted || saw(ModelOperation::Kind::delete_generation) ||
                         !model_.shards.at(shard_id).generations.contains(reader->snap_seq);
    if (!done) {
        const Errc code = done.error().code;
        if ((deleted && code == Errc::not_found) || (shard_deleted && code == Errc::out_of_range))
            done = Status{};
        if (options_.lying_disk && !done && done.error().code == Errc::corrupt) done = Status{};
    } else {
        for (uint32_t i = 0; i < count && done; ++i) {
            const MutableBytes bytes = data.bytes().subspan(size_t{i} * block_bytes, block_bytes);
            const uint32_t crc = crc32c(bytes);
            if (may_read(*reader, block + i, crc)) continue;
            if (shard_deleted && crc == crc32c_of_zero_block()) continue;
            done = fail(Errc::internal,
                        fmt::format("shard {} generation {} block {}: a read saw other contents",
                                    shard_id, reader->snap_seq, block + i));
        }
    }
    readers_.erase(reader);
    co_return done;
}

// A request that never ran and never may (R10). Its name stays outstanding for a while, so that the
// tray has to remember it.
Task<Status> Workload::void_request(ShardId shard_id, uint64_t session) {
    if (head_change_.contains(shard_id)) co_return Status{};
    ModelOperation operation;
    operation.kind = ModelOperation::Kind::void_request;
    operation.shard = shard_id;
    operation.request = name_request(session);
    const uint64_t id = begin(operation);
    Status done = co_await tray_.void_request(shard_id, operation.request);
    end(id, done);
    answered(operation.request);
    co_return done;
}

uint64_t Workload::session_of(uint32_t worker) const {
    return (options_.seed << 8) + worker / workers_per_session + 1;
}

tray::RequestName Workload::name_request(uint64_t session) {
    auto& outstanding = outstanding_[session];
    const uint64_t id = next_request_++;
    outstanding[id] = false;
    return {session, id, outstanding.begin()->first};
}

// The client takes note of answers in batches: until then a resend would have to be recognised.
void Workload::answered(const tray::RequestName& name) {
    auto& outstanding = outstanding_[name.session];
    outstanding[name.request] = true;
    if (rng_.below(8) != 0) return;
    while (!outstanding.empty() && outstanding.begin()->second)
        outstanding.erase(outstanding.begin());
}

Task<Status> Workload::create_generation(ShardId shard_id) {
    if (head_change_.contains(shard_id) || generation_change_in_flight(shard_id))
        co_return Status{};
    head_change_.insert(shard_id);
    while (writes_in_flight(shard_id) && status_) co_await changed_.wait();
    if (!status_) co_return Status{};
    ModelShard& shard = model_.shards.at(shard_id);
    ModelOperation operation;
    operation.kind = ModelOperation::Kind::create_generation;
    operation.shard = shard_id;
    operation.snap_seq = shard.next_snap_seq++;
    operation.parent = shard.head;
    if (rng_.below(3) == 0) {
        // A rollback: the new head's parent is any named generation.
        auto at = shard.generations.begin();
        std::advance(at, static_cast<long>(rng_.below(shard.generations.size())));
        if (!at->second.nameless) operation.parent = at->first;
    }
    const uint64_t id = begin(operation);
    Status done = co_await tray_.create_generation({shard_id, operation.snap_seq},
                                                   {shard_id, operation.parent}, true);
    end(id, done);
    head_change_.erase(shard_id);
    changed_.wake_all();
    co_return done;
}

Task<Status> Workload::delete_generation(ShardId shard_id) {
    if (head_change_.contains(shard_id) || generation_change_in_flight(shard_id))
        co_return Status{};
    ModelShard& shard = model_.shards.at(shard_id);
    std::vector<SnapSeq> candidates;
    for (const auto& [snap_seq, generation] : shard.generations) {
        if (snap_seq != shard.head && !generation.nameless) candidates.push_back(snap_seq);
    }
    if (candidates.empty()) co_return Status{};
    ModelOperation operation;
    operation.kind = ModelOperation::Kind::delete_generation;
    operation.shard = shard_id;
    operation.snap_seq = candidates[rng_.below(candidates.size())];
    const uint64_t id = begin(operation);
    Status done = co_await tray_.delete_generation({shard_id, operation.snap_seq});
    end(id, done);
    co_return done;
}

std::optional<ShardId> Workload::missing_shard() const {
    for (ShardId id = first_shard; id < first_shard + options_.shards; ++id) {
        if (!model_.shards.contains(id) && !head_change_.contains(id)) return id;
    }
    return std::nullopt;
}

Task<Status> Workload::open_sessions(ShardId shard_id) {
    for (uint32_t i = 0; i < options_.workers; i += workers_per_session) {
        auto& sessions = model_.shards.at(shard_id).sessions;
        if (sessions.contains(session_of(i))) continue;
        PF_CO_TRY(co_await tray_.open_session(shard_id, session_of(i)));
        sessions[session_of(i)];
    }
    co_return Status{};
}

Task<Status> Workload::make_shard(ShardId shard_id) {
    head_change_.insert(shard_id);
    tray::ShardState state;
    state.shard = shard_id;
    const uint64_t high = rng_.next();
    state.replica = Uuid::from_random(high, rng_.next());
    state.blocks = options_.shard_blocks;
    state.epoch = 1;
    state.snap_seq = 1;
    ModelOperation operation;
    operation.kind = ModelOperation::Kind::create_shard;
    operation.shard = shard_id;
    operation.count = options_.shard_blocks;
    const uint64_t id = begin(operation);
    Status done = co_await tray_.create_shard(state);
    end(id, done);
    if (done) done = co_await open_sessions(shard_id);
    head_change_.erase(shard_id);
    changed_.wake_all();
    // A shard whose sessions do not fit is of no use.
    if (!done && model_.shards.contains(shard_id)) PF_CO_TRY(co_await delete_shard(shard_id));
    co_return done;
}

// Its blocks are collected in the background, and its name is free when they are.
Task<Status> Workload::delete_shard(ShardId shard_id) {
    if (head_change_.contains(shard_id) || generation_change_in_flight(shard_id))
        co_return Status{};
    head_change_.insert(shard_id);
    while (writes_in_flight(shard_id) && status_) co_await changed_.wait();
    Status done;
    if (status_ && !any_in_flight(shard_id)) {
        ModelOperation operation;
        operation.kind = ModelOperation::Kind::delete_shard;
        operation.shard = shard_id;
        const uint64_t id = begin(operation);
        done = co_await tray_.delete_shard(shard_id);
        end(id, done);
    }
    head_change_.erase(shard_id);
    changed_.wake_all();
    co_return done;
}

Task<Status> Workload::checkpoint() {
    model_.checkpointing = true;
    Status done = co_await tray_.checkpoint();
    model_.checkpointing = false;
    co_return done;
}

}  // namespace pf::test

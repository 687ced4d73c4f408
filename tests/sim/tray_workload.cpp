#include "tray_workload.hpp"

#include <algorithm>
#include <vector>

#include "base/crc32c.hpp"

namespace pf::test {

using runtime::Task;
using tray::ShardId;
using tray::SnapSeq;
using tray::WriteKind;

Workload::Workload(tray::Tray& tray, TrayModel& model, WorkloadOptions options)
    : tray_(tray),
      model_(model),
      options_(options),
      rng_(options.seed),
      next_tag_(options.first_tag),
      left_(options.operations) {}

Task<Status> Workload::run() {
    if (model_.shards.empty()) {
        for (uint32_t i = 0; i < options_.shards; ++i)
            PF_CO_TRY(co_await make_shard(first_shard + i));
    } else {
        for (auto& [id, shard] : model_.shards) PF_CO_TRY(co_await open_sessions(id));
    }
    model_.ready = true;
    running_.add(options_.workers);
    for (uint32_t i = 0; i < options_.workers; ++i)
        runtime::Reactor::current().spawn(worker(session_of(i)));
    co_await running_.wait();
    // Later workloads on this tray open sessions of their own; a shard holds only so many.
    const uint32_t closing = options_.close_sessions ? options_.workers : 0;
    for (uint32_t i = 0; i < closing && status_; i += workers_per_session) {
        const uint64_t session = session_of(i);
        for (auto& [id, shard] : model_.shards) {
            shard.sessions.erase(session);
            PF_CO_TRY(co_await tray_.close_session(id, session));
        }
    }
    co_return status_;
}

Task<void> Workload::worker(uint64_t session) {
    while (left_ > 0 && status_) {
        --left_;
        if (left_ < full_until_) model_.full = false;
        Status done = co_await step(session);
        if (!done && done.error().code == Errc::no_space) {
            ++refused_;
            full_until_ = left_ >= 10 ? left_ - 10 : 0;
            model_.full = true;
        } else if (!done && status_) {
            status_ = std::move(done);
            changed_.wake_all();  // who waits for what failed
        }
    }
    running_.done();
}

Task<Status> Workload::step(uint64_t session) {
    if (options_.shard_percent != 0) {
        const auto missing = missing_shard();
        if (missing && (model_.shards.empty() || rng_.below(3) == 0))
            co_return co_await make_shard(*missing);
        if (model_.shards.empty()) {
            co_await runtime::sleep_for(runtime::milliseconds);
            co_return Status{};
        }
    }
    auto at = model_.shards.begin();
    std::advance(at, static_cast<long>(rng_.below(model_.shards.size())));
    const ShardId shard = at->first;
    if (options_.shard_percent != 0 && rng_.below(100) < options_.shard_percent)
        co_return co_await delete_shard(shard);
    const uint64_t dice = rng_.below(100);
    if (dice < options_.checkpoint_percent && !model_.checkpointing)
        co_return co_await checkpoint();
    if (dice < options_.checkpoint_percent + options_.generation_percent) {
        const bool many = at->second.generations.size() >= options_.max_generations;
        if (many || rng_.below(2) == 0) co_return co_await delete_generation(shard);
        co_return co_await create_generation(shard);
    }
    const uint64_t other = rng_.below(100);
    if (other < options_.read_percent) co_return co_await read(shard);
    if (other < options_.read_percent + options_.void_percent) {
        co_return co_await void_request(shard, session);
    }
    if (rng_.below(100) < options_.pause_percent) {
        co_await runtime::sleep_for(rng_.below(30) * runtime::milliseconds);
    }
    co_return co_await write(shard, session);
}

bool Workload::overlaps_in_flight(const ModelOperation& operation) const {
    return std::any_of(model_.in_flight.begin(), model_.in_flight.end(), [&](const auto& entry) {
        const ModelOperation& other = entry.second;
        return other.kind == ModelOperation::Kind::write && other.shard == operation.shard &&
               other.block < operation.block + operation.count &&
               operation.block < other.block + other.count;
    });
}

bool Workload::writes_in_flight(ShardId shard) const {
    return std::any_of(model_.in_flight.begin(), model_.in_flight.end(), [&](const auto& entry) {
        return entry.second.kind == ModelOperation::Kind::write && entry.second.shard == shard;
    });
}

bool Workload::generation_change_in_flight(ShardId shard) const {
    return std::any_of(model_.in_flight.begin(), model_.in_flight.end(), [&](const auto& entry) {
        const auto kind = entry.second.kind;
        return entry.second.shard == shard && (kind == ModelOperation::Kind::create_generation ||
                                               kind == ModelOperation::Kind::delete_generation);
    });
}

bool Workload::any_in_flight(ShardId shard) const {
    return std::any_of(model_.in_flight.begin(), model_.in_flight.end(),
                       [&](const auto& entry) { return entry.second.shard == shard; });
}

bool Workload::pick_range(ModelOperation& operation) {
    for (int attempt = 0; attempt < 8; ++attempt) {
        uint64_t limit = options_.max_blocks;
        if (options_.fill) limit = tray::max_write_blocks;
        if (rng_.below(16) == 0) limit = tray::max_write_blocks;
        if (operation.write_kind != WriteKind::data && rng_.below(4) == 0) limit = blocks_per_chunk;
        const uint64_t shape = rng_.below(4);
        if (shape == 0) limit = 1;
        const uint32_t blocks = model_.shards.at(operation.shard).blocks;
        operation.block = static_cast<uint32_t>(rng_.below(blocks));
        const uint32_t room = std::min(blocks_per_chunk - operation.block % blocks_per_chunk,
                                       blocks - operation.block);
        operation.count = static_cast<uint32_t>(rng_.between(1, std::min<uint64_t>(limit, room)));
        if (!overlaps_in_flight(operation)) return true;
    }
    return false;
}

uint64_t Workload::begin(const ModelOperation& operation) {
    model_.in_flight[next_operation_] = operation;
    for (Reader& reader : readers_) reader.during.push_back(operation);
    return next_operation_++;
}

void Workload::end(uint64_t id, const Status& done) {
    // What was refused did not happen; what failed stays in flight: nobody knows whether the tray
    // has it.
    if (done) model_.apply(model_.in_flight.at(id));
    if (done || done.error().code == Errc::no_space) model_.in_flight.erase(id);
    changed_.wake_all();
}

Task<Status> Workload::write(ShardId shard_id, uint64_t session) {
    while (head_change_.contains(shard_id) && status_) co_await changed_.wait();
    if (!status_ || !model_.shards.contains(shard_id)) co_return Status{};
    ModelShard& shard = model_.shards.at(shard_id);
    ModelOperation operation;
    operation.shard = shard_id;
    operation.snap_seq = shard.head;
    const uint64_t dice = rng_.below(100);
    if (!options_.fill && dice < 12)
        operation.write_kind = dice < 6 ? WriteKind::zero : WriteKind::unmap;
    if (!pick_range(operation)) co_return Status{};
    if (operation.write_kind == WriteKind::data) {
        operation.first_tag = next_tag_;
        next_tag_ += operation.count;
    }
    auto reserved = tray_.reserve(shard_id, operation.snap_seq, operation.block, operation.count,
                                  operation.write_kind);
    if (!reserved) co_return std::unexpected<Error>(std::move(reserved).error());
    operation.request = name_request(session);
    operation.position = {1, shard.next_sequence++};
    const uint64_t id = begin(operation);  // before any wait: what excludes it has to see it

    std::vector<uint32_t> crcs(operation.count);
    auto buffer = co_await runtime::Reactor::current().buffers().allocate(size_t{operation.count} *
                                                                          block_bytes);
    if (operation.write_kind == WriteKind::data) {
        for (uint32_t i = 0; i < operation.count; ++i) {
            const MutableBytes block = buffer.bytes().subspan(size_t{i} * block_bytes, block_bytes);
            fill_block(operation.first_tag + i, block);
            crcs[i] = crc32c(block);
        }
    }
    const iovec data{buffer.data(), buffer.size()};
    tray::WriteRequest request;
    request.shard = shard_id;
    request.snap_seq = operation.snap_seq;
    request.position = operation.position;
    request.request = operation.request;
    request.kind = operation.write_kind;
    request.block = operation.block;
    request.count = operation.count;
    if (operation.write_kind == WriteKind::data) {
        request.data = {&data, 1};
        request.crcs = crcs;
    }
    auto ticket = co_await tray_.write(request, *reserved);
    if (ticket) {
        model_.in_flight.at(id).durable = true;
        if (rng_.below(100) < options_.late_commit_percent)
            co_await runtime::sleep_for(rng_.below(40) * runtime::milliseconds);
        tray_.commit(*ticket);
    }
    Status done;
    if (!ticket) done = std::unexpected<Error>(std::move(ticket).error());
    end(id, done);
    answered(operation.request);
    co_return done;
}

}  // namespace pf::test

// The write path: reserve, write, commit.
#include <fmt/format.h>

#include "base/planted.hpp"
#include "tray/engine.hpp"

namespace pf::tray {

using runtime::Task;

Status Engine::check_range(const Shard& shard, uint32_t block, uint32_t count) const {
    if (block >= shard.state.blocks || count > shard.state.blocks - block) {
        return fail(Errc::out_of_range);
    }
    if (count == 0 || block % blocks_per_chunk + count > blocks_per_chunk) {
        return fail(Errc::invalid_argument);
    }
    return {};
}

Result<Reservation> Engine::reserve(ShardId id, SnapSeq snap_seq, uint32_t block, uint32_t count,
                                    WriteKind kind) {
    if (failed_) return fail(Errc::io_error);
    Shard* shard = map_.find(id);
    if (shard == nullptr) return fail(Errc::not_found);
    if (shard->state.damaged) return fail(Errc::data_lost);
    PF_TRY(check_range(*shard, block, count));
    const bool data = kind == WriteKind::data;
    if (data && count > max_write_blocks) return fail(Errc::invalid_argument);
    if (shard->head->id.snap_seq != snap_seq) {
        return fail(Errc::invalid_argument, "the generation is no longer the head");
    }
    // T8: what a checkpoint and deletions need stays out of reach of user data. A table that is
    // there is part of that already.
    const bool table = makes_table(*shard, block, kind);
    const uint64_t blocks = (data ? count : 0) + (table ? uint64_t{metadata_per_write} : 0);
    const auto fits = [&] {  // a tray that is not full needs no closer look
        return has_room(blocks, slack_blocks()) ||
               has_room(blocks, kept_from(*shard, block, count, kind));
    };
    if (!fits() && !(measure_again() && fits())) return fail(Errc::no_space);
    if (table && map_.directory().versions() >= max_tables()) {
        return fail(Errc::resource_exhausted,
                    fmt::format("{}: the tray has {} directory entries, the limit", disk_->name(),
                                max_tables()));
    }
    reserved_ += blocks;
    return Reservation(this, static_cast<uint32_t>(blocks));
}

// Or may make one: what is in flight of the generations that it sees may give it one to clone.
bool Engine::makes_table(const Shard& shard, uint32_t block, WriteKind kind) const {
    const uint32_t chunk = block / blocks_per_chunk;
    if (map_.own(*shard.head, chunk) != nullptr) return false;
    if (kind != WriteKind::unmap || map_.view(*shard.head, chunk) != nullptr) return true;
    for (const Generation* at = shard.head->parent; at != nullptr; at = at->parent) {
        if (at->writes > 0) return true;
    }
    return false;
}

PendingWrite& Engine::take_write() {
    if (free_writes_.empty()) {
        writes_.push_back(std::make_unique<PendingWrite>());
        free_writes_.reserve(writes_.size());
        free_writes_.push_back(writes_.back().get());
    }
    PendingWrite& write = *free_writes_.back();
    free_writes_.pop_back();
    return write;
}

IoBatch& Engine::take_batch() {
    if (free_batches_.empty()) {
        batches_.push_back(std::make_unique<IoBatch>());
        free_batches_.reserve(batches_.size());
        free_batches_.push_back(batches_.back().get());
    }
    IoBatch& batch = *free_batches_.back();
    free_batches_.pop_back();
    batch.clear();
    return batch;
}

Task<Result<Ticket>> Engine::write(const WriteRequest& request, Reservation& reservation) {
    Shard* shard = map_.find(request.shard);
    if (shard == nullptr) co_return fail(Errc::not_found);
    const bool data = request.kind == WriteKind::data;
    const uint32_t data_blocks = data ? request.count : 0;
    PF_ASSERT(reservation.blocks_ == data_blocks ||
              reservation.blocks_ == data_blocks + metadata_per_write);
    if (request.request.session != 0) {
        if (shard->sessions.find(request.request.session) == nullptr) {
            co_return fail(Errc::unknown_session);
        }
        // R8: ids are kept for a window from the lowest outstanding one on.
        if (!Sessions::in_window(request.request)) co_return fail(Errc::resource_exhausted);
    }
    Generation* generation = map_.find_generation({request.shard, request.snap_seq});
    if (generation == nullptr) co_return fail(Errc::not_found);
    ++generation->writes;
    ++operations_;

    // T5: from its number on it counts as not committed, however long it waits for room.
    PendingWrite& write = take_write();
    write.engine = this;
    write.generation = generation;
    write.position = request.position;
    write.request = request.request;
    write.kind = request.kind;
    write.block = request.block;
    write.count = request.count;
    write.extent_count = 0;
    write.sequence = 0;
    write.finished = write.durable = write.moved_in_log = false;
    write.waiter = {};
    write.in_shard.write = &write;
    shard->uncommitted.push_back(write.in_shard);

    // Whatever was reserved, the next checkpoint writes its table and the page of that.
    const uint64_t blocks = data_blocks + uint64_t{metadata_per_write};
    Status ready;
    while (ready && !failed_) {
        if (!has_free_blocks(blocks)) {
            co_await more_free_blocks();
            continue;
        }
        // commit() waits for nothing: the tables that it needs are here from now on.
        ChunkVersion* missing =
            map_.missing_for_write(*generation, request.block / blocks_per_chunk);
        if (missing == nullptr) break;
        ready = co_await cache_.load(*missing);
    }
    if (failed_) ready = fail(Errc::io_error);
    if (!ready) {
        write.in_shard.unlink();
        free_writes_.push_back(&write);
        --generation->writes;
        if (generation->deleted) collector_.kick();
        end_operation();
        co_return std::unexpected<Error>(std::move(ready).error());
    }
    metadata_in_flight_ += metadata_per_write;
    if (data) {
        write.extent_count = allocator_.allocate(request.count, write.extents.data());
        PF_ASSERT(request.crcs.size() == request.count);
        std::copy(request.crcs.begin(), request.crcs.end(), write.crcs.begin());
        reserved_ -= request.count;
        blocks_in_flight_ += request.count;
        reservation.blocks_ -= request.count;
    }
    write.metadata_blocks = reservation.blocks_;
    reservation.engine_ = nullptr;  // its metadata room is given back by commit()
    write.bytes = write_record_bytes(write.extent_count, write.crc_count());
    write.data_done = !data;
    write.data_in_cache = false;
    write.encode = [](LogItem& item, MutableBytes to) {
        return encode_record(static_cast<PendingWrite&>(item).record(false), to);
    };
    write.completed = &Engine::write_completed;
    if (data) data_writer_.add(write, request.data);
    log_.submit(write, LogRank::user);
    Finished finished(write);
    co_await finished;
    end_operation();
    if (!write.durable) {
        release_write(write);
        co_return fail(Errc::io_error);
    }
    co_return Ticket(&write);
}

void Engine::data_written(PendingWrite& write, int32_t result) {
    LogWriter& log = write.engine->log_;
    if (result != 0) log.fail();  // never retried into success
    log.data_done(write);
}

// Called by the log: the write is durable, or the tray has failed.
void Engine::write_completed(LogItem& item, bool ok) {
    auto& write = static_cast<PendingWrite&>(item);
    write.finished = true;
    write.durable = ok;
    if (ok) {
        Shard& shard = *write.generation->shard;
        shard.last = std::max(shard.last, write.position);
        shard.sessions.mark_applied(write.request);
    }
    if (write.waiter) runtime::schedule(write.waiter);
}

void Engine::release_write(PendingWrite& write) {
    write.in_shard.unlink();
    --write.generation->writes;
    if (write.generation->deleted) collector_.kick();
    reserved_ -= write.metadata_blocks;
    metadata_in_flight_ -= metadata_per_write;
    blocks_in_flight_ -= write.crc_count();
    free_writes_.push_back(&write);
}

void Engine::commit(Ticket ticket) {
    PendingWrite& write = *ticket.pending();
    PF_ASSERT(write.durable);
    Shard& shard = *write.generation->shard;
    WriteEffect effect;
    effect.position = write.position;
    effect.kind = write.kind;
    effect.block = write.block;
    effect.count = write.count;
    effect.extents = {write.extents.data(), write.extent_count};
    effect.crcs = std::as_bytes(std::span(write.crcs.data(), write.crc_count()));
    map_.apply_write(*write.generation, effect, root_.number);
    cache_.applied(*write.generation, write.block / blocks_per_chunk);
    for (const Superseded& old : map_.superseded()) {
        // Replay may find the later record unconfirmed, so T3 cannot go by the first one.
        if (old.after_checkpoint || write.moved_in_log)
            held_.hold_for_next_checkpoint(old.extent);
        else
            held_.hold(old.extent, write.sequence);
    }
    // A write that is committed late has no log block to come that would release what it replaced.
    if (write.sequence <= log_.recorded()) {
        release_held();
        advanced_.wake_all();
    }
    ++counters_.writes;
    counters_.blocks_written += effect.extents.empty() ? 0 : write.count;

    // T5: everything logged before the first write that has not committed is known committed.
    shard.highest_committed = std::max(shard.highest_committed, write.position);
    const bool first = shard.uncommitted.front() == &write.in_shard;
    write.in_shard.unlink();
    if (first) {
        const Position known = shard.uncommitted.empty() ? shard.highest_committed : write.position;
        shard.committed = std::max(shard.committed, known);
        if (!shard.commit_mark_due) {
            shard.commit_mark_due = true;
            marks_due_.push_back(shard.state.shard);
        }
    }
    release_write(write);
}

}  // namespace pf::tray

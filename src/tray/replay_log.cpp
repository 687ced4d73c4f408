// The mount's way through the log. Nearly all records are of confirmed writes to tables in memory:
// these are applied without a wait.
#include <fmt/format.h>

#include <algorithm>

#include "base/crc32c.hpp"
#include "base/planted.hpp"
#include "tray/replay.hpp"

namespace pf::tray {

using runtime::Task;

Task<Status> Replay::replay_log() {
    LogReader reader(*engine_.disk_, engine_.superblock_);
    Status done = co_await replay_blocks(reader);
    co_await reader.stop();
    co_return done;
}

Task<Status> Replay::replay_blocks(LogReader& reader) {
    LogReader::End end = LogReader::begin(engine_.root_);
    uint64_t next = engine_.root_.log_start;
    while (true) {
        PF_CO_TRY_ASSIGN(const bool more, co_await reader.follow(engine_.root_, end));
        // Nothing is read between the end and the look behind it: what could not be read there
        // might be readable then, and pass for a torn tail (T7).
        if (!more) break;
        for (; next <= end.confirmed; ++next)
            PF_CO_TRY(co_await read_and_apply(reader, next, true));
    }
    PF_CO_TRY_ASSIGN(end, co_await reader.finish(engine_.root_, std::move(end)));
    end_ = end.last;
    last_crc_ = end.last_crc;
    auto lost = std::ranges::lower_bound(end.lost, next, {}, &LogReader::Lost::sequence);
    for (; next <= end_; ++next) {
        if (lost != end.lost.end() && lost->sequence == next) {
            loss_.add(*lost++);
            engine_.map_.mapped().allow_sharing();
        } else {
            PF_CO_TRY(co_await read_and_apply(reader, next, next <= end.confirmed));
        }
    }
    co_return Status{};
}

Task<Status> Replay::read_and_apply(LogReader& reader, uint64_t sequence, bool confirmed) {
    PF_CO_TRY_ASSIGN(const LogBlock block, co_await reader.read_chained(engine_.root_, sequence));
    co_return co_await apply_block(block.records, confirmed);
}

Task<Status> Replay::apply_block(Bytes records, bool confirmed) {
    records_.clear();
    while (!records.empty()) {
        PF_CO_TRY_ASSIGN(const Record record, take_record(records, engine_.superblock_));
        records_.push_back(record);
    }
    prefetch();
    for (const Record& record : records_) {
        ++engine_.counters_.replayed_records;
        Status applied;
        const auto* write = std::get_if<WriteRecord>(&record);
        if (write == nullptr)
            applied = apply_other(record);
        else if (can_apply_now(*write, confirmed))
            applied = apply_write(*write, confirmed, true);
        else
            applied = co_await check_and_apply(*write, confirmed);
        if (!applied && !loss_.take_misfit(record, applied.error())) co_return applied;
    }
    co_return Status{};
}

// Records meet tables at random. What all records of a block touch is asked for together, a level
// of pointers at a time: tables, entries, and the bits of the blocks that are let go of.
void Replay::prefetch() {
    Map& map = engine_.map_;
    const auto each_write = [&](const auto& visit) {
        for (const Record& record : records_) {
            if (const auto* write = std::get_if<WriteRecord>(&record))
                visit(GenerationId{write->shard, write->snap_seq}, write->block);
        }
    };
    each_write([&](GenerationId id, uint32_t block) { map.prefetch_version(id, block); });
    each_write(
        [&](GenerationId id, uint32_t block) { __builtin_prefetch(map.peek(id, block), 1); });
    each_write([&](GenerationId id, uint32_t block) {
        const TableEntry* entry = map.peek(id, block);
        if (entry == nullptr || !is_data(entry->address)) return;
        map.mapped().prefetch(entry->address);
        engine_.allocator_.prefetch(entry->address);
    });
}

Status Replay::apply_other(const Record& record) {
    if (const auto* commit = std::get_if<CommitRecord>(&record)) {
        if (Shard* shard = engine_.map_.find_any(commit->shard)) {
            shard->committed = std::max(shard->committed, commit->position);
        }
        return {};
    }
    return apply_control(engine_.map_, record);
}

// The generation that the record writes to.
Result<Generation*> Replay::target_of(const WriteRecord& record) {
    Generation* generation = engine_.map_.find_generation({record.shard, record.snap_seq});
    if (generation == nullptr) {
        return fail(Errc::corrupt, fmt::format("log record does not fit: write to unknown "
                                               "generation {}@{}",
                                               record.shard, record.snap_seq));
    }
    const uint32_t blocks = generation->shard->state.blocks;
    if (record.block >= blocks || record.count > blocks - record.block) {
        return fail(
            Errc::corrupt,
            fmt::format("log record does not fit: write past the end of shard {}", record.shard));
    }
    return generation;
}

// T5: the first copy of a record that was logged again was replayed.
bool Replay::is_repeated(const WriteRecord& record) const {
    return record.logged_again && !record.extents.empty() &&
           engine_.allocator_.is_used(record.extents.front().start);
}

bool Replay::can_apply_now(const WriteRecord& record, bool confirmed) {
    if (!confirmed && record.kind == WriteKind::data) return false;
    const auto generation = target_of(record);
    if (!generation) return true;  // to be refused
    return engine_.map_.missing_for_write(**generation, record.block / blocks_per_chunk) == nullptr;
}

Task<Status> Replay::check_and_apply(WriteRecord record, bool confirmed) {
    PF_CO_TRY_ASSIGN(Generation * generation, target_of(record));
    bool good = true;
    const bool check = !confirmed && record.kind == WriteKind::data && !is_repeated(record);
    if (check && !planted("replay_accepts_bad_data_crc")) {
        PF_CO_TRY_ASSIGN(good, co_await data_matches(record));
    }
    if (good) PF_CO_TRY(co_await load_for_write(*generation, record.block / blocks_per_chunk));
    co_return apply_write(record, confirmed, good);
}

// `good`: the data is what the record says. Its tables are in memory.
Status Replay::apply_write(const WriteRecord& record, bool confirmed, bool good) {
    PF_TRY_ASSIGN(Generation * generation, target_of(record));
    if (is_repeated(record)) return {};
    if (planted("replay_skips_zero_records") && record.kind == WriteKind::zero) return {};
    PF_TRY(take_blocks(record, good));
    if (!good) {
        ++engine_.counters_.dropped_records;
        return {};
    }
    Map& map = engine_.map_;
    WriteEffect effect;
    effect.position = record.position;
    effect.kind = record.kind;
    effect.block = record.block;
    effect.count = record.count;
    effect.extents = record.extents;
    effect.crcs = record.crcs;
    map.apply_write(*generation, effect, engine_.root_.number);
    engine_.cache_.applied(*generation, record.block / blocks_per_chunk);
    Shard& shard = *generation->shard;
    shard.last = std::max(shard.last, record.position);
    shard.sessions.mark_applied(record.request);
    for (const Superseded& old : map.superseded()) {
        // T3: a block that an unconfirmed record superseded may belong to another unconfirmed one.
        if (confirmed)
            engine_.allocator_.free(old.extent.start, old.extent.count);
        else
            engine_.held_.hold_for_next_checkpoint(old.extent);
    }
    return {};
}

Status Replay::take_blocks(const WriteRecord& record, bool good) {
    Allocator& allocator = engine_.allocator_;
    for (const Extent& extent : record.extents) {
        for (uint32_t i = 0; i < extent.count; ++i) {
            const bool was_free = allocator.mark_used(extent.start + i);
            if (!was_free && good && loss_.any()) {
                allocator.share(extent.start + i);  // the record that let go of it is lost
            } else if (!was_free && good) {
                return fail(Errc::corrupt,
                            fmt::format("{}: log record of shard {} block {} names block {}, which "
                                        "is in use",
                                        engine_.disk_->name(), record.shard, record.block,
                                        extent.start + i));
            }
            // T1: until the mount is durable, its next attempt has to find the same bytes here.
            if (was_free && !good) engine_.held_.hold_for_next_checkpoint({extent.start + i, 1});
        }
    }
    return {};
}

// The tables that the write needs, all at once.
Task<Status> Replay::load_for_write(Generation& generation, uint32_t chunk) {
    ++generation.writes;  // none of them is dropped again
    Status loaded;
    while (ChunkVersion* missing = engine_.map_.missing_for_write(generation, chunk)) {
        loaded = co_await engine_.cache_.load(*missing);
        if (!loaded) break;
    }
    --generation.writes;
    co_return loaded;
}

Task<Result<bool>> Replay::data_matches(WriteRecord record) {
    uint32_t index = 0;
    for (const Extent& extent : record.extents) {
        for (uint32_t done = 0; done < extent.count;) {
            const uint32_t count = std::min(tables_per_batch, extent.count - done);
            const MutableBytes to = data_.bytes().first(size_t{count} * block_bytes);
            const Status read =
                co_await engine_.disk_->read(uint64_t{extent.start + done} * block_bytes, to);
            if (!read && read.error().code == Errc::io_error) {
                // It may have been acked: the record stands, and its reader gets the device's
                // error.
                index += count;
                done += count;
                continue;
            }
            PF_CO_TRY(read);
            for (uint32_t i = 0; i < count; ++i, ++index) {
                const MutableBytes block = to.subspan(size_t{i} * block_bytes, block_bytes);
                if (crc32c(block) != record.crc(index)) co_return false;
            }
            // The bytes may be in the device's cache only, and if a flush of them failed before, a
            // later one need not cover them: written once more, the mount's own flush does.
            if (purpose_ == Purpose::mount && engine_.disk_->volatile_cache()) {
                PF_CO_TRY(
                    co_await engine_.disk_->write(uint64_t{extent.start + done} * block_bytes, to));
            }
            done += count;
        }
    }
    co_return true;
}

}  // namespace pf::tray

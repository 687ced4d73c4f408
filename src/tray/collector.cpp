#include <fmt/format.h>

#include "base/planted.hpp"
#include "tray/engine.hpp"

namespace pf::tray {

using runtime::Task;

void Collector::kick() {
    kicked_ = true;
    wake_.wake_one();
}

// A generation that is deleted, not being written, and seen by at most one child.
Generation* Collector::next() {
    for (const auto& [id, generation] : engine_.map_.deleted()) {
        if (generation->writes == 0 && generation->children.size() <= 1 &&
            !generation->uncollectable) {
            return generation;
        }
    }
    return nullptr;
}

Task<void> Collector::run_loop() {
    while (!engine_.stopping_) {
        if (kicked_ && engine_.map_.take_heads_changed()) co_await engine_.cache_.sweep();
        Generation* generation = engine_.failed_ || !kicked_ ? nullptr : next();
        if (generation == nullptr) {
            kicked_ = false;
            working_ = false;
            engine_.advanced_.wake_all();
            co_await wake_.wait();
            continue;
        }
        working_ = true;
        const Status done = co_await collect(*generation);
        if (!done) break;  // the tray has failed
    }
    working_ = kicked_ = false;
    engine_.advanced_.wake_all();
    --engine_.loops_;
}

Task<Status> Collector::collect(Generation& generation) {
    const auto chunks = static_cast<uint32_t>(generation.shard->chunks.size());
    uint32_t chunk = 0;
    for (bool last = false; !last;) {
        co_await engine_.maintenance_.lock();
        // A checkpoint that failed meanwhile was left as it is.
        if (engine_.failed_ || engine_.stopping_) {
            engine_.maintenance_.unlock();
            co_return fail(Errc::io_error);
        }
        ChunkVersion* missing = collect_step(generation, chunk, chunks);
        last = missing == nullptr && chunk == chunks;
        // The sum over all generations is right, or the mount would have counted; a stored part of
        // it is not.
        const bool adds_up = generation.own_blocks == 0;
        if (last && adds_up) drop(generation);
        if (last && !adds_up) give_up(generation, {Errc::corrupt, "its number of blocks is wrong"});
        engine_.maintenance_.unlock();
        engine_.advanced_.wake_all();  // some of it may be waited for
        // T11: what is freed is a list in memory, and given back in one step.
        if (engine_.held_.extents_for_next_checkpoint() > max_extents_held)
            engine_.checkpointer_.request();
        if (missing != nullptr) {
            const Status loaded = co_await engine_.cache_.load(*missing);
            if (!loaded) {
                give_up(generation, loaded.error());
                co_return Status{};
            }
        } else if (!last) {
            co_await runtime::yield();
        }
    }
    // Its blocks come back with the next checkpoint; hurry when they are missed, or to be trimmed.
    if (engine_.trims() ||
        engine_.held_.checkpoint_blocks() > engine_.allocator_.free_blocks() / 4) {
        engine_.checkpointer_.request();
    }
    co_return Status{};
}

void Collector::drop(Generation& generation) {
    const ShardId shard = generation.id.shard;
    engine_.map_.drop_generation(generation);
    engine_.state_shrank_ = true;
    if (engine_.map_.find_any(shard) == nullptr)
        engine_.dropped_shards_[shard] = engine_.map_.directory().current_epoch();
}

ChunkVersion* Collector::collect_step(Generation& generation, uint32_t& chunk, uint32_t chunks) {
    Map& map = engine_.map_;
    // The child is looked up again in each step: it may itself have been branched meanwhile, but
    // not collected, because there is one collector.
    Generation* child = generation.children.empty() ? nullptr : generation.children.front();
    for (uint32_t i = 0; i < chunks_per_step && chunk < chunks; ++i, ++chunk) {
        ChunkVersion* version = map.own(generation, chunk);
        if (version == nullptr) continue;
        if (version->table == nullptr) return version;
        if (ChunkVersion* missing = map.missing_for_owned(*version)) return missing;
        ChunkVersion* seen = child == nullptr ? nullptr : map.own(*child, chunk);
        if (seen != nullptr && seen->table == nullptr) return seen;
        collect_chunk(*version, child);
    }
    return nullptr;
}

// Without its tables nobody knows what it alone refers to. It stays, and the next mount tries
// again.
void Collector::give_up(Generation& generation, const Error& error) {
    generation.uncollectable = true;
    engine_.warnings_.push_back(fmt::format("generation {}@{} cannot be freed: {}",
                                            generation.id.shard, generation.id.snap_seq,
                                            error.message));
}

// S1: frees what neither the parent (these are the owned bits) nor the only child sees.
void Collector::collect_chunk(ChunkVersion& version, Generation* child) {
    Map& map = engine_.map_;
    ChunkVersion* seen = child == nullptr ? nullptr : map.own(*child, version.chunk);
    if (child != nullptr && seen == nullptr) {
        map.move_version(version, *child);
        return;
    }
    int64_t inherited = 0;
    int64_t owned = 0;
    for (uint32_t i = 0; i < blocks_per_chunk; ++i) {
        if (!version.owns(i)) continue;
        ++owned;
        const TableEntry entry = version.table->entries[i];
        const bool shared = seen != nullptr && seen->table->entries[i].address == entry.address;
        if (shared && !planted("delete_generation_frees_shared")) {
            if (seen->owned_known) seen->set_owned(i, true);
            ++inherited;
        } else {
            map.mapped().clear(entry.address);
            engine_.held_.hold_for_next_checkpoint({entry.address, 1});
        }
    }
    map.add_own_blocks(*version.generation, -owned);
    if (seen != nullptr) {
        map.add_own_blocks(*child, inherited);
        seen->merged_epoch = map.directory().current_epoch();
    }
    remove(version);
}

void Collector::remove(ChunkVersion& version) {
    engine_.cache_.forget(version);
    engine_.map_.unlink_version(version);
    const Address stored = engine_.map_.directory().remove(version);
    if (stored == unmapped_address) return;
    engine_.held_.hold_for_next_checkpoint({stored, 1});
    --engine_.metadata_blocks_;
}

}  // namespace pf::tray

#include "tray/map.hpp"

#include <algorithm>
#include <bit>

#include "base/assert.hpp"
#include "base/planted.hpp"

namespace pf::tray {

Shard* Map::find_any(ShardId id) {
    if (last_found_ != nullptr && last_found_->state.shard == id) return last_found_;
    const auto found = shards_.find(id);
    if (found == shards_.end()) return nullptr;
    last_found_ = found->second.get();
    return last_found_;
}

Shard* Map::find(ShardId id) {
    Shard* shard = find_any(id);
    return shard != nullptr && !shard->deleted ? shard : nullptr;
}

const Shard* Map::find(ShardId id) const {
    const auto found = shards_.find(id);
    if (found == shards_.end() || found->second->deleted) return nullptr;
    return found->second.get();
}

Generation* Map::find_generation(GenerationId id) {
    Shard* shard = find_any(id.shard);
    if (shard == nullptr) return nullptr;
    const auto found = shard->generations.find(id.snap_seq);
    return found == shard->generations.end() ? nullptr : found->second.get();
}

Shard& Map::restore_shard(const ShardState& state) {
    auto& shard = shards_[state.shard];
    PF_ASSERT(shard == nullptr);
    shard = std::make_unique<Shard>();
    shard->state = state;
    return *shard;
}

Shard& Map::create_shard(const ShardState& state, Generation* parent) {
    Shard& shard = restore_shard(state);
    shard.head = &create_generation(shard, state.snap_seq, parent);
    return shard;
}

Generation& Map::create_generation(Shard& shard, SnapSeq snap_seq, Generation* parent) {
    auto& generation = shard.generations[snap_seq];
    PF_ASSERT(generation == nullptr);
    generation = std::make_unique<Generation>();
    generation->id = {shard.state.shard, snap_seq};
    generation->shard = &shard;
    generation->parent = parent;
    shard.highest_snap_seq = std::max(shard.highest_snap_seq, snap_seq);
    if (parent != nullptr) parent->children.push_back(generation.get());
    return *generation;
}

void Map::make_head(Shard& shard, Generation& generation) {
    if (generation.parent != shard.head) heads_changed_ = true;
    shard.head = &generation;
    shard.state.snap_seq = generation.id.snap_seq;
}

void Map::mark_shard_deleted(Shard& shard) {
    shard.deleted = true;
    shard.head = nullptr;
    heads_changed_ = true;
    for (auto& [snap_seq, generation] : shard.generations) mark_deleted(*generation);
}

void Map::mark_deleted(Generation& generation) {
    generation.deleted = true;
    deleted_.emplace(generation.id, &generation);
}

void Map::drop_generation(Generation& generation) {
    PF_ASSERT(generation.children.size() <= 1 && generation.writes == 0);
    PF_ASSERT(generation.own_blocks == 0);
    Generation* parent = generation.parent;
    if (parent != nullptr) std::erase(parent->children, &generation);
    if (!generation.children.empty()) {
        Generation* child = generation.children.front();
        child->parent = parent;
        if (parent != nullptr) parent->children.push_back(child);
    }
    deleted_.erase(generation.id);
    Shard& shard = *generation.shard;
    shard.generations.erase(generation.id.snap_seq);
    if (shard.deleted && shard.generations.empty()) {
        if (last_found_ == &shard) last_found_ = nullptr;
        shards_.erase(shard.state.shard);
    }
}

void Map::reset_own_blocks() {
    user_blocks_ = 0;
    for (const auto& [id, shard] : shards_) {
        for (const auto& [snap_seq, generation] : shard->generations) generation->own_blocks = 0;
    }
}

ChunkVersion* Map::own(const Generation& generation, uint32_t chunk) const {
    const auto& chunks = generation.shard->chunks;
    if (chunk >= chunks.size()) return nullptr;
    ChunkVersion* version = chunks[chunk];
    while (version != nullptr && version->generation->id.snap_seq > generation.id.snap_seq) {
        version = version->older;
    }
    return version != nullptr && version->generation == &generation ? version : nullptr;
}

void Map::prefetch_version(GenerationId id, uint32_t block) {
    const Generation* generation = find_generation(id);
    if (generation == nullptr) return;
    const auto& chunks = generation->shard->chunks;
    if (block / blocks_per_chunk >= chunks.size()) return;
    const auto* at = reinterpret_cast<const std::byte*>(chunks[block / blocks_per_chunk]);
    if (at == nullptr) return;
    for (size_t line = 0; line < sizeof(ChunkVersion); line += 64) __builtin_prefetch(at + line, 1);
}

const TableEntry* Map::peek(GenerationId id, uint32_t block) {
    const Generation* generation = find_generation(id);
    if (generation == nullptr) return nullptr;
    const ChunkVersion* version = own(*generation, block / blocks_per_chunk);
    if (version == nullptr || version->table == nullptr) return nullptr;
    return &version->table->entries[block % blocks_per_chunk];
}

bool Map::owns_all(const Generation& generation, uint32_t block, uint32_t count) const {
    const ChunkVersion* version = own(generation, block / blocks_per_chunk);
    if (version == nullptr) return false;
    for (uint32_t i = 0; i < count; ++i) {
        if (!version->owns(block % blocks_per_chunk + i)) return false;
    }
    return true;
}

ChunkVersion* Map::view(const Generation& generation, uint32_t chunk) const {
    for (const Generation* at = &generation; at != nullptr; at = at->parent) {
        if (ChunkVersion* version = own(*at, chunk)) return version;
    }
    return nullptr;
}

void Map::link_version(ChunkVersion& version) {
    auto& chunks = version.generation->shard->chunks;
    if (chunks.size() <= version.chunk) chunks.resize(version.chunk + 1);
    ChunkVersion** at = &chunks[version.chunk];
    while (*at != nullptr && (*at)->generation->id.snap_seq > version.generation->id.snap_seq) {
        at = &(*at)->older;
    }
    version.older = *at;
    *at = &version;
}

void Map::unlink_version(ChunkVersion& version) {
    ChunkVersion** at = &version.generation->shard->chunks[version.chunk];
    while (*at != &version) at = &(*at)->older;
    *at = version.older;
    version.older = nullptr;
}

void Map::move_version(ChunkVersion& version, Generation& to) {
    PF_ASSERT(version.owned_known);
    const auto blocks = static_cast<int64_t>([&] {
        int count = 0;
        for (const uint64_t word : version.owned) count += std::popcount(word);
        return count;
    }());
    directory_.mark_page_dirty(version.page);  // the table itself stays as it is
    unlink_version(version);
    add_own_blocks(*version.generation, -blocks);
    version.generation = &to;
    version.merged_epoch = directory_.current_epoch();
    add_own_blocks(to, blocks);
    link_version(version);
}

ChunkVersion* Map::writable(Generation& generation, uint32_t chunk) {
    if (ChunkVersion* version = own(generation, chunk)) {
        PF_ASSERT(version->table != nullptr && version->owned_known);
        directory_.prepare_change(*version);
        return version;
    }
    ChunkVersion* inherited =
        generation.parent == nullptr ? nullptr : view(*generation.parent, chunk);
    PF_ASSERT(inherited == nullptr || inherited->table != nullptr);
    cloned_ = inherited;
    ChunkVersion* version = directory_.create(generation, chunk);
    version->table = tables_.take();
    version->owned_known = true;
    if (inherited != nullptr) {
        *version->table = *inherited->table;
        version->last = inherited->last;
    } else {
        version->table->entries.fill(TableEntry{unmapped_address, 0});
    }
    link_version(*version);
    directory_.prepare_change(*version);
    return version;
}

void Map::add_superseded(Address address, bool after_checkpoint) {
    if (!superseded_.empty()) {
        Superseded& last = superseded_.back();
        if (last.extent.start + last.extent.count == address &&
            last.after_checkpoint == after_checkpoint) {
            ++last.extent.count;
            return;
        }
    }
    superseded_.push_back({{address, 1}, after_checkpoint});
}

void Map::apply_write(Generation& generation, const WriteEffect& write, uint64_t durable_epoch) {
    superseded_.clear();
    cloned_ = nullptr;
    const uint32_t chunk = write.block / blocks_per_chunk;
    // A hole stays a hole: no table for it.
    if (write.kind == WriteKind::unmap && view(generation, chunk) == nullptr) return;
    ChunkVersion& version = *writable(generation, chunk);
    version.last = std::max(version.last, write.position);
    const bool merged = version.merged_epoch > durable_epoch;
    int64_t own_change = 0;
    size_t extent = 0;
    uint32_t in_extent = 0;
    for (uint32_t i = 0; i < write.count; ++i) {
        const uint32_t index = write.block % blocks_per_chunk + i;
        TableEntry after{write.kind == WriteKind::zero ? zero_address : unmapped_address, 0};
        if (write.kind == WriteKind::data) {
            after = {write.extents[extent].start + in_extent,
                     load<uint32_t>(write.crcs, i * sizeof(uint32_t))};
            if (++in_extent == write.extents[extent].count) {
                ++extent;
                in_extent = 0;
            }
        }
        const TableEntry before = version.table->entries[index];
        if (before == after) continue;
        version.table->entries[index] = after;
        if (version.owns(index) ||
            (planted("overwrite_frees_parents_block") && is_data(before.address))) {
            add_superseded(before.address, merged);
            mapped_.clear(before.address);
            --own_change;
        }
        version.set_owned(index, is_data(after.address));
        if (is_data(after.address)) {
            mapped_.set(after.address);
            ++own_change;
        }
        if (!generation.children.empty()) {
            replace_in_descendants(generation, chunk, index, before, after);
        }
    }
    add_own_blocks(generation, own_change);
}

void Map::replace_in_descendants(Generation& generation, uint32_t chunk, uint32_t index,
                                 TableEntry before, TableEntry after) {
    for (Generation* child : generation.children) {
        if (ChunkVersion* version = own(*child, chunk)) {
            PF_ASSERT(version->table != nullptr);
            if (version->table->entries[index] != before) continue;
            directory_.prepare_change(*version);
            version->table->entries[index] = after;
            version->set_owned(index, false);
        }
        replace_in_descendants(*child, chunk, index, before, after);
    }
}

}  // namespace pf::tray

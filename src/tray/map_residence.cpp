// What the map needs in memory: which table has to be loaded next, and which may be dropped.
#include "base/assert.hpp"
#include "tray/map.hpp"

namespace pf::tray {

ChunkVersion* Map::missing_for_write(Generation& generation, uint32_t chunk) {
    if (ChunkVersion* version = own(generation, chunk)) {
        if (version->table == nullptr) return version;
        if (ChunkVersion* missing = missing_for_owned(*version)) return missing;
    } else if (generation.parent != nullptr) {
        ChunkVersion* inherited = view(*generation.parent, chunk);
        if (inherited != nullptr && inherited->table == nullptr) return inherited;
    }
    return missing_in_descendants(generation, chunk);
}

// A write to a generation that is no longer the head reaches their tables, too.
ChunkVersion* Map::missing_in_descendants(Generation& generation, uint32_t chunk) {
    for (Generation* child : generation.children) {
        ChunkVersion* version = own(*child, chunk);
        if (version != nullptr && version->table == nullptr) return version;
        if (ChunkVersion* missing = missing_in_descendants(*child, chunk)) return missing;
    }
    return nullptr;
}

ChunkVersion* Map::missing_for_owned(ChunkVersion& version) {
    if (version.owned_known) return nullptr;
    if (version.table == nullptr) return &version;
    const Generation* parent = version.generation->parent;
    ChunkVersion* inherited = parent == nullptr ? nullptr : view(*parent, version.chunk);
    if (inherited != nullptr && inherited->table == nullptr) return inherited;
    find_owned(version, inherited);
    return nullptr;
}

// S1: an entry belongs to a generation if its parent's view has another.
void Map::find_owned(ChunkVersion& version, const ChunkVersion* inherited) {
    for (uint32_t i = 0; i < blocks_per_chunk; ++i) {
        const Address address = version.table->entries[i].address;
        const bool shared = inherited != nullptr && inherited->table->entries[i].address == address;
        version.set_owned(i, is_data(address) && !shared);
    }
    version.owned_known = true;
}

// Whether the predicate holds for a generation below this one that reads its chunk through it.
template <class Predicate>
bool Map::any_reader_below(const Generation& generation, uint32_t chunk,
                           Predicate predicate) const {
    const Generation* at = &generation;  // chains are long, branches are few
    while (at != nullptr) {
        if (predicate(*at)) return true;
        const Generation* next = nullptr;
        for (const Generation* child : at->children) {
            if (own(*child, chunk) != nullptr) continue;
            if (next == nullptr)
                next = child;
            else if (any_reader_below(*child, chunk, predicate))
                return true;
        }
        at = next;
    }
    return false;
}

template <class Predicate>
bool Map::any_reader(const ChunkVersion& version, Predicate predicate) const {
    return any_reader_below(*version.generation, version.chunk, predicate);
}

bool Map::seen_by_head(const ChunkVersion& version) const {
    return any_reader(version, [](const Generation& generation) {
        return generation.shard->head == &generation;
    });
}

bool Map::needed_by_writes(const ChunkVersion& version) const {
    // Its readers clone it; writes to an ancestor that were in flight reach it.
    const auto writing = [](const Generation& generation) { return generation.writes > 0; };
    if (any_reader(version, writing)) return true;
    for (const Generation* at = version.generation->parent; at != nullptr; at = at->parent) {
        if (at->writes > 0) return true;
    }
    return false;
}

}  // namespace pf::tray

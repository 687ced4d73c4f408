#include "tray_model.hpp"

#include <algorithm>
#include <set>
#include <unordered_map>

#include "base/assert.hpp"
#include "base/crc32c.hpp"

namespace pf::test {

namespace {
uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}
}  // namespace

void fill_block(Tag tag, MutableBytes to) {
    PF_ASSERT(to.size() == block_bytes);
    if (tag == hole_tag || tag == zero_tag) {
        std::fill(to.begin(), to.end(), std::byte{0});
        return;
    }
    const uint64_t seed = mix(tag);
    for (size_t word = 0; word < block_bytes / 8; ++word) {
        store(to, seed + word * 0x9e3779b97f4a7c15, word * 8);
    }
}

uint32_t block_crc(Tag tag) {
    if (tag == hole_tag || tag == zero_tag) return crc32c_of_zero_block();
    // Checking asks for the same tags again and again, once per crash state.
    thread_local std::unordered_map<Tag, uint32_t> known;
    const auto [at, is_new] = known.try_emplace(tag, 0);
    if (is_new) {
        std::array<std::byte, block_bytes> block;
        fill_block(tag, block);
        at->second = crc32c(block);
    }
    return at->second;
}

Tag ModelGeneration::at(uint32_t block) const {
    const auto found = chunks.find(block / blocks_per_chunk);
    return found == chunks.end() ? hole_tag : (*found->second)[block % blocks_per_chunk];
}

void ModelGeneration::set(uint32_t block, Tag tag) {
    auto& chunk = chunks[block / blocks_per_chunk];
    auto copy = chunk ? std::make_shared<ChunkView>(*chunk) : std::make_shared<ChunkView>();
    (*copy)[block % blocks_per_chunk] = tag;
    chunk = std::move(copy);
}

Tag ModelOperation::tag_of(uint32_t block_index) const {
    switch (write_kind) {
        case tray::WriteKind::data:
            return first_tag + (block_index - block);
        case tray::WriteKind::zero:
            return zero_tag;
        case tray::WriteKind::unmap:
            return hole_tag;
    }
    return hole_tag;
}

void TrayModel::note_request(ModelShard& shard, const tray::RequestName& name, bool applied) {
    auto& requests = shard.sessions[name.session];
    requests.erase(requests.begin(), requests.lower_bound(name.lowest_outstanding));
    requests[name.request] = applied;
}

void TrayModel::apply(const ModelOperation& operation) {
    if (operation.kind == ModelOperation::Kind::create_shard) {
        shards[operation.shard].blocks = operation.count;
        return;
    }
    ModelShard& shard = shards.at(operation.shard);
    switch (operation.kind) {
        case ModelOperation::Kind::write: {
            ModelGeneration& generation = shard.generations.at(operation.snap_seq);
            for (uint32_t i = 0; i < operation.count; ++i) {
                generation.set(operation.block + i, operation.tag_of(operation.block + i));
            }
            shard.last = std::max(shard.last, operation.position);
            if (operation.request.session != 0) {
                note_request(shard, operation.request, true);
            }
            return;
        }
        case ModelOperation::Kind::create_generation: {
            ModelGeneration child = shard.generations.at(operation.parent);
            child.parent = operation.parent;
            child.nameless = false;
            shard.generations[operation.snap_seq] = std::move(child);
            if (operation.write_kind == tray::WriteKind::data) shard.head = operation.snap_seq;
            return;
        }
        case ModelOperation::Kind::delete_generation:
            remove_generation(shard, operation.snap_seq);
            return;
        case ModelOperation::Kind::delete_shard:
            shards.erase(operation.shard);
            return;
        case ModelOperation::Kind::void_request:
            note_request(shard, operation.request, false);
            return;
        case ModelOperation::Kind::create_shard:
        case ModelOperation::Kind::other:
            return;
    }
}

void TrayModel::remove_generation(ModelShard& shard, tray::SnapSeq snap_seq) {
    std::vector<tray::SnapSeq> children;
    for (const auto& [id, generation] : shard.generations) {
        if (generation.parent == snap_seq) children.push_back(id);
    }
    if (children.size() >= 2) {
        shard.generations.at(snap_seq).nameless = true;
        return;
    }
    const tray::SnapSeq parent = shard.generations.at(snap_seq).parent;
    if (!children.empty()) shard.generations.at(children[0]).parent = parent;
    shard.generations.erase(snap_seq);
    // A nameless parent that is left with one child or none goes too (S1).
    if (parent != 0 && shard.generations.at(parent).nameless) {
        const auto left =
            std::count_if(shard.generations.begin(), shard.generations.end(),
                          [&](const auto& entry) { return entry.second.parent == parent; });
        if (left < 2) remove_generation(shard, parent);
    }
}

uint64_t TrayModel::user_blocks() const {
    std::vector<Tag> tags;
    std::set<const ChunkView*> seen;
    for (const auto& [id, shard] : shards) {
        for (const auto& [snap_seq, generation] : shard.generations) {
            for (const auto& [index, chunk] : generation.chunks) {
                if (!seen.insert(chunk.get()).second) continue;
                for (const Tag tag : *chunk) {
                    if (tag > zero_tag) tags.push_back(tag);
                }
            }
        }
    }
    std::sort(tags.begin(), tags.end());
    return static_cast<uint64_t>(std::unique(tags.begin(), tags.end()) - tags.begin());
}

}  // namespace pf::test

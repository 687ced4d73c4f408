// Goal: whatever is done to a tray - writes of all kinds, generations, clones, deletions,
// checkpoints, stops and crashes - it reads as a plain in-memory model does and accounts for every
// block. Method: rapidcheck makes operation lists; the model keeps the tag of every block of every
// generation by copying.
#include <rapidcheck.h>

#include <map>

#include "tray/tray_rig_test.hpp"

namespace pf::tray {
namespace {

constexpr uint32_t shard_blocks = 1200;  // two chunks and a part of a third

using Blocks = std::vector<uint32_t>;  // a tag per block, 0 for zeros

struct Model {
    struct Gen {
        Blocks blocks;
        uint32_t children = 0;
        GenerationId parent;
        bool deleted = false;
    };
    std::map<GenerationId, Gen> generations;
    std::map<ShardId, SnapSeq> heads;
    std::map<ShardId, SnapSeq> next_seq;

    [[nodiscard]] std::vector<GenerationId> alive() const {
        std::vector<GenerationId> ids;
        for (const auto& [id, gen] : generations) {
            if (!gen.deleted) ids.push_back(id);
        }
        return ids;
    }
    // Tags of data that any generation shows; nameless ones keep theirs until one child is left.
    [[nodiscard]] bool is_head(GenerationId id) const {
        const auto head = heads.find(id.shard);
        return head != heads.end() && head->second == id.snap_seq;
    }
};

class Scenario {
  public:
    explicit Scenario(uint64_t cache_bytes)
        : rig_({.disk_bytes = uint64_t{24} << 20, .cache_bytes = cache_bytes}) {
        RC_ASSERT(rig_.format().has_value());
        RC_ASSERT(rig_.mount().has_value());
        add_shard({});
    }

    void step(uint32_t choice, uint32_t a, uint32_t b) {
        switch (choice % 16) {
            case 0:
                return snapshot(a, b);
            case 1:
                return remove_generation(a);
            case 2:
                return restart(a);
            case 3:
                if (model_.heads.size() < 4) clone(a);
                return;
            case 4:
                if (model_.heads.size() > 1) remove_shard(a);
                return;
            case 5:
                RC_ASSERT(rig_.run(rig_.tray().checkpoint()).has_value());
                return;
            default:
                return write(choice, a, b);
        }
    }

    void check_all() {
        for (const GenerationId id : model_.alive()) {
            const Blocks& expected = model_.generations[id].blocks;
            for (uint32_t at = 0; at < shard_blocks; at += blocks_per_chunk) {
                const uint32_t count = std::min(blocks_per_chunk, shard_blocks - at);
                const auto read = rig_.read(id.shard, id.snap_seq, at, count);
                RC_ASSERT(read.has_value());
                for (uint32_t i = 0; i < count; ++i) RC_ASSERT((*read)[i] == expected[at + i]);
            }
        }
        const Usage usage = rig_.tray().usage();
        RC_ASSERT(usage.free_blocks + usage.user_blocks + usage.metadata_blocks +
                      usage.held_blocks ==
                  usage.capacity_blocks);
    }
    // With nothing deleted half-way, the blocks in use are exactly the distinct tags alive.
    void check_exact() {
        for (int round = 0; round < 3; ++round) {
            rig_.settle();
            RC_ASSERT(rig_.run(rig_.tray().checkpoint()).has_value());
        }
        rig_.settle();
        std::map<uint32_t, int> tags;
        for (const auto& [id, gen] : model_.generations) {
            if (gen.deleted && !shown_nameless(id)) continue;
            for (const uint32_t tag : gen.blocks) {
                if (tag != 0) tags[tag] = 1;
            }
        }
        const Usage usage = rig_.tray().usage();
        RC_ASSERT(usage.user_blocks == tags.size());
        RC_ASSERT(usage.held_blocks == 0u);
    }
    [[nodiscard]] uint64_t loads() const { return loads_ + rig_.tray().counters().table_loads; }
    void restart(uint32_t how) {
        loads_ += rig_.tray().counters().table_loads;
        if (how % 3 == 0)
            rig_.stop();
        else
            rig_.crash(how % 3 == 1);
        const Status mounted = rig_.mount();
        if (!mounted) RC_LOG() << mounted.error().text() << "\n";
        RC_ASSERT(mounted.has_value());
    }

  private:
    [[nodiscard]] bool shown_nameless(GenerationId id) {
        for (const GenerationInfo& info : rig_.tray().generations(id.shard)) {
            if (info.id == id) return info.nameless;
        }
        // In a deleted shard: alive only while two or more generations hang off it.
        return children_left(id) >= 2;
    }
    // Children of a deleted generation, after those with fewer than two children were spliced out.
    uint32_t children_left(GenerationId id) {
        uint32_t count = 0;
        for (const auto& [child, gen] : model_.generations) {
            if (gen.parent != id) continue;
            if (!gen.deleted)
                ++count;
            else
                count += std::min(children_left(child), 1u);
        }
        return count;
    }
    void add_shard(GenerationId parent) {
        const ShardId id = ++last_shard_;
        RC_ASSERT(rig_.create_shard(id, shard_blocks, parent).has_value());
        auto& made = model_.generations[{id, 1}];
        made.blocks = parent.shard == 0 ? Blocks(shard_blocks) : model_.generations[parent].blocks;
        made.parent = parent;
        model_.heads[id] = 1;
        model_.next_seq[id] = 2;
    }
    GenerationId pick(uint32_t a) {
        const auto ids = model_.alive();
        return ids[a % ids.size()];
    }
    ShardId pick_shard(uint32_t a) {
        auto at = model_.heads.begin();
        std::advance(at, a % model_.heads.size());
        return at->first;
    }
    void write(uint32_t choice, uint32_t a, uint32_t b) {
        const ShardId shard = pick_shard(choice / 16);
        const SnapSeq head = model_.heads[shard];
        const uint32_t block = a % shard_blocks;
        const uint32_t room =
            std::min(shard_blocks - block, blocks_per_chunk - block % blocks_per_chunk);
        const bool large = b % 8 == 0;
        const uint32_t count = std::min(room, 1 + (b / 8) % (large ? 200 : 5));
        const auto kind = choice % 16 == 6   ? WriteKind::unmap
                          : choice % 16 == 7 ? WriteKind::zero
                                             : WriteKind::data;
        const uint32_t tag = next_tag_;
        next_tag_ += count;
        const Status status = rig_.write(shard, head, block, count, tag, kind);
        if (!status) {
            RC_ASSERT(status.error().code == Errc::no_space);
            return;
        }
        for (uint32_t i = 0; i < count; ++i) {
            model_.generations[{shard, head}].blocks[block + i] =
                kind == WriteKind::data ? tag + i : 0;
        }
    }
    void snapshot(uint32_t a, uint32_t b) {
        const ShardId shard = pick_shard(a);
        GenerationId parent{shard, model_.heads[shard]};
        if (b % 4 == 0) {  // roll back to any generation of the shard
            for (const GenerationId id : model_.alive()) {
                if (id.shard != shard) continue;
                b /= 2;
                if (b % 2 == 0) parent = id;
            }
        }
        const GenerationId made{shard, model_.next_seq[shard]++};
        RC_ASSERT(rig_.run(rig_.tray().create_generation(made, parent, true)).has_value());
        auto& gen = model_.generations[made];
        gen.blocks = model_.generations[parent].blocks;
        gen.parent = parent;
        model_.heads[shard] = made.snap_seq;
    }
    void clone(uint32_t a) {
        const GenerationId parent = pick(a);
        if (model_.is_head(parent)) return;
        add_shard(parent);
    }
    void remove_generation(uint32_t a) {
        const GenerationId id = pick(a);
        const Status status = rig_.run(rig_.tray().delete_generation(id));
        if (model_.is_head(id)) {
            RC_ASSERT(status.error().code == Errc::busy);
            return;
        }
        RC_ASSERT(status.has_value());
        model_.generations[id].deleted = true;
    }
    void remove_shard(uint32_t a) {
        const ShardId shard = pick_shard(a);
        RC_ASSERT(rig_.run(rig_.tray().delete_shard(shard)).has_value());
        model_.heads.erase(shard);
        for (auto& [id, gen] : model_.generations) {
            if (id.shard == shard) gen.deleted = true;
        }
    }

    TrayRig rig_;
    Model model_;
    ShardId last_shard_ = 0;
    uint32_t next_tag_ = 1;
    uint64_t loads_ = 0;
};

void check_against_model(const char* what, uint64_t cache_bytes, uint64_t& loads) {
    const bool good = rc::check(what, [&] {
        const auto steps =
            *rc::gen::container<std::vector<std::tuple<uint32_t, uint32_t, uint32_t>>>(
                100, rc::gen::tuple(rc::gen::inRange(0u, 1u << 20), rc::gen::inRange(0u, 1u << 20),
                                    rc::gen::inRange(0u, 1u << 20)));
        Scenario run(cache_bytes);
        uint32_t done = 0;
        for (const auto& [choice, a, b] : steps) {
            run.step(choice, a, b);
            if (++done % 16 == 0) run.check_all();
        }
        run.check_all();
        run.check_exact();
        run.restart(1);
        run.check_all();
        run.check_exact();
        loads += run.loads();
    });
    EXPECT_TRUE(good);
}

TEST(TrayModel, ReadsAsTheModelThroughEverything) {
    uint64_t loads = 0;
    check_against_model("tray against model", uint64_t{64} << 20, loads);
}

// The same with room for hardly any table of an older generation.
TEST(TrayModel, ReadsAsTheModelWithoutACache) {
    uint64_t loads = 0;
    check_against_model("tray against model, tables come and go", 0, loads);
    EXPECT_GT(loads, 1000u);
}

}  // namespace
}  // namespace pf::tray

#include "tray/replay.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace pf::tray {

using runtime::Task;

Task<int32_t> Replay::run_batch(IoBatch& batch, runtime::Disk& disk) {
    struct Waiting {
        runtime::Event done;
        int32_t result = 0;
    };
    Waiting waiting;
    batch.submit(
        disk,
        [](void* context, int32_t result) {
            auto& self = *static_cast<Waiting*>(context);
            self.result = result;
            self.done.set();
        },
        &waiting);
    co_await waiting.done.wait();
    co_return waiting.result;
}

Replay::Replay(Engine& engine, Purpose purpose)
    : engine_(engine), purpose_(purpose), loss_(engine.map_) {}

Task<Status> Replay::run() {
    co_await engine_.cache_.start();
    data_ = co_await runtime::Reactor::current().buffers().allocate(size_t{tables_per_batch} *
                                                                    block_bytes);
    RootReader roots(*engine_.disk_, engine_.superblock_);
    PF_CO_TRY_ASSIGN(engine_.root_, co_await roots.read(engine_.warnings_));
    engine_.map_.directory().set_epoch(engine_.root_.number + 1);
    PF_CO_TRY(co_await load_state());
    PF_CO_TRY(co_await load_directory());
    PF_CO_TRY(co_await load_bitmap());
    PF_CO_TRY(co_await load_head_tables());
    PF_CO_TRY(co_await load_owned_of_heads());
    PF_CO_TRY_ASSIGN(const bool known, use_bitmap());
    if (!known) PF_CO_TRY(co_await find_owned_blocks());
    engine_.cache_.check_against_bitmap();
    PF_CO_TRY(co_await replay_log());
    loss_.finish();
    engine_.loss_ = loss_.message();
    engine_.root_.doubly_owned = engine_.allocator_.shared_blocks() > 0;
    co_return Status{};
}

Status Replay::mark_metadata(Address address, const char* what) {
    if (!engine_.allocator_.mark_used(address)) {
        return fail(Errc::corrupt, fmt::format("{}: block {} of the {} is owned twice",
                                               engine_.disk_->name(), address, what));
    }
    ++engine_.metadata_blocks_;
    return {};
}

Task<Status> Replay::load_state() {
    BlockLink link = engine_.root_.state;
    const MutableBytes block = data_.bytes().first(block_bytes);
    while (link.address != unmapped_address) {
        PF_CO_TRY(mark_metadata(link.address, "state"));  // a loop would mark one twice
        engine_.checkpointer_.chain_blocks().push_back(link.address);
        PF_CO_TRY(co_await engine_.disk_->read(uint64_t{link.address} * block_bytes, block));
        PF_CO_TRY_ASSIGN(MetaBlock meta,
                         decode_meta(block, MetaKind::state, link.crc, engine_.superblock_));
        while (!meta.payload.empty()) {
            PF_CO_TRY_ASSIGN(const StateRecord record, take_state_record(meta.payload));
            PF_CO_TRY(restore_state(record));
        }
        link = meta.next;
    }
    // Parents may be in shards that come later: linked once all are there.
    for (const GenerationStateRecord& record : generations_) {
        if (record.parent.shard == 0) continue;
        Generation* generation = engine_.map_.find_generation(record.id);
        Generation* parent = engine_.map_.find_generation(record.parent);
        if (parent == nullptr || parent == generation) {
            co_return fail(Errc::corrupt, fmt::format("generation {}@{}: unknown parent {}@{}",
                                                      record.id.shard, record.id.snap_seq,
                                                      record.parent.shard, record.parent.snap_seq));
        }
        generation->parent = parent;
        parent->children.push_back(generation);
    }
    PF_CO_TRY(check_lineage());
    for (const auto& [id, shard] : engine_.map_.shards()) {
        if (shard->deleted) continue;
        const auto head = shard->generations.find(shard->state.snap_seq);
        if (head == shard->generations.end() || head->second->deleted) {
            co_return fail(Errc::corrupt, fmt::format("shard {}: its head generation {} is missing",
                                                      id, shard->state.snap_seq));
        }
        shard->head = head->second.get();
    }
    co_return Status{};
}

// Parents lead to a root: what walks up a lineage ends.
Status Replay::check_lineage() const {
    std::set<const Generation*> good;
    for (const auto& [id, shard] : engine_.map_.shards()) {
        for (const auto& [snap_seq, generation] : shard->generations) {
            std::set<const Generation*> path;
            const Generation* at = generation.get();
            for (; at != nullptr && !good.contains(at); at = at->parent) {
                if (!path.insert(at).second) {
                    return fail(
                        Errc::corrupt,
                        fmt::format("generation {}@{}: its parents form a ring", id, snap_seq));
                }
            }
            good.merge(path);
        }
    }
    return {};
}

Status Replay::restore_state(const StateRecord& record) {
    Map& map = engine_.map_;
    if (const auto* shard = std::get_if<ShardStateRecord>(&record)) {
        if (map.find_any(shard->state.shard) != nullptr) {
            return fail(Errc::corrupt, "state record: a shard is there twice");
        }
        Shard& made = map.restore_shard(shard->state);
        made.highest_snap_seq = shard->highest_snap_seq;
        made.last = shard->last;
        made.committed = made.highest_committed = shard->committed;
        made.deleted = shard->deleted;
        return {};
    }
    if (const auto* generation = std::get_if<GenerationStateRecord>(&record)) {
        Shard* shard = map.find_any(generation->id.shard);
        if (shard == nullptr || map.find_generation(generation->id) != nullptr) {
            return fail(Errc::corrupt, "state record: a generation does not fit its shard");
        }
        Generation& made = map.create_generation(*shard, generation->id.snap_seq, nullptr);
        if (generation->deleted) map.mark_deleted(made);
        map.add_own_blocks(made, static_cast<int64_t>(generation->own_blocks));
        generations_.push_back(*generation);
        return {};
    }
    const auto& session = std::get<SessionStateRecord>(record);
    Shard* shard = map.find_any(session.shard);
    if (shard == nullptr || shard->sessions.find(session.session.id) != nullptr) {
        return fail(Errc::corrupt, "state record: a session does not fit its shard");
    }
    shard->sessions.restore(session.session);
    return {};
}

Task<Status> Replay::load_directory() {
    std::vector<BlockLink> pages;
    BlockLink link = engine_.root_.index;
    const MutableBytes block = data_.bytes().first(block_bytes);
    while (link.address != unmapped_address) {
        PF_CO_TRY(mark_metadata(link.address, "directory index"));
        engine_.checkpointer_.chain_blocks().push_back(link.address);
        PF_CO_TRY(co_await engine_.disk_->read(uint64_t{link.address} * block_bytes, block));
        PF_CO_TRY_ASSIGN(const MetaBlock meta,
                         decode_meta(block, MetaKind::index, link.crc, engine_.superblock_));
        PF_CO_TRY_ASSIGN(const auto links, decode_index(meta.payload, engine_.superblock_));
        pages.insert(pages.end(), links.begin(), links.end());
        link = meta.next;
    }
    if (pages.size() != engine_.root_.directory_pages) {
        co_return fail(Errc::corrupt, "directory index: its length is not what the root says");
    }
    co_return co_await load_pages(pages);
}

Task<Status> Replay::load_pages(const std::vector<BlockLink>& links) {
    for (size_t at = 0; at < links.size(); at += tables_per_batch) {
        const size_t count = std::min<size_t>(tables_per_batch, links.size() - at);
        IoBatch& batch = engine_.take_batch();
        for (size_t i = 0; i < count; ++i) {
            PF_CO_TRY(mark_metadata(links[at + i].address, "directory"));
            batch.add_part(runtime::DiskOp::Kind::read,
                           uint64_t{links[at + i].address} * block_bytes);
            batch.add_memory(data_.data() + i * block_bytes, block_bytes);
        }
        const int32_t result = co_await run_batch(batch, *engine_.disk_);
        engine_.give_back_batch(batch);
        if (result != 0) co_return fail(from_errno(-result));
        for (size_t i = 0; i < count; ++i) {
            PF_CO_TRY_ASSIGN(
                const MetaBlock meta,
                decode_meta(data_.bytes().subspan(i * block_bytes, block_bytes),
                            MetaKind::directory, links[at + i].crc, engine_.superblock_));
            PF_CO_TRY_ASSIGN(const auto entries,
                             decode_directory(meta.payload, engine_.superblock_));
            engine_.map_.directory().add_restored_page(links[at + i]);
            for (const auto& entry : entries) {
                PF_CO_TRY(restore_entry(entry, static_cast<uint32_t>(at + i)));
            }
        }
    }
    co_return Status{};
}

Status Replay::restore_entry(const DirectoryEntryFormat& entry, uint32_t page) {
    Map& map = engine_.map_;
    PF_TRY(mark_metadata(entry.table.address, "tables"));
    Generation* generation = map.find_generation({entry.shard, entry.snap_seq});
    if (generation == nullptr || map.own(*generation, entry.chunk) != nullptr) {
        return fail(Errc::corrupt,
                    fmt::format("{}: shard {} chunk {} generation {}: directory entry does not fit",
                                engine_.disk_->name(), uint64_t{entry.shard}, uint32_t{entry.chunk},
                                uint32_t{entry.snap_seq}));
    }
    ChunkVersion* version = map.directory().restore(*generation, entry.chunk, page);
    version->stored = entry.table;
    version->last = version->stored_last = {entry.last_epoch, entry.last_sequence};
    map.link_version(*version);
    return {};
}

// A block that two tables name, after a loss only: one of them is out of date and finds another
// CRC there. The block stays in use until both have let go of it (T7).
Status Replay::take_owned(const ChunkVersion& version, Address address) {
    if (engine_.allocator_.mark_used(address)) return {};
    if (!engine_.root_.doubly_owned) {
        const GenerationId& id = version.generation->id;
        return fail(Errc::corrupt, fmt::format("{}: block {} is owned twice: by shard {} chunk {} "
                                               "generation {} and another",
                                               engine_.disk_->name(), address, id.shard,
                                               version.chunk, id.snap_seq));
    }
    engine_.allocator_.share(address);
    return {};
}

}  // namespace pf::tray

#include "tray/inspect.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/crc32c.hpp"
#include "tray/replay.hpp"
#include "tray/superblock.hpp"

namespace pf::tray {

using runtime::Task;

Inspector::Inspector(std::unique_ptr<runtime::Disk> disk) : disk_(std::move(disk)) {}
Inspector::~Inspector() = default;

Task<Result<SuperblockReport>> Inspector::superblocks() {
    SuperblockReport report;
    SuperblockReader reader(*disk_);
    PF_CO_TRY_ASSIGN(report.superblock, co_await reader.read());
    superblock_ = report.superblock;
    for (const std::string& warning : reader.warnings()) {
        report.damage.push_back({"superblock", warning});
    }
    runtime::Buffer buffer = co_await runtime::Reactor::current().buffers().allocate(block_bytes);
    for (uint32_t slot = 0; slot < root_slots; ++slot) {
        const uint64_t offset = uint64_t{first_root_address + slot} * block_bytes;
        PF_CO_TRY(co_await disk_->read(offset, buffer.bytes()));
        const Result<Root> root = decode_root(buffer.bytes(), superblock_);
        if (root)
            report.roots.push_back(*root);
        else
            report.damage.push_back({fmt::format("root slot {}", slot), root.error().message});
    }
    std::ranges::sort(report.roots, {}, &Root::number);
    co_return report;
}

Task<Result<LogReport>> Inspector::log(LogVisitor visit) {
    PF_CO_TRY_ASSIGN(SuperblockReport found, co_await superblocks());
    LogReport report;
    report.damage = std::move(found.damage);
    if (found.roots.empty()) co_return report;
    LogReader reader(*disk_, superblock_);
    const Status done = co_await read_log(reader, found.roots.back(), visit, report);
    co_await reader.stop();
    PF_CO_TRY(done);
    co_return report;
}

Task<Status> Inspector::read_log(LogReader& reader, const Root& root, const LogVisitor& visit,
                                 LogReport& report) {
    report.first = root.log_start;
    report.last = root.log_start - 1;
    const Result<LogReader::End> end = co_await reader.find_end(root);
    if (!end) {
        if (end.error().code != Errc::corrupt) co_return std::unexpected<Error>(end.error());
        report.damage.push_back({"log", end.error().message});
        co_return Status{};
    }
    report.last = end->last;
    report.confirmed = end->confirmed;
    for (const LogReader::Lost& lost : end->lost) {
        report.damage.push_back({fmt::format("log block {}", lost.sequence),
                                 "it was durable and cannot be read: writes are lost"});
    }
    auto lost = end->lost.begin();
    std::vector<Record> records;
    for (uint64_t sequence = report.first; sequence <= report.last; ++sequence) {
        if (lost != end->lost.end() && lost->sequence == sequence) {
            ++lost;
            continue;
        }
        PF_CO_TRY_ASSIGN(const LogBlock block, co_await reader.read_chained(root, sequence));
        records.clear();
        Bytes left = block.records;
        while (!left.empty()) {
            const Result<Record> record = take_record(left, superblock_);
            if (!record) {
                report.damage.push_back(
                    {fmt::format("log block {}", sequence), record.error().message});
                break;
            }
            records.push_back(*record);
        }
        visit(block, records);
    }
    co_return Status{};
}

// T7: what the next mount will say, and what earlier ones have marked.
void Inspector::add_loss(const Loss& loss, std::vector<Damage>& damage) const {
    if (loss.any()) damage.push_back({"log", loss.message()});
    for (const auto& [id, shard] : engine_->map().shards()) {
        if (shard->deleted || !shard->state.damaged) continue;
        damage.push_back({fmt::format("shard {}", id),
                          "it may have lost writes; it answers no I/O until that is accepted"});
    }
}

// Replays in memory; the tray itself stays as it is.
Task<Status> Inspector::load(std::vector<Damage>& damage) {
    PF_CO_TRY_ASSIGN(SuperblockReport found, co_await superblocks());
    damage = std::move(found.damage);
    MountOptions options;
    options.cluster = superblock_.cluster;
    engine_ = std::make_unique<Engine>(std::move(disk_), options, superblock_);
    Replay replay(*engine_, Replay::Purpose::inspect);
    const Status done = co_await replay.run();
    if (replay.bitmap_damage()) damage.push_back({"bitmap", *replay.bitmap_damage()});
    if (done) {
        add_loss(replay.loss(), damage);
        co_return Status{};
    }
    if (done.error().code == Errc::io_error) co_return done;
    damage.push_back({"tray", done.error().message});
    co_return Status{};
}

Task<Result<MapReport>> Inspector::map() {
    MapReport report;
    PF_CO_TRY(co_await load(report.damage));
    for (const auto& [id, shard] : engine_->map().shards()) {
        if (!shard->deleted) report.shards.push_back(shard->state);
        for (const auto& [snap_seq, generation] : shard->generations) {
            GenerationReport entry;
            entry.id = generation->id;
            if (generation->parent != nullptr) entry.parent = generation->parent->id;
            entry.deleted = generation->deleted;
            entry.own_blocks = generation->own_blocks;
            for (uint32_t chunk = 0; chunk < shard->chunks.size(); ++chunk) {
                if (engine_->map().own(*generation, chunk) != nullptr) ++entry.tables;
            }
            report.generations.push_back(entry);
        }
    }
    const Usage usage = engine_->usage();
    report.user_blocks = usage.user_blocks;
    report.metadata_blocks = usage.metadata_blocks;
    report.free_blocks = usage.free_blocks;
    MappedBlocks& mapped = engine_->map().mapped();
    for (uint32_t page = 0; page < mapped.page_count(); ++page) {
        if (mapped.stored(page).address != unmapped_address) ++report.bitmap_pages;
    }
    report.bitmap_blocks = mapped.count();
    const Counters counters = engine_->counters();
    report.replayed_records = counters.replayed_records;
    report.dropped_records = counters.dropped_records;
    co_return report;
}

Task<Result<VerifyReport>> Inspector::verify() {
    VerifyReport report;
    PF_CO_TRY(co_await load(report.damage));
    const bool usable = std::ranges::none_of(
        report.damage, [](const Damage& found) { return found.where == "tray"; });
    if (usable) PF_CO_TRY(co_await verify_tables(report));
    co_return report;
}

// False: a table that this needs is damaged, which is reported.
Task<bool> Inspector::load_owned(ChunkVersion& version, VerifyReport& report) {
    while (true) {
        ChunkVersion* missing =
            version.table == nullptr ? &version : engine_->map().missing_for_owned(version);
        if (missing == nullptr) co_return true;
        const Status loaded = co_await engine_->cache().load(*missing);
        if (loaded) continue;
        if (missing == &version) report.damage.push_back({"table", loaded.error().message});
        co_return false;
    }
}

// Each block once: by the generation that owns it. What all of them own is what the bitmap has.
Task<Status> Inspector::verify_tables(VerifyReport& report) {
    Map& map = engine_->map();
    runtime::Buffer buffer = co_await runtime::Reactor::current().buffers().allocate(chunk_bytes);
    Allocator found(superblock_.data_start, superblock_.data_end);
    bool complete = true;
    for (const auto& [id, shard] : map.shards()) {
        for (ChunkVersion* version : shard->chunks) {
            for (; version != nullptr; version = version->older) {
                ++report.tables;
                const bool loaded = co_await load_owned(*version, report);
                complete = complete && loaded;
                if (!loaded) continue;
                for (uint32_t i = 0; i < blocks_per_chunk; ++i) {
                    const Address address = version->table->entries[i].address;
                    if (!version->owns(i)) continue;
                    const bool second_owner = !found.mark_used(address);
                    if ((second_owner && !engine_->doubly_owned()) ||
                        !map.mapped().is_set(address)) {
                        report.damage.push_back(
                            {"bitmap",
                             fmt::format("block {} is not marked, or has two owners", address)});
                    }
                }
                co_await verify_blocks(*version, buffer.bytes(), report);
            }
        }
    }
    const uint64_t used = found.capacity_blocks() - found.free_blocks();
    const bool sum_fits = used == map.user_blocks() || engine_->doubly_owned();
    if (complete && (used != map.mapped().count() || !sum_fits)) {
        report.damage.push_back(
            {"bitmap", fmt::format("{} blocks are marked and {} counted, but tables refer to {}",
                                   map.mapped().count(), map.user_blocks(), used)});
    }
    co_return Status{};
}

Task<void> Inspector::verify_blocks(const ChunkVersion& version, MutableBytes buffer,
                                    VerifyReport& report) {
    const auto& entries = version.table->entries;
    for (uint32_t i = 0; i < blocks_per_chunk;) {
        uint32_t count = 0;  // neighbours that lie next to each other
        while (i + count < blocks_per_chunk && version.owns(i + count) &&
               entries[i + count].address == entries[i].address + count) {
            ++count;
        }
        if (count == 0) {
            ++i;
            continue;
        }
        const MutableBytes to = buffer.first(size_t{count} * block_bytes);
        const Status read =
            co_await engine_->disk().read(uint64_t{entries[i].address} * block_bytes, to);
        for (uint32_t k = 0; k < count; ++k) {
            const MutableBytes block = to.subspan(size_t{k} * block_bytes, block_bytes);
            if (read && crc32c(block) == entries[i + k].crc) continue;
            report.damage.push_back(
                {fmt::format("block {} of shard {} generation {}",
                             version.chunk * blocks_per_chunk + i + k, version.generation->id.shard,
                             version.generation->id.snap_seq),
                 read ? fmt::format("checksum mismatch at tray block {}",
                                    uint32_t{entries[i + k].address})
                      : "cannot be read"});
        }
        report.blocks += count;
        i += count;
    }
}

}  // namespace pf::tray

#include "tray/engine.hpp"

#include <algorithm>

#include "base/planted.hpp"
#include "tray/replay.hpp"

namespace pf::tray {

using runtime::Task;

Engine::Engine(std::unique_ptr<runtime::Disk> disk, MountOptions options, Superblock superblock)
    : disk_(std::move(disk)),
      options_(options),
      superblock_(superblock),
      map_(superblock_),
      cache_(map_, *disk_, superblock_, options.cache_bytes),
      allocator_(superblock.data_start, superblock.data_end),
      log_(*disk_, superblock_, *this),
      data_writer_(*disk_, &Engine::data_written),
      checkpointer_(*this),
      collector_(*this) {}

Engine::~Engine() = default;

Task<Status> Engine::mount() {
    Replay replay(*this, Replay::Purpose::mount);
    PF_CO_TRY(co_await replay.run());
    measure_state();
    // T1: the outcome of the replay becomes durable before anything is served.
    PF_CO_TRY(co_await checkpointer_.run_at_mount(replay.next_sequence(), replay.last_crc()));
    const LogWriter::Start start{root_.incarnation, root_.log_start, root_.log_previous,
                                 root_.number};
    auto& reactor = runtime::Reactor::current();
    log_.start(start,
               co_await reactor.buffers().allocate(LogWriter::buffer_count * size_t{block_bytes}));
    data_writer_.start();
    loops_ = options_.discard ? 3 : 2;
    reactor.spawn(checkpointer_.run_loop());
    reactor.spawn(collector_.run_loop());
    if (options_.discard) reactor.spawn(run_trimmer());
    // T9: a log block names the new root before anything the old one needs is given up.
    log_.request_block();
    while (!failed_ && log_.durable() < start.sequence) co_await advanced_.wait();
    release_held();
    collector_.kick();
    co_return Status{};
}

Task<Status> Engine::stop() {
    while ((operations_ > 0 || !log_.idle()) && !failed_) co_await advanced_.wait();
    // The loops end before the last checkpoint, and the log, which they need, after it.
    stopping_ = true;
    checkpointer_.wake();
    collector_.wake();
    trim_wake_.wake_all();
    constexpr runtime::Nanos poll = 100 * runtime::microseconds;
    while (loops_ > 0) co_await runtime::sleep_for(poll);
    Status result = fail(Errc::io_error);
    if (!failed_) result = co_await checkpointer_.run_last();
    log_.request_stop();
    data_writer_.request_stop();
    while (!log_.stopped() || !data_writer_.stopped()) co_await runtime::sleep_for(poll);
    co_return result;
}

Task<Status> Engine::checkpoint() {
    return checkpointer_.run(false);
}

uint64_t Engine::slack_blocks() const {
    return std::clamp<uint64_t>(allocator_.capacity_blocks() / 1024, 32, 4096);
}

uint64_t Engine::metadata_need() const {
    const Directory& directory = map_.directory();
    return directory.dirty_tables() + directory.dirty_pages() + map_.mapped().stored_blocks() +
           state_blocks();
}

uint64_t Engine::metadata_of_all() const {
    const Directory& directory = map_.directory();
    return directory.versions() + directory.page_count() + map_.mapped().stored_blocks() +
           state_blocks();
}

bool Engine::has_room(uint64_t blocks, uint64_t kept) const {
    // Twice: what is stored, and the copy that the next checkpoint makes of all of it. So the limit
    // does not depend on how much is dirty, and a full tray stays full.
    const bool nothing_kept = planted("checkpoint_room_not_kept");
    const uint64_t metadata = nothing_kept ? 0 : 2 * metadata_of_all() + kept;
    const uint64_t taken =
        map_.user_blocks() + blocks_in_flight_ + reserved_ + held_.collected_blocks() + metadata;
    return taken + blocks <= allocator_.capacity_blocks();
}

// T8: the slack is for what makes a full tray go on. What takes no room in the end (discards, zeros
// and overwrites where a table is) leaves an eighth of it, which writes in flight never take from
// control calls; sessions leave a quarter, so that who comes to discard can open, and discard;
// whatever grows the tables or the state for good leaves half.
uint64_t Engine::kept_from(const Shard& shard, uint32_t block, uint32_t count,
                           WriteKind kind) const {
    if (kind == WriteKind::data && !map_.owns_all(*shard.head, block, count)) return slack_blocks();
    return makes_table(shard, block, kind) ? slack_blocks() / 2 : slack_blocks() / 8;
}

uint64_t Engine::kept_from(const Record& record) const {
    return std::holds_alternative<SessionRecord>(record) ? slack_blocks() / 4 : slack_blocks() / 2;
}

// What grows within the blocks that the state has anyway is always taken.
bool Engine::has_room_to_grow(const Record& record, uint64_t state_bytes) {
    const auto fits = [&] {
        const uint64_t blocks = state_growth_blocks(state_bytes + growth_of(record));
        const uint64_t in_the_end =
            map_.user_blocks() + held_.collected_blocks() + 2 * (metadata_of_all() + blocks);
        return blocks == 0 || (has_room(2 * blocks, 0) &&
                               in_the_end + kept_from(record) <= allocator_.capacity_blocks());
    };
    return fits() || (measure_again() && fits());
}

// The collector works on blocks that were deleted, and a checkpoint gives back what it freed.
Task<bool> Engine::freed_room() {
    const uint64_t before = rooms_given_back_;
    bool requested = false;
    bool waited = false;
    while (!failed_ && rooms_given_back_ == before &&
           (held_.collected_blocks() > 0 || !collector_.idle())) {
        if (held_.collected_blocks() > 0 && !std::exchange(requested, true))
            checkpointer_.request();
        co_await advanced_.wait();
        waited = true;
    }
    co_return waited && !failed_;
}

bool Engine::name_is_leaving(ShardId id) {
    const Shard* shard = map_.find_any(id);
    return dropped_shards_.contains(id) ||
           (shard != nullptr && shard->deleted && !collector_.idle());
}

Task<void> Engine::wait_for_name(ShardId id) {
    if (planted("reuse_name_too_early")) co_return;
    uint64_t asked_after = UINT64_MAX;
    while (!failed_ && name_is_leaving(id)) {
        const uint64_t given_back = rooms_given_back_;
        if (dropped_shards_.contains(id) && std::exchange(asked_after, given_back) != given_back)
            checkpointer_.request();
        co_await advanced_.wait();
    }
}

bool Engine::has_free_blocks(uint64_t blocks) const {
    return allocator_.free_blocks() >= blocks + metadata_need() + metadata_in_flight_;
}

Task<void> Engine::more_free_blocks() {
    log_.request_watermarks();
    if (held_.blocks() + trimming_blocks_ == 0) checkpointer_.request();
    co_await advanced_.wait();
}

uint64_t Engine::max_tables() const {
    // Eight generations' tables for each mapped chunk; about 250 bytes of memory for each.
    constexpr uint64_t least = 65536;
    return options_.max_tables != 0 ? options_.max_tables
                                    : std::max(allocator_.capacity_blocks() / 64, least);
}

Task<Status> Engine::load(ChunkVersion& version) {
    ++operations_;
    Status loaded = co_await cache_.load(version);
    end_operation();
    co_return loaded;
}

// Not while records are between the map and the sum.
bool Engine::measure_again() {
    if (!state_shrank_ || growing_bytes_ > 0) return false;
    measure_state();
    return true;
}

void Engine::measure_state() {
    state_bytes_ = 0;
    state_shrank_ = false;
    for (const auto& [id, shard] : map_.shards()) {
        state_bytes_ += shard_state_bytes + shard->generations.size() * generation_state_bytes +
                        shard->sessions.all().size() * session_state_bytes;
    }
}

// Records never span blocks, so a block may have less than the longest of them left.
uint64_t Engine::state_blocks() const {
    const uint64_t pages = map_.directory().page_count();
    return (state_bytes_ + growing_bytes_) / state_block_bytes + pages / links_per_index_block + 3;
}

uint64_t Engine::state_growth_blocks(uint64_t bytes) const {
    const uint64_t before = state_bytes_ + growing_bytes_;
    return (before + bytes) / state_block_bytes - before / state_block_bytes;
}

void Engine::give_back(Extent extent) {
    // A block with another owner (T7) must not be trimmed. And a trim is a hint: where a device is
    // slower with it than the writes are, blocks go without.
    const bool trim = trims() && !stopping_ && allocator_.shared_blocks() == 0 &&
                      trim_queue_.size() < max_trims_waiting;
    if (!trim) {
        allocator_.free(extent.start, extent.count);
        return;
    }
    trimming_blocks_ += extent.count;
    trim_queue_.push_back(extent);
    trim_wake_.wake_one();
}

// T3: after a device trim a block may be used again only once the trim has completed.
Task<void> Engine::run_trimmer() {
    std::vector<Extent> batch;
    while (!stopping_) {
        if (trim_queue_.empty()) {
            co_await trim_wake_.wait();
            continue;
        }
        batch.swap(trim_queue_);
        for (const Extent& extent : batch) {
            if (failed_) break;
            const bool too_early = planted("reuse_block_during_trim");
            if (too_early) end_trim(extent);
            if (!stopping_) co_await trim(extent);
            if (!too_early) end_trim(extent);
        }
        batch.clear();
    }
    for (const Extent& extent : trim_queue_) end_trim(extent);
    trim_queue_.clear();
    --loops_;
}

// A trim that is refused costs nothing but the hint.
Task<void> Engine::trim(Extent extent) {
    const Status done = co_await disk_->discard(uint64_t{extent.start} * block_bytes,
                                                uint64_t{extent.count} * block_bytes);
    if (done) ++counters_.discards;
}

void Engine::end_trim(Extent extent) {
    trimming_blocks_ -= extent.count;
    allocator_.free(extent.start, extent.count);
    advanced_.wake_all();
}

void Engine::release_held() {
    held_.release(log_.recorded(), [this](Extent extent) { give_back(extent); });
}

void Engine::log_advanced() {
    release_held();
    advanced_.wake_all();
}

void Engine::log_failed() {
    failed_ = true;
    advanced_.wake_all();
    checkpointer_.wake();
    collector_.wake();
    trim_wake_.wake_all();
}

void Engine::log_grew() {
    if (log_.used_blocks() * 2 > superblock_.log_blocks) checkpointer_.request();
}

uint32_t Engine::append_commit_marks(MutableBytes room) {
    uint32_t used = 0;
    while (!marks_due_.empty() && used + sizeof(CommitRecordFormat) <= room.size()) {
        Shard* shard = map_.find_any(marks_due_.back());
        marks_due_.pop_back();
        if (shard == nullptr) continue;  // deleted meanwhile
        shard->commit_mark_due = false;
        CommitRecord record;
        record.shard = shard->state.shard;
        record.position = shard->committed;
        used += encode_record(record, room.subspan(used));
    }
    return used;
}

Usage Engine::usage() const {
    Usage usage;
    usage.capacity_blocks = allocator_.capacity_blocks();
    usage.free_blocks = allocator_.free_blocks();
    usage.user_blocks = map_.user_blocks();
    usage.metadata_blocks = metadata_blocks_;
    usage.held_blocks = held_.blocks() + held_.checkpoint_blocks() + trimming_blocks_;
    usage.reserve_blocks = metadata_of_all() + slack_blocks();
    usage.tables = map_.directory().versions();
    usage.resident_tables = map_.tables().in_use();
    usage.old_tables = cache_.old_tables();
    usage.log_bytes = uint64_t{superblock_.log_blocks} * block_bytes;
    usage.log_used_bytes = log_.used_blocks() * block_bytes;
    return usage;
}

Counters Engine::counters() const {
    Counters counters = counters_;
    counters.log_blocks = log_.blocks_written();
    counters.flushes = log_.flushes();
    counters.checkpoints = checkpointer_.completed();
    counters.table_loads = cache_.loads();
    counters.checkpoint_ns = checkpointer_.busy();
    return counters;
}

}  // namespace pf::tray

#include "tray/engine.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/planted.hpp"
#include "tray/replay.hpp"

namespace pf::tray {

using runtime::Task;

// A control record on its way; applied by the log the moment it is durable, so that the cut of a
// checkpoint finds it applied (T4).
struct Engine::ControlItem : LogItem {
    Engine* engine = nullptr;
    Record record;
    bool finished = false;
    bool ok = false;
    Status applied;
    std::coroutine_handle<> waiter;

    bool await_ready() const noexcept { return finished; }
    void await_suspend(std::coroutine_handle<> handle) { waiter = handle; }
    void await_resume() const noexcept {}
};

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
    estimate_state_blocks();
    // T1: the outcome of the replay becomes durable before anything is served.
    PF_CO_TRY(co_await checkpointer_.run_at_mount(replay.next_sequence(), replay.last_crc()));
    const LogWriter::Start start{root_.incarnation, root_.log_start, root_.log_previous,
                                 root_.number};
    log_.start(start);
    data_writer_.start();
    log_.request_block();  // names the new root (T9)
    auto& reactor = runtime::Reactor::current();
    loops_ = options_.discard ? 3 : 2;
    reactor.spawn(checkpointer_.run_loop());
    reactor.spawn(collector_.run_loop());
    if (options_.discard) reactor.spawn(run_trimmer());
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

Task<Status> Engine::log_control(Record record) {
    if (failed_) co_return fail(Errc::io_error);
    ControlItem item;
    item.engine = this;
    item.record = record;
    std::visit(
        [&](const auto& value) {
            using Kind = std::decay_t<decltype(value)>;
            if constexpr (std::is_same_v<Kind, ShardRecord>) item.bytes = sizeof(ShardRecordFormat);
            if constexpr (std::is_same_v<Kind, GenerationRecord>) {
                item.bytes = sizeof(GenerationRecordFormat);
            }
            if constexpr (std::is_same_v<Kind, SessionRecord>) {
                item.bytes = sizeof(SessionRecordFormat);
            }
        },
        record);
    item.encode = [](LogItem& self, MutableBytes to) {
        return std::visit([&](const auto& value) { return encode_record(value, to); },
                          static_cast<ControlItem&>(self).record);
    };
    item.completed = [](LogItem& self, bool ok) {
        auto& control = static_cast<ControlItem&>(self);
        control.finished = true;
        control.ok = ok;
        if (ok) control.applied = apply_control(control.engine->map_, control.record);
        if (control.waiter) runtime::schedule(control.waiter);
    };
    ++operations_;
    log_.submit(item, LogRank::control);
    co_await item;
    end_operation();
    if (!item.ok) co_return fail(Errc::io_error);
    estimate_state_blocks();
    co_return std::move(item.applied);
}

// Live, the callers have checked; a replay around a loss (T7) finds records whose ground is gone.
Status apply_control(Map& map, const Record& record) {
    const auto is_head = [](const Generation& generation) {
        return generation.shard->head == &generation;
    };
    const auto misfit = [](std::string_view what) {
        return fail(Errc::corrupt, fmt::format("log record does not fit: {}", what));
    };
    if (const auto* session = std::get_if<SessionRecord>(&record)) {
        Shard* shard = map.find_any(session->shard);
        if (shard == nullptr) return misfit("session of an unknown shard");
        if (session->type == RecordType::open_session) {
            if (!shard->sessions.open(session->request.session)) return misfit("session limit");
        } else if (session->type == RecordType::close_session) {
            shard->sessions.close(session->request.session);
        } else {
            shard->sessions.mark_voided(session->request);
        }
        return {};
    }
    if (const auto* change = std::get_if<ShardRecord>(&record)) {
        Shard* shard = map.find_any(change->state.shard);
        if (change->type == RecordType::create_shard) {
            if (shard != nullptr) return misfit("shard exists");
            Generation* parent = map.find_generation(change->parent);
            if (parent == nullptr && change->parent.shard != 0) return misfit("unknown parent");
            if (parent != nullptr && is_head(*parent)) return misfit("the parent is a head");
            map.create_shard(change->state, parent);
            return {};
        }
        if (shard == nullptr || shard->deleted) return misfit("unknown shard");
        if (change->type == RecordType::delete_shard) {
            map.mark_shard_deleted(*shard);
            return {};
        }
        if (change->type == RecordType::accept_loss) {
            shard->state.damaged = false;
            return {};
        }
        const SnapSeq head = shard->state.snap_seq;
        const bool damaged = shard->state.damaged;
        shard->state = change->state;
        shard->state.snap_seq = head;
        shard->state.damaged = damaged;
        return {};
    }
    if (const auto* change = std::get_if<GenerationRecord>(&record)) {
        if (change->type == RecordType::delete_generation) {
            Generation* generation = map.find_generation(change->id);
            if (generation == nullptr) return misfit("unknown generation");
            if (is_head(*generation)) return misfit("the generation is a head");
            generation->deleted = true;
            return {};
        }
        Shard* shard = map.find_any(change->id.shard);
        Generation* parent = map.find_generation(change->parent);
        if (shard == nullptr || parent == nullptr) return misfit("unknown parent");
        if (map.find_generation(change->id) != nullptr) return misfit("generation exists");
        const bool follows = change->make_head && parent->shard == shard;
        if (is_head(*parent) && !follows) return misfit("the parent is a head");
        Generation& made = map.create_generation(*shard, change->id.snap_seq, parent);
        if (change->make_head) map.make_head(*shard, made);
        return {};
    }
    return misfit("type");
}

Status Engine::check_new_generation(GenerationId id, GenerationId parent, bool make_head) const {
    auto& map = const_cast<Map&>(map_);
    const Generation* from = map.find_generation(parent);
    if (from == nullptr || from->deleted) {
        return fail(Errc::not_found, fmt::format("parent generation {}@{} does not exist",
                                                 parent.shard, parent.snap_seq));
    }
    if (from->shard->state.damaged) return fail(Errc::data_lost);
    const bool from_head = from->shard->head == from;
    if (from_head && (parent.shard != id.shard || !make_head)) {
        return fail(Errc::invalid_argument,
                    fmt::format("parent {}@{} is still being written: snapshot it first",
                                parent.shard, parent.snap_seq));
    }
    return {};
}

Task<Status> Engine::create_shard(ShardState state, GenerationId parent) {
    co_await control_.lock();
    Status result;
    if (state.shard == 0 || state.snap_seq == 0 || state.blocks == 0 ||
        state.blocks > max_shard_blocks) {
        result = fail(Errc::invalid_argument,
                      "a shard needs a non-zero name and snap_seq and 1 to 2^24 blocks");
    } else if (map_.find_any(state.shard) != nullptr) {
        result = fail(Errc::already_exists, fmt::format("shard {} exists", state.shard));
    } else if (parent.shard != 0) {
        result = check_new_generation({state.shard, state.snap_seq}, parent, true);
    }
    if (result) {
        ShardRecord record;
        record.type = RecordType::create_shard;
        record.state = state;
        record.parent = parent;
        result = co_await log_control(record);
    }
    control_.unlock();
    co_return result;
}

Task<Status> Engine::set_shard_state(ShardState state) {
    co_await control_.lock();
    Status result;
    const Shard* shard = map_.find(state.shard);
    if (shard == nullptr) {
        result = fail(Errc::not_found, fmt::format("shard {} does not exist", state.shard));
    } else if (state.epoch < shard->state.epoch) {
        result = fail(Errc::stale_epoch,
                      fmt::format("epoch {} is older than {}", state.epoch, shard->state.epoch));
    } else if (state.blocks < shard->state.blocks || state.blocks > max_shard_blocks) {
        result = fail(Errc::invalid_argument,
                      fmt::format("a shard of {} blocks cannot become {}: it may only grow, to "
                                  "2^24 at most",
                                  shard->state.blocks, state.blocks));
    }
    if (result) {
        ShardRecord record;
        record.type = RecordType::set_shard;
        record.state = state;
        record.state.snap_seq = shard->state.snap_seq;
        result = co_await log_control(record);
    }
    control_.unlock();
    co_return result;
}

Task<Status> Engine::delete_shard(ShardId id) {
    co_await control_.lock();
    Status result;
    if (map_.find(id) == nullptr) {
        result = fail(Errc::not_found, fmt::format("shard {} does not exist", id));
    } else {
        ShardRecord record;
        record.type = RecordType::delete_shard;
        record.state.shard = id;
        result = co_await log_control(record);
    }
    control_.unlock();
    collector_.kick();
    co_return result;
}

// T7: the operator takes what is there. What the shard remembered of its clients went at the mount
// that marked it, so no request from before the loss is answered wrongly or run twice (R8).
Task<Status> Engine::accept_loss(ShardId id) {
    co_await control_.lock();
    Status result;
    const Shard* shard = map_.find(id);
    if (shard == nullptr) {
        result = fail(Errc::not_found, fmt::format("shard {} does not exist", id));
    } else if (shard->state.damaged) {
        ShardRecord record;
        record.type = RecordType::accept_loss;
        record.state.shard = id;
        result = co_await log_control(record);
    }
    control_.unlock();
    co_return result;
}

Task<Status> Engine::create_generation(GenerationId id, GenerationId parent, bool make_head) {
    co_await control_.lock();
    Status result;
    const Shard* shard = map_.find(id.shard);
    if (shard == nullptr) {
        result = fail(Errc::not_found, fmt::format("shard {} does not exist", id.shard));
    } else if (id.snap_seq <= shard->highest_snap_seq) {
        result =
            fail(Errc::already_exists, fmt::format("snap_seq {} was used: the next is above {}",
                                                   id.snap_seq, shard->highest_snap_seq));
    } else if (shard->generations.size() >= Map::max_generations_per_shard) {
        result =
            fail(Errc::resource_exhausted, fmt::format("shard {} has {} generations, the limit",
                                                       id.shard, Map::max_generations_per_shard));
    } else {
        result = check_new_generation(id, parent, make_head);
    }
    if (result) {
        GenerationRecord record;
        record.id = id;
        record.parent = parent;
        record.make_head = make_head;
        result = co_await log_control(record);
    }
    control_.unlock();
    if (map_.heads_changed()) collector_.kick();  // a rollback: tables became old ones
    co_return result;
}

Task<Status> Engine::delete_generation(GenerationId id) {
    co_await control_.lock();
    Status result;
    const Generation* generation = map_.find_generation(id);
    if (generation == nullptr || generation->deleted) {
        result = fail(Errc::not_found,
                      fmt::format("generation {}@{} does not exist", id.shard, id.snap_seq));
    } else if (generation->shard->head == generation) {
        result =
            fail(Errc::busy, fmt::format("generation {}@{} is the head", id.shard, id.snap_seq));
    } else {
        GenerationRecord record;
        record.type = RecordType::delete_generation;
        record.id = id;
        result = co_await log_control(record);
    }
    control_.unlock();
    collector_.kick();
    co_return result;
}

Task<Status> Engine::open_session(ShardId id, uint64_t session) {
    co_await control_.lock();
    Status result;
    const Shard* shard = map_.find(id);
    if (shard == nullptr) {
        result = fail(Errc::not_found, fmt::format("shard {} does not exist", id));
    } else if (session == 0) {
        result = fail(Errc::invalid_argument, "session 0 is reserved");
    } else if (shard->sessions.find(session) == nullptr) {
        if (shard->sessions.all().size() >= session_limit) {
            result = fail(Errc::resource_exhausted,
                          fmt::format("shard {} has {} sessions, the limit", id, session_limit));
        } else {
            SessionRecord record;
            record.shard = id;
            record.request.session = session;
            result = co_await log_control(record);
        }
    }
    control_.unlock();
    co_return result;
}

Task<Status> Engine::close_session(ShardId id, uint64_t session) {
    co_await control_.lock();
    Status result;
    const Shard* shard = map_.find(id);
    if (shard == nullptr) {
        result = fail(Errc::not_found, fmt::format("shard {} does not exist", id));
    } else if (shard->sessions.find(session) != nullptr) {
        SessionRecord record;
        record.type = RecordType::close_session;
        record.shard = id;
        record.request.session = session;
        result = co_await log_control(record);
    }
    control_.unlock();
    co_return result;
}

Task<Status> Engine::void_request(ShardId id, RequestName request) {
    co_await control_.lock();
    Status result;
    const Shard* shard = map_.find(id);
    if (shard == nullptr) {
        result = fail(Errc::not_found, fmt::format("shard {} does not exist", id));
    } else if (shard->sessions.find(request.session) == nullptr) {
        result = fail(Errc::unknown_session);
    } else {
        SessionRecord record;
        record.type = RecordType::void_request;
        record.shard = id;
        record.request = request;
        result = co_await log_control(record);
    }
    control_.unlock();
    co_return result;
}

Task<Status> Engine::checkpoint() {
    return checkpointer_.run(false);
}

// --- space ---

uint64_t Engine::slack_blocks() const {
    return std::clamp<uint64_t>(allocator_.capacity_blocks() / 1024, 32, 4096);
}

uint64_t Engine::metadata_need() const {
    const Directory& directory = map_.directory();
    return directory.dirty_tables() + directory.dirty_pages() + map_.mapped().stored_blocks() +
           state_blocks_;
}

uint64_t Engine::metadata_of_all() const {
    const Directory& directory = map_.directory();
    return directory.versions() + directory.page_count() + map_.mapped().stored_blocks() +
           state_blocks_;
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

void Engine::estimate_state_blocks() {
    uint64_t bytes = 0;
    for (const auto& [id, shard] : map_.shards()) {
        bytes += 128 + shard->generations.size() * 40 + shard->sessions.all().size() * 288;
    }
    const uint64_t pages = map_.directory().page_count();
    state_blocks_ = bytes / (meta_payload_bytes - 288) + pages / links_per_index_block + 3;
}

void Engine::give_back(Extent extent) {
    // A block with another owner (T7) must not be trimmed.
    if (!options_.discard || stopping_ || allocator_.shared_blocks() > 0) {
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
            const Status done = co_await disk_->discard(uint64_t{extent.start} * block_bytes,
                                                        uint64_t{extent.count} * block_bytes);
            if (done) ++counters_.discards;  // a refused trim costs nothing but the hint
            trimming_blocks_ -= extent.count;
            allocator_.free(extent.start, extent.count);
        }
        batch.clear();
        advanced_.wake_all();
    }
    --loops_;
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
    counters.flushes += log_.flushes();
    counters.checkpoints = checkpointer_.completed();
    counters.table_loads = cache_.loads();
    counters.checkpoint_ns = checkpointer_.busy();
    return counters;
}

}  // namespace pf::tray

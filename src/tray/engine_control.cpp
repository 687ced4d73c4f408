// Control: shards, generations, sessions. Each call checks, logs one record, and is applied when
// that is durable; one at a time.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>

#include "tray/engine.hpp"

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

    void start(Engine& owner, const Record& what);
    [[nodiscard]] Status end();

    bool await_ready() const noexcept { return finished; }
    void await_suspend(std::coroutine_handle<> handle) { waiter = handle; }
    void await_resume() const noexcept {}
};

uint64_t Engine::growth_of(const Record& record) {
    if (const auto* shard = std::get_if<ShardRecord>(&record)) {
        const bool made = shard->type == RecordType::create_shard;
        return made ? shard_state_bytes + generation_state_bytes : 0;
    }
    if (const auto* session = std::get_if<SessionRecord>(&record))
        return session->type == RecordType::open_session ? session_state_bytes : 0;
    // What is being deleted stays in the state, as large as it was, until the collector has freed
    // it.
    const auto& generation = std::get<GenerationRecord>(record);
    return generation.type == RecordType::delete_generation ? 0 : generation_state_bytes;
}

void Engine::ControlItem::start(Engine& owner, const Record& what) {
    engine = &owner;
    record = what;
    std::visit(
        [this](const auto& value) {
            using Kind = std::decay_t<decltype(value)>;
            if constexpr (std::is_same_v<Kind, ShardRecord>) bytes = sizeof(ShardRecordFormat);
            if constexpr (std::is_same_v<Kind, GenerationRecord>) {
                bytes = sizeof(GenerationRecordFormat);
            }
            if constexpr (std::is_same_v<Kind, SessionRecord>) bytes = sizeof(SessionRecordFormat);
        },
        record);
    encode = [](LogItem& self, MutableBytes to) {
        return std::visit([&](const auto& value) { return encode_record(value, to); },
                          static_cast<ControlItem&>(self).record);
    };
    completed = [](LogItem& self, bool durable) {
        auto& control = static_cast<ControlItem&>(self);
        control.finished = true;
        control.ok = durable;
        if (durable) control.applied = apply_control(control.engine->map_, control.record);
        if (control.waiter) runtime::schedule(control.waiter);
    };
    ++engine->operations_;
    engine->growing_bytes_ += growth_of(record);
    engine->log_.submit(*this, LogRank::control);
}

// After it was awaited.
Status Engine::ControlItem::end() {
    engine->end_operation();
    engine->growing_bytes_ -= growth_of(record);
    if (!ok) return fail(Errc::io_error);
    engine->state_bytes_ += growth_of(record);
    const auto* session = std::get_if<SessionRecord>(&record);
    if (session != nullptr && session->type == RecordType::close_session)
        engine->state_shrank_ = true;
    return std::move(applied);
}

Task<Status> Engine::log_control(Record record) {
    if (failed_) co_return fail(Errc::io_error);
    ControlItem item;
    item.start(*this, record);
    co_await item;
    co_return item.end();
}

Task<std::vector<Status>> Engine::log_together(std::vector<Record> records) {
    std::vector<Status> done(records.size(), fail(Errc::io_error));
    if (failed_) co_return done;
    std::vector<ControlItem> items(records.size());
    for (size_t i = 0; i < records.size(); ++i) items[i].start(*this, records[i]);
    for (size_t i = 0; i < records.size(); ++i) {
        ControlItem& item = items[i];
        co_await item;
        done[i] = item.end();
    }
    co_return done;
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
            map.mark_deleted(*generation);
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

namespace {

// What a call logs; nothing if it is done already.
using Decision = Result<std::optional<Record>>;

std::unexpected<Error> no_such_shard(ShardId id) {
    return fail(Errc::not_found, fmt::format("shard {} does not exist", id));
}

}  // namespace

template <class Decide>
Task<Status> Engine::control(const Decide& decide) {
    ++operations_;
    co_await control_.lock();
    Status result = co_await decide_and_log(decide);
    control_.unlock();
    end_operation();
    co_return result;
}

template <class Decide>
Task<Status> Engine::decide_and_log(const Decide& decide) {
    for (uint32_t waits = 0;;) {
        PF_CO_TRY_ASSIGN(const std::optional<Record> record, decide());
        if (!record) co_return Status{};
        const uint64_t blocks = state_growth_blocks(growth_of(*record));
        if (!has_room_to_grow(*record)) {
            if (waits++ == max_waits_for_room || !co_await freed_room())
                co_return fail(failed_ ? Errc::io_error : Errc::no_space);
        } else if (blocks > 0 && !failed_ && !has_free_blocks(blocks)) {
            co_await more_free_blocks();
        } else {
            co_return co_await log_control(*record);
        }
    }
}

Result<Record> Engine::record_of_new_shard(const ShardState& state, GenerationId parent) {
    if (state.shard == 0 || state.snap_seq == 0 || state.blocks == 0 ||
        state.blocks > max_shard_blocks) {
        return fail(Errc::invalid_argument,
                    "a shard needs a non-zero name and snap_seq and 1 to 2^24 blocks");
    }
    if (map_.find_any(state.shard) != nullptr)
        return fail(Errc::already_exists, fmt::format("shard {} exists", state.shard));
    if (parent.shard != 0) {
        PF_TRY(check_new_generation({state.shard, state.snap_seq}, parent, true));
        if (state.blocks < map_.find_any(parent.shard)->state.blocks)
            return fail(Errc::invalid_argument, "a clone is at least as large as its parent");
    }
    ShardRecord record;
    record.type = RecordType::create_shard;
    record.state = state;
    record.parent = parent;
    return record;
}

Task<Status> Engine::create_shard(ShardState state, GenerationId parent) {
    const auto decide = [&]() -> Decision { return record_of_new_shard(state, parent); };
    ++operations_;
    co_await control_.lock();
    co_await wait_for_name(state.shard);  // under the lock: nobody deletes it once more
    Status result = co_await decide_and_log(decide);
    control_.unlock();
    end_operation();
    co_return result;
}

Task<std::vector<Status>> Engine::create_shards(std::vector<ShardState> states) {
    std::vector<Status> done(states.size());
    std::set<ShardId> named;
    uint32_t waits = 0;
    ++operations_;
    co_await control_.lock();
    for (size_t begin = 0; begin < states.size(); begin += records_together) {
        std::vector<Record> records;
        std::vector<size_t> places;
        uint64_t growth = 0;
        for (size_t i = begin; i < std::min(states.size(), begin + records_together); ++i) {
            co_await wait_for_name(states[i].shard);
            Result<Record> record = record_of_new_shard(states[i], {});
            if (record && !named.insert(states[i].shard).second)
                record = fail(Errc::already_exists);
            while (record && !has_room_to_grow(*record, growth)) {
                if (waits++ == max_waits_for_room || !co_await freed_room())
                    record = fail(failed_ ? Errc::io_error : Errc::no_space);
            }
            if (!record) {
                done[i] = std::unexpected<Error>(std::move(record).error());
                continue;
            }
            growth += growth_of(*record);
            records.push_back(*record);
            places.push_back(i);
        }
        while (!failed_ && state_growth_blocks(growth) > 0 &&
               !has_free_blocks(state_growth_blocks(growth))) {
            co_await more_free_blocks();
        }
        std::vector<Status> logged = co_await log_together(std::move(records));
        for (size_t i = 0; i < places.size(); ++i) done[places[i]] = std::move(logged[i]);
    }
    control_.unlock();
    end_operation();
    co_return done;
}

Task<Status> Engine::set_shard_state(ShardState state) {
    const auto decide = [&]() -> Decision {
        const Shard* shard = map_.find(state.shard);
        if (shard == nullptr) return no_such_shard(state.shard);
        if (state.epoch < shard->state.epoch) {
            return fail(Errc::stale_epoch,
                        fmt::format("epoch {} is older than {}", state.epoch, shard->state.epoch));
        }
        if (state.blocks < shard->state.blocks || state.blocks > max_shard_blocks) {
            return fail(Errc::invalid_argument,
                        fmt::format("a shard of {} blocks cannot become {}: it may only grow, to "
                                    "2^24 at most",
                                    shard->state.blocks, state.blocks));
        }
        ShardRecord record;
        record.type = RecordType::set_shard;
        record.state = state;
        record.state.snap_seq = shard->state.snap_seq;
        return record;
    };
    co_return co_await control(decide);
}

Task<Status> Engine::delete_shards(std::vector<ShardId> ids) {
    std::ranges::sort(ids);
    ids.erase(std::ranges::unique(ids).begin(), ids.end());
    co_await control_.lock();
    Status result;
    for (size_t begin = 0; result && begin < ids.size(); begin += records_together) {
        std::vector<Record> records;
        for (size_t i = begin; i < std::min(ids.size(), begin + records_together); ++i) {
            if (map_.find(ids[i]) == nullptr) continue;
            ShardRecord record;
            record.type = RecordType::delete_shard;
            record.state.shard = ids[i];
            records.emplace_back(record);
        }
        std::vector<Status> logged = co_await log_together(std::move(records));
        for (Status& each : logged) {
            if (result && !each) result = std::move(each);
        }
    }
    control_.unlock();
    collector_.kick();
    co_return result;
}

// T7: the operator takes what is there. What the shard remembered of its clients went at the mount
// that marked it, so no request from before the loss is answered wrongly or run twice (R8).
Task<Status> Engine::accept_loss(ShardId id) {
    const auto decide = [&]() -> Decision {
        const Shard* shard = map_.find(id);
        if (shard == nullptr) return no_such_shard(id);
        if (!shard->state.damaged) return std::nullopt;
        ShardRecord record;
        record.type = RecordType::accept_loss;
        record.state.shard = id;
        return record;
    };
    co_return co_await control(decide);
}

Task<Status> Engine::create_generation(GenerationId id, GenerationId parent, bool make_head) {
    const auto decide = [&]() -> Decision {
        const Shard* shard = map_.find(id.shard);
        if (shard == nullptr) return no_such_shard(id.shard);
        if (id.snap_seq <= shard->highest_snap_seq) {
            return fail(Errc::already_exists,
                        fmt::format("snap_seq {} was used: the next is above {}", id.snap_seq,
                                    shard->highest_snap_seq));
        }
        if (shard->generations.size() >= Map::max_generations_per_shard) {
            return fail(Errc::resource_exhausted,
                        fmt::format("shard {} has {} generations, the limit", id.shard,
                                    Map::max_generations_per_shard));
        }
        PF_TRY(check_new_generation(id, parent, make_head));
        GenerationRecord record;
        record.id = id;
        record.parent = parent;
        record.make_head = make_head;
        return record;
    };
    Status result = co_await control(decide);
    if (map_.heads_changed()) collector_.kick();  // a rollback: tables became old ones
    co_return result;
}

Task<Status> Engine::delete_generation(GenerationId id) {
    const auto decide = [&]() -> Decision {
        const Generation* generation = map_.find_generation(id);
        if (generation == nullptr || generation->deleted) {
            return fail(Errc::not_found,
                        fmt::format("generation {}@{} does not exist", id.shard, id.snap_seq));
        }
        if (generation->shard->head == generation) {
            return fail(Errc::busy,
                        fmt::format("generation {}@{} is the head", id.shard, id.snap_seq));
        }
        GenerationRecord record;
        record.type = RecordType::delete_generation;
        record.id = id;
        return record;
    };
    Status result = co_await control(decide);
    collector_.kick();
    co_return result;
}

Task<Status> Engine::open_session(ShardId id, uint64_t session) {
    const auto decide = [&]() -> Decision {
        const Shard* shard = map_.find(id);
        if (shard == nullptr) return no_such_shard(id);
        if (session == 0) return fail(Errc::invalid_argument, "session 0 is reserved");
        if (shard->sessions.find(session) != nullptr) return std::nullopt;
        if (shard->sessions.all().size() >= session_limit) {
            return fail(Errc::resource_exhausted,
                        fmt::format("shard {} has {} sessions, the limit", id, session_limit));
        }
        SessionRecord record;
        record.shard = id;
        record.request.session = session;
        return record;
    };
    co_return co_await control(decide);
}

Task<Status> Engine::close_session(ShardId id, uint64_t session) {
    const auto decide = [&]() -> Decision {
        const Shard* shard = map_.find(id);
        if (shard == nullptr) return no_such_shard(id);
        if (shard->sessions.find(session) == nullptr) return std::nullopt;
        SessionRecord record;
        record.type = RecordType::close_session;
        record.shard = id;
        record.request.session = session;
        return record;
    };
    co_return co_await control(decide);
}

Task<Status> Engine::void_request(ShardId id, RequestName request) {
    const auto decide = [&]() -> Decision {
        const Shard* shard = map_.find(id);
        if (shard == nullptr) return no_such_shard(id);
        if (shard->sessions.find(request.session) == nullptr) return fail(Errc::unknown_session);
        // R8: the mark would be dropped.
        if (!Sessions::in_window(request)) return fail(Errc::resource_exhausted);
        SessionRecord record;
        record.type = RecordType::void_request;
        record.shard = id;
        record.request = request;
        return record;
    };
    co_return co_await control(decide);
}

}  // namespace pf::tray

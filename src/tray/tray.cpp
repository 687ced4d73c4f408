// The facade, and the way to a mounted engine.
#include "tray/tray.hpp"

#include <fmt/format.h>

#include "tray/engine.hpp"
#include "tray/root_reader.hpp"
#include "tray/superblock.hpp"

namespace pf::tray {

using runtime::Task;

Reservation::Reservation(Reservation&& other) noexcept
    : engine_(std::exchange(other.engine_, nullptr)), blocks_(std::exchange(other.blocks_, 0)) {}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
    std::swap(engine_, other.engine_);
    std::swap(blocks_, other.blocks_);
    return *this;
}

Reservation::~Reservation() {
    if (engine_ != nullptr) engine_->release_reservation(blocks_);
}

Tray::Tray(std::unique_ptr<Engine> engine) : engine_(std::move(engine)) {}
Tray::~Tray() = default;

Task<Status> Tray::format(runtime::Disk& disk, FormatOptions options) {
    return format_tray(disk, options);
}

Task<Result<std::unique_ptr<Tray>>> Tray::mount(std::unique_ptr<runtime::Disk> disk,
                                                MountOptions options) {
    SuperblockReader reader(*disk);
    PF_CO_TRY_ASSIGN(const Superblock superblock, co_await reader.read());
    if (superblock.cluster != options.cluster) {
        co_return fail(Errc::conflict,
                       fmt::format("{}: the tray belongs to cluster {}, not to {}", disk->name(),
                                   superblock.cluster.text(), options.cluster.text()));
    }
    // Roots of another version refuse the tray, too, and that comes before anything is written.
    std::vector<std::string> said_again_by_the_replay;
    RootReader roots(*disk, superblock);
    PF_CO_TRY(co_await roots.read(said_again_by_the_replay));
    PF_CO_TRY(co_await reader.repair(superblock));
    auto engine = std::make_unique<Engine>(std::move(disk), options, superblock);
    engine->warnings() = reader.warnings();
    PF_CO_TRY(co_await engine->mount());
    co_return std::unique_ptr<Tray>(new Tray(std::move(engine)));
}

Task<Status> Tray::stop() {
    return engine_->stop();
}

Result<Reservation> Tray::reserve(ShardId shard, SnapSeq snap_seq, uint32_t block, uint32_t count,
                                  WriteKind kind) {
    return engine_->reserve(shard, snap_seq, block, count, kind);
}
Task<bool> Tray::freed_room() {
    return engine_->freed_room();
}
Task<Result<Ticket>> Tray::write(const WriteRequest& request, Reservation& reservation) {
    return engine_->write(request, reservation);
}
void Tray::commit(Ticket ticket) {
    engine_->commit(ticket);
}
Task<Status> Tray::read(const ReadRequest& request) {
    return engine_->read(request);
}
Task<Result<std::vector<BlockRun>>> Tray::block_states(GenerationId generation, uint32_t block,
                                                       uint32_t count, uint32_t max_runs) {
    return engine_->block_states(generation, block, count, max_runs);
}

Task<Status> Tray::create_shard(ShardState state, GenerationId parent) {
    return engine_->create_shard(state, parent);
}
Task<std::vector<Status>> Tray::create_shards(std::vector<ShardState> states) {
    return engine_->create_shards(std::move(states));
}
Task<Status> Tray::set_shard_state(ShardState state) {
    return engine_->set_shard_state(state);
}
Task<Status> Tray::delete_shard(ShardId shard) {
    if (!shard_state(shard))
        co_return fail(Errc::not_found, fmt::format("shard {} does not exist", shard));
    std::vector<ShardId> one(1, shard);
    co_return co_await engine_->delete_shards(std::move(one));
}
Task<Status> Tray::delete_shards(std::vector<ShardId> shards) {
    return engine_->delete_shards(std::move(shards));
}
Task<Status> Tray::accept_loss(ShardId shard) {
    return engine_->accept_loss(shard);
}
Result<ShardState> Tray::shard_state(ShardId id) const {
    const Shard* shard = std::as_const(*engine_).map().find(id);
    if (shard == nullptr) return fail(Errc::not_found);
    return shard->state;
}
std::vector<ShardState> Tray::shards() const {
    std::vector<ShardState> result;
    for (const auto& [id, shard] : std::as_const(*engine_).map().shards()) {
        if (!shard->deleted) result.push_back(shard->state);
    }
    return result;
}
Position Tray::last_position(ShardId id) const {
    const Shard* shard = std::as_const(*engine_).map().find(id);
    return shard == nullptr ? Position{} : shard->last;
}

Task<Status> Tray::create_generation(GenerationId id, GenerationId parent, bool make_head) {
    return engine_->create_generation(id, parent, make_head);
}
Task<Status> Tray::delete_generation(GenerationId id) {
    return engine_->delete_generation(id);
}
std::vector<GenerationInfo> Tray::generations(ShardId id) const {
    std::vector<GenerationInfo> result;
    const Shard* shard = std::as_const(*engine_).map().find(id);
    if (shard == nullptr) return result;
    for (const auto& [snap_seq, generation] : shard->generations) {
        if (generation->deleted && generation->children.size() < 2) continue;  // being freed
        GenerationInfo info;
        info.id = generation->id;
        if (generation->parent != nullptr) info.parent = generation->parent->id;
        info.nameless = generation->deleted;
        info.own_blocks = generation->own_blocks;
        result.push_back(info);
    }
    return result;
}

Task<Status> Tray::open_session(ShardId shard, uint64_t session) {
    return engine_->open_session(shard, session);
}
Task<Status> Tray::close_session(ShardId shard, uint64_t session) {
    return engine_->close_session(shard, session);
}
std::vector<uint64_t> Tray::sessions(ShardId id) const {
    std::vector<uint64_t> open;
    const Shard* shard = std::as_const(*engine_).map().find(id);
    if (shard == nullptr) return open;
    for (const Session& session : shard->sessions.all()) open.push_back(session.id);
    return open;
}
RequestState Tray::request_state(ShardId id, const RequestName& request) const {
    const Shard* shard = std::as_const(*engine_).map().find(id);
    return shard == nullptr ? RequestState::unknown_session : shard->sessions.state(request);
}
Task<Status> Tray::void_request(ShardId shard, RequestName request) {
    return engine_->void_request(shard, request);
}

Task<Status> Tray::checkpoint() {
    return engine_->checkpoint();
}
Usage Tray::usage() const {
    return engine_->usage();
}
Counters Tray::counters() const {
    return engine_->counters();
}
Uuid Tray::id() const {
    return engine_->superblock().tray;
}
uint64_t Tray::incarnation() const {
    return engine_->incarnation();
}
bool Tray::failed() const {
    return engine_->failed();
}
const std::vector<std::string>& Tray::warnings() const {
    return engine_->warnings();
}
const std::string& Tray::loss() const {
    return engine_->loss();
}
const std::string& Tray::disk_name() const {
    return engine_->disk().name();
}
bool Tray::volatile_cache() const {
    return engine_->disk().volatile_cache();
}

}  // namespace pf::tray

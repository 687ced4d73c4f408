#include "store/tray_set.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/log.hpp"
#include "base/paths.hpp"
#include "tray/superblock.hpp"

namespace pf::pfs {

using runtime::Task;
namespace v1 = pureflash::v1;

namespace {
constexpr int max_lost_reported = 4096;
constexpr std::pair<std::string_view, WriteCache> write_caches[] = {
    {"detect", WriteCache::detect},
    {"volatile", WriteCache::is_volatile},
    {"none", WriteCache::is_stable},
};
}  // namespace

Result<WriteCache> parse_write_cache(std::string_view name) {
    for (const auto& [known, cache] : write_caches) {
        if (known == name) return cache;
    }
    return fail(Errc::invalid_argument,
                fmt::format("write cache '{}': detect, volatile or none", name));
}

std::string_view name_of(WriteCache cache) {
    for (const auto& [known, value] : write_caches) {
        if (value == cache) return known;
    }
    return "detect";
}

bool same_place(const std::string& path, const std::string& other) {
    std::error_code unknown;
    return path == other || std::filesystem::equivalent(path, other, unknown);
}

Task<Result<Uuid>> tray_at(std::string path) {
    runtime::DiskOptions options;
    options.read_only = true;
    options.exclusive = false;
    Task<Result<std::unique_ptr<runtime::Disk>>> opening =
        runtime::Reactor::current().open_disk(std::move(path), options);
    PF_CO_TRY_ASSIGN(const std::unique_ptr<runtime::Disk> disk, co_await opening);
    tray::SuperblockReader reader(*disk);
    Task<Result<tray::Superblock>> reading = reader.read();
    PF_CO_TRY_ASSIGN(const tray::Superblock superblock, co_await reading);
    co_return superblock.tray;
}

Task<bool> has_left(TrayPlace place) {
    Task<Result<Uuid>> looking = tray_at(place.path);
    const Result<Uuid> there = co_await looking;
    co_return there ? *there != place.id : there.error().code == Errc::not_found;
}

std::map<uint64_t, uint32_t> TraySlot::lost() const {
    std::map<uint64_t, uint32_t> lost;
    if (tray == nullptr) return lost;
    for (const tray::ShardState& state : tray->shards()) {
        if (state.damaged) ++lost[state.shard >> shard_index_bits];
    }
    return lost;
}

std::string TraySlot::loss_message() const {
    uint32_t shards = 0;
    const auto volumes = lost();
    for (const auto& [volume, count] : volumes) shards += count;
    if (shards == 0) return {};
    return fmt::format(
        "{} shards of {} volumes may have lost writes and answer no I/O until "
        "'pfcli volume accept-loss' lets them go on with what is left",
        shards, volumes.size());
}

v1::Tray TraySlot::describe() const {
    v1::Tray message;
    message.set_path(path);
    if (!id.is_zero()) message.set_uuid(id.text());
    if (tray == nullptr) {
        message.set_health(v1::HEALTH_ERROR);
        message.set_message(problem);
        return message;
    }
    const tray::Usage usage = tray->usage();
    message.set_capacity_bytes(usage.capacity_blocks * block_bytes);
    message.set_free_bytes(usage.free_blocks * block_bytes);
    message.set_user_bytes(usage.user_blocks * block_bytes);
    message.set_log_bytes(usage.log_bytes);
    message.set_log_used_bytes(usage.log_used_bytes);
    message.set_incarnation(tray->incarnation());
    message.set_volatile_cache(tray->volatile_cache());
    message.set_health(v1::HEALTH_OK);
    if (!tray->warnings().empty()) {
        message.set_health(v1::HEALTH_DEGRADED);
        message.set_message(tray->warnings().front());
    }
    const auto volumes = lost();
    if (!volumes.empty()) {
        message.set_health(v1::HEALTH_DEGRADED);
        message.set_message(loss_message());
    }
    for (const auto& [volume, shards] : volumes) {
        if (message.lost_size() == max_lost_reported) break;
        v1::LostData& entry = *message.add_lost();
        entry.set_volume_id(volume);
        entry.set_shards(shards);
    }
    if (tray->failed()) {
        message.set_health(v1::HEALTH_ERROR);
        message.set_message(
            "a write or flush failed; the tray stays out of use until the store "
            "is started again");
    }
    return message;
}

// The kernel lets go of a disk a little later than its process dies of a SIGKILL, or than it tells
// that the last request of a disk that we close is complete: a worker thread of the ring may still
// hold the file. Without patience a store would give up its trays, or one that it just formatted.
Task<Result<std::unique_ptr<runtime::Disk>>> TraySet::open_disk(std::string path,
                                                                runtime::DiskOptions options,
                                                                runtime::Nanos patience) {
    constexpr runtime::Nanos pause = 50 * runtime::milliseconds;
    for (runtime::Nanos waited = 0;; waited += pause) {
        Task<Result<std::unique_ptr<runtime::Disk>>> opening = reactor_.open_disk(path, options);
        Result<std::unique_ptr<runtime::Disk>> opened = co_await opening;
        const bool busy = !opened && opened.error().code == Errc::busy;
        if (!busy || waited >= patience) co_return opened;
        co_await runtime::sleep_for(pause);
    }
}

runtime::DiskOptions TraySet::disk_options(std::optional<WriteCache> own) const {
    runtime::DiskOptions options;
    options.cache = own.value_or(write_cache_);
    return options;
}

Task<Result<std::unique_ptr<tray::Tray>>> TraySet::open(std::string path,
                                                        runtime::DiskOptions options,
                                                        runtime::Nanos patience,
                                                        std::vector<Uuid> others,
                                                        const TraySlot* ours) {
    Task<Result<std::unique_ptr<runtime::Disk>>> opening = open_disk(path, options, patience);
    PF_CO_TRY_ASSIGN(std::unique_ptr<runtime::Disk> disk, co_await opening);
    Task<Status> looking = refuse_copy(*disk, path, others, ours);
    PF_CO_TRY(co_await looking);
    Task<Result<std::unique_ptr<tray::Tray>>> mounting = tray::Tray::mount(std::move(disk), mount_);
    Result<std::unique_ptr<tray::Tray>> mounted = co_await mounting;
    co_return mounted;
}

// A copy of a disk is the same tray again. Mounting one would change it, so this looks first.
Task<Status> TraySet::refuse_copy(runtime::Disk& disk, const std::string& path,
                                  const std::vector<Uuid>& others, const TraySlot* ours) {
    tray::SuperblockReader reader(disk);
    Task<Result<tray::Superblock>> reading = reader.read();
    const Result<tray::Superblock> superblock = co_await reading;
    if (!superblock) co_return Status{};
    const TraySlot* same = find(superblock->tray);
    const bool here = same != nullptr && same != ours && same->path != path;
    if (!here && std::ranges::find(others, superblock->tray) == others.end()) co_return Status{};
    const std::string place = here ? fmt::format("at '{}'", same->path) : "on another reactor";
    co_return fail(Errc::already_exists,
                   fmt::format("'{}' is a copy of tray {}, which this store has {}", path,
                               superblock->tray.text(), place));
}

Task<Status> TraySet::format(std::string path, runtime::DiskOptions disk_options, bool force) {
    Task<Result<std::unique_ptr<runtime::Disk>>> opening =
        open_disk(path, disk_options, busy_patience);
    PF_CO_TRY_ASSIGN(std::unique_ptr<runtime::Disk> disk, co_await opening);
    tray::FormatOptions options;
    options.cluster = mount_.cluster;
    const uint64_t high = reactor_.rng().next();
    const uint64_t low = reactor_.rng().next();
    options.tray = Uuid::from_random(high, low);
    options.force = force;
    Task<Status> formatting = tray::Tray::format(*disk, options);
    const Status formatted = co_await formatting;
    co_return formatted;
}

void TraySet::leave_unmounted(TrayPlace place, std::string problem) {
    log_error("tray {} cannot be mounted: {}", place.path, problem);
    TraySlot& slot = *slots_.emplace_back(std::make_unique<TraySlot>());
    slot.path = std::move(place.path);
    slot.id = place.id;
    slot.write_cache = place.write_cache;
    slot.problem = std::move(problem);
}

Task<void> TraySet::mount(TrayPlace place) {
    Task<Result<std::unique_ptr<tray::Tray>>> opening =
        open(place.path, disk_options(place.write_cache), busy_patience);
    Result<std::unique_ptr<tray::Tray>> mounted = co_await opening;
    if (!mounted) {
        leave_unmounted(std::move(place), mounted.error().text());
        co_return;
    }
    auto slot = std::make_unique<TraySlot>();
    slot->path = place.path;
    slot->write_cache = place.write_cache;
    slot->tray = std::move(*mounted);
    slot->id = slot->tray->id();
    for (const std::string& warning : slot->tray->warnings()) {
        log_warning("tray {}: {}", place.path, warning);
    }
    if (!slot->tray->loss().empty()) log_error("tray {}: {}", place.path, slot->tray->loss());
    const std::string lost = slot->loss_message();
    if (!lost.empty()) log_error("tray {}: {}", place.path, lost);
    slots_.push_back(std::move(slot));
}

Task<Result<TraySlot*>> TraySet::add(AddTray request) {
    PF_CO_TRY(check_tray_path(request.path));
    Task<TraySlot*> looking = find_moved(request.path);
    TraySlot* slot = co_await looking;
    if (slot == nullptr) slot = find_path(request.path);
    if (slot != nullptr && slot->tray != nullptr) {
        co_return fail(Errc::already_exists,
                       fmt::format("{} is a tray of this store already", request.path));
    }
    runtime::DiskOptions options = disk_options(request.write_cache);
    const bool had_tray = request.mount_only || (slot != nullptr && !slot->id.is_zero());
    const bool mount_only = had_tray && !request.force;
    if (request.create_bytes > 0 && !mount_only) {
        options.create_bytes = request.create_bytes;
        // Before a file is made that would be refused, or one where a device was meant.
        PF_CO_TRY(tray::choose_geometry(request.create_bytes, 0));
        if (request.path.starts_with("/dev/") && !request.path.starts_with("/dev/shm/"))
            options.create_bytes = 0;
    }
    Task<Result<std::unique_ptr<tray::Tray>>> opening =
        open(request.path, options, 0, request.others, slot);
    Result<std::unique_ptr<tray::Tray>> mounted = co_await opening;
    const Errc refusal = mounted ? Errc::ok : mounted.error().code;
    if (refusal == Errc::not_found && mount_only) {
        co_return fail(
            Errc::conflict,
            fmt::format("'{}' is where this cluster has {}, which is not there now ({}): "
                        "'pfinspect' says what is left of it, --force gives up its data "
                        "and formats",
                        request.path,
                        slot != nullptr && !slot->id.is_zero() ? "tray " + slot->id.text()
                                                               : "a tray with volumes",
                        mounted.error().message));
    }
    // Blank, or not ours and the operator insists.
    const bool formattable = refusal == Errc::not_found || refusal == Errc::conflict ||
                             refusal == Errc::corrupt || refusal == Errc::unsupported_version;
    if (formattable && (refusal == Errc::not_found || request.force)) {
        options.create_bytes = 0;
        Task<Status> formatting = format(request.path, options, request.force);
        PF_CO_TRY(co_await formatting);
        Task<Result<std::unique_ptr<tray::Tray>>> again =
            open(request.path, options, busy_patience);
        mounted = co_await again;
    }
    if (!mounted) co_return std::unexpected<Error>(mounted.error());
    const Uuid id = (*mounted)->id();
    const TraySlot* same = find(id);
    if (same != nullptr && same != slot) {  // two copies were added at the same time
        Task<Status> stopping = (*mounted)->stop();
        (void)co_await stopping;
        co_return fail(Errc::already_exists,
                       fmt::format("'{}' is a copy of tray {}, which this store has at '{}'",
                                   request.path, id.text(), same->path));
    }
    if (slot == nullptr) slot = slots_.emplace_back(std::make_unique<TraySlot>()).get();
    if (!same_place(slot->path, request.path)) slot->path = request.path;
    slot->problem.clear();
    slot->write_cache = request.write_cache;
    slot->tray = std::move(*mounted);
    slot->id = id;
    co_return slot;
}

Task<Status> TraySet::remove(Uuid id) {
    TraySlot* slot = find(id);
    if (slot == nullptr) co_return fail(Errc::not_found, "no such tray here: " + id.text());
    Status stopped;
    if (slot->tray != nullptr) {
        Task<Status> stopping = slot->tray->stop();
        stopped = co_await stopping;
    }
    if (!stopped)
        log_warning("tray {} was removed unclean: {}", slot->path, stopped.error().text());
    std::erase_if(slots_, [slot](const auto& each) { return each.get() == slot; });
    co_return Status{};
}

Task<void> TraySet::stop() {
    for (const auto& slot : slots_) {
        if (slot->tray == nullptr) continue;
        Task<Status> stopping = slot->tray->stop();
        const Status stopped = co_await stopping;
        if (!stopped) log_error("tray {}: stop failed: {}", slot->path, stopped.error().text());
    }
    slots_.clear();
}

TraySlot* TraySet::find(const Uuid& id) {
    for (const auto& slot : slots_) {
        if (!id.is_zero() && slot->id == id) return slot.get();
    }
    return nullptr;
}

Task<TraySlot*> TraySet::find_moved(std::string path) {
    Task<Result<Uuid>> looking = tray_at(path);
    const Result<Uuid> there = co_await looking;
    TraySlot* slot = there ? find(*there) : nullptr;
    if (slot == nullptr || slot->tray != nullptr) co_return nullptr;
    Task<bool> leaving = has_left({slot->path, slot->id});
    const bool left = co_await leaving;
    co_return left ? slot : nullptr;
}

TraySlot* TraySet::find_path(const std::string& path) {
    for (const auto& slot : slots_) {
        if (same_place(slot->path, path)) return slot.get();
    }
    return nullptr;
}

}  // namespace pf::pfs

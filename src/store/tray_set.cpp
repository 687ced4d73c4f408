#include "store/tray_set.hpp"

#include <fmt/format.h>

#include "base/log.hpp"
#include "tray/superblock.hpp"

namespace pf::pfs {

using runtime::Task;
namespace v1 = pureflash::v1;

v1::Tray TraySlot::describe(uint32_t store_id) const {
    v1::Tray message;
    message.set_store_id(store_id);
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
    if (tray->failed()) {
        message.set_health(v1::HEALTH_ERROR);
        message.set_message(
            "a write or flush failed; the tray stays out of use until the store "
            "is started again");
    }
    return message;
}

// After a SIGKILL the kernel lets go of the disk a little later than of the process: its ring still
// holds the file. Without patience a store that is started again at once would give up its trays.
Task<Result<std::unique_ptr<tray::Tray>>> TraySet::open_patiently(std::string path) {
    constexpr runtime::Nanos pause = 50 * runtime::milliseconds;
    for (runtime::Nanos waited = 0;; waited += pause) {
        Task<Result<std::unique_ptr<tray::Tray>>> opening = open(path, 0);
        Result<std::unique_ptr<tray::Tray>> opened = co_await opening;
        const bool busy = !opened && opened.error().code == Errc::busy;
        if (!busy || waited >= busy_patience) co_return opened;
        co_await runtime::sleep_for(pause);
    }
}

Task<Result<std::unique_ptr<tray::Tray>>> TraySet::open(std::string path, uint64_t create_bytes) {
    runtime::DiskOptions options;
    options.create_bytes = create_bytes;
    Task<Result<std::unique_ptr<runtime::Disk>>> opening = reactor_.open_disk(path, options);
    PF_CO_TRY_ASSIGN(std::unique_ptr<runtime::Disk> disk, co_await opening);
    Task<Status> looking = refuse_copy(*disk, path);
    PF_CO_TRY(co_await looking);
    Task<Result<std::unique_ptr<tray::Tray>>> mounting = tray::Tray::mount(std::move(disk), mount_);
    Result<std::unique_ptr<tray::Tray>> mounted = co_await mounting;
    co_return mounted;
}

// A copy of a disk is the same tray again. Mounting one would change it, so this looks first.
Task<Status> TraySet::refuse_copy(runtime::Disk& disk, const std::string& path) {
    tray::SuperblockReader reader(disk);
    Task<Result<tray::Superblock>> reading = reader.read();
    const Result<tray::Superblock> superblock = co_await reading;
    const TraySlot* same = superblock ? find(superblock->tray) : nullptr;
    if (same == nullptr || same->path == path) co_return Status{};
    co_return fail(Errc::already_exists,
                   fmt::format("'{}' is a copy of tray {}, which this store has at '{}'", path,
                               same->id.text(), same->path));
}

Task<Status> TraySet::format(std::string path, bool force) {
    runtime::DiskOptions disk_options;
    Task<Result<std::unique_ptr<runtime::Disk>>> opening = reactor_.open_disk(path, disk_options);
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

Task<void> TraySet::mount(TrayPlace place) {
    auto slot = std::make_unique<TraySlot>();
    slot->path = place.path;
    slot->id = place.id;
    Task<Result<std::unique_ptr<tray::Tray>>> opening = open_patiently(place.path);
    Result<std::unique_ptr<tray::Tray>> mounted = co_await opening;
    if (mounted) {
        slot->tray = std::move(*mounted);
        slot->id = slot->tray->id();
        for (const std::string& warning : slot->tray->warnings()) {
            log_warning("tray {}: {}", place.path, warning);
        }
    } else {
        slot->problem = mounted.error().text();
        log_error("tray {} cannot be mounted: {}", place.path, slot->problem);
    }
    slots_.push_back(std::move(slot));
}

Task<Result<TraySlot*>> TraySet::add(AddTray request) {
    TraySlot* slot = find_path(request.path);
    if (slot != nullptr && slot->tray != nullptr) {
        co_return fail(Errc::already_exists,
                       fmt::format("{} is a tray of this store already", request.path));
    }
    if (slot == nullptr && slots_.size() == max_trays) {
        co_return fail(Errc::resource_exhausted,
                       fmt::format("a store has at most {} trays", max_trays));
    }
    if (request.create_bytes > 0) {
        // Before a file is made that would be refused, or one where a device was meant.
        PF_CO_TRY(tray::choose_geometry(request.create_bytes, 0));
        if (request.path.starts_with("/dev/") && !request.path.starts_with("/dev/shm/"))
            request.create_bytes = 0;
    }
    Task<Result<std::unique_ptr<tray::Tray>>> opening = open(request.path, request.create_bytes);
    Result<std::unique_ptr<tray::Tray>> mounted = co_await opening;
    const Errc refusal = mounted ? Errc::ok : mounted.error().code;
    // Blank, or not ours and the operator insists.
    const bool formattable = refusal == Errc::not_found || refusal == Errc::conflict ||
                             refusal == Errc::corrupt || refusal == Errc::unsupported_version;
    if (formattable && (refusal == Errc::not_found || request.force)) {
        Task<Status> formatting = format(request.path, request.force);
        PF_CO_TRY(co_await formatting);
        Task<Result<std::unique_ptr<tray::Tray>>> again = open(request.path, 0);
        mounted = co_await again;
    }
    if (!mounted) co_return std::unexpected<Error>(mounted.error());
    const TraySlot* same = find((*mounted)->id());
    if (same != nullptr && same != slot) {  // two copies were added at the same time
        Task<Status> stopping = (*mounted)->stop();
        (void)co_await stopping;
        co_return fail(Errc::already_exists,
                       fmt::format("'{}' is a copy of tray {}, which this store has at '{}'",
                                   request.path, same->id.text(), same->path));
    }
    if (slot == nullptr) {
        slot = slots_.emplace_back(std::make_unique<TraySlot>()).get();
        slot->path = request.path;
    }
    slot->problem.clear();
    slot->tray = std::move(*mounted);
    slot->id = slot->tray->id();
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

TraySlot* TraySet::find_path(const std::string& path) {
    for (const auto& slot : slots_) {
        if (slot->path == path) return slot.get();
    }
    return nullptr;
}

std::vector<TrayPlace> TraySet::places() const {
    std::vector<TrayPlace> places;
    for (const auto& slot : slots_) places.push_back({slot->path, slot->id});
    return places;
}

}  // namespace pf::pfs

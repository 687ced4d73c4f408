#include "tools/serve_check.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>

#include "runtime/uring/socket_address.hpp"
#include "runtime/uring/uring_disk.hpp"
#include "tools/config_main.hpp"
#include "tray/blank_check.hpp"
#include "tray/superblock.hpp"

namespace pf::tools {

using runtime::Task;

namespace {

// In the data folder, beside the lock.
constexpr const char* our_names[] = {"conductor", "identity", "trays"};

bool exists(const std::string& path) {
    std::error_code unknown;
    return std::filesystem::exists(path, unknown);
}

// A link to what is not there now, or what cannot be looked at, is something too.
bool is_nothing(const std::string& path) {
    std::error_code unknown;
    const auto status = std::filesystem::symlink_status(path, unknown);
    return status.type() == std::filesystem::file_type::not_found;
}

// Opened as it will be, and closed at once: it is there, free, unmounted and may be written. Not by
// a ring, which may hold a file for a moment after it was closed.
Status check_usable(const std::string& path) {
    PF_TRY_ASSIGN(const runtime::OpenedFile opened, runtime::open_file(path, {}));
    ::close(opened.fd);
    return {};
}

// As the store does when it adds one, without its writes.
Task<Status> check_tray(std::string path, const TrayPlan& plan, std::vector<pfs::TrayPlace>& seen) {
    runtime::DiskOptions options;
    options.read_only = true;
    options.exclusive = false;
    PF_CO_TRY_ASSIGN(const std::unique_ptr<runtime::Disk> disk,
                     co_await runtime::Reactor::current().open_disk(path, options));
    tray::SuperblockReader reader(*disk);
    const Result<tray::Superblock> superblock = co_await reader.read();
    if (!superblock && superblock.error().code != Errc::not_found)
        co_return std::unexpected<Error>(superblock.error());
    if (!superblock) {
        PF_CO_TRY(naming(path, tray::choose_geometry(disk->size_bytes(), 0)));
        co_return co_await tray::refuse_if_used(*disk);
    }
    if (plan.cluster && superblock->cluster != *plan.cluster) {
        co_return fail(Errc::conflict,
                       fmt::format("{}: the tray belongs to cluster {}, not to {}", path,
                                   superblock->cluster.text(),
                                   plan.cluster->is_zero() ? "a new one" : plan.cluster->text()));
    }
    const auto same = std::ranges::find(seen, superblock->tray, &pfs::TrayPlace::id);
    if (same != seen.end()) {
        if (co_await pfs::has_left(*same)) {
            same->path = path;
            co_return Status{};
        }
        co_return fail(Errc::already_exists, fmt::format("'{}' is a copy of tray {} at '{}'", path,
                                                         superblock->tray.text(), same->path));
    }
    pfs::TrayPlace& place = seen.emplace_back();
    place.id = superblock->tray;
    place.path = path;
    co_return Status{};
}

Status check_names(const std::vector<std::string>& paths) {
    for (size_t i = 0; i < paths.size(); ++i) {
        for (size_t j = 0; j < i; ++j) {
            if (!pfs::same_place(paths[j], paths[i])) continue;
            return fail(
                Errc::invalid_argument,
                fmt::format("'{}' and '{}' are the same tray: name it once", paths[j], paths[i]));
        }
    }
    return {};
}

// 0 or an errno.
int try_to_listen(const runtime::SocketAddress& address) {
    const int fd = ::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    const bool free = fd >= 0 && ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                      ::bind(fd, address.raw(), address.length) == 0 && ::listen(fd, 1) == 0;
    const int error = free ? 0 : errno;
    if (fd >= 0) ::close(fd);
    return error;
}

}  // namespace

Status check_ports(const std::vector<runtime::Address>& addresses, std::string_view options) {
    // A process that was killed holds its ports a moment longer.
    constexpr auto step = std::chrono::milliseconds(50);
    constexpr int max_steps = 20;
    for (const runtime::Address& address : addresses) {
        PF_TRY_ASSIGN(const runtime::SocketAddress socket_address,
                      runtime::to_socket_address(address));
        int error = try_to_listen(socket_address);
        for (int i = 0; error == EADDRINUSE && i < max_steps; ++i) {
            std::this_thread::sleep_for(step);
            error = try_to_listen(socket_address);
        }
        if (error == 0) continue;
        return fail(from_errno(error),
                    fmt::format("cannot listen on {}: {}; choose another with {}", address.text(),
                                std::strerror(error), options));
    }
    return {};
}

Status check_new_trays(runtime::ReactorGroup& group, size_t reactor, const TrayPlan& plan) {
    PF_TRY(check_names(plan.paths));
    std::vector<pfs::TrayPlace> seen = plan.known;
    for (const std::string& path : plan.paths) {
        const bool is_known = std::ranges::any_of(
            plan.known, [&](const auto& place) { return pfs::same_place(place.path, path); });
        if (is_known) continue;
        const bool device = path.starts_with("/dev/") && !path.starts_with("/dev/shm/");
        if (!exists(path) && plan.create_bytes > 0 && !device) {
            PF_TRY(naming(path, tray::choose_geometry(plan.create_bytes, 0)));
            continue;
        }
        PF_TRY(check_usable(path));
        PF_TRY(group.call(reactor, [&] { return check_tray(path, plan, seen); }));
    }
    return {};
}

NewFolder::NewFolder(const std::string& path) : path_(path) {
    std::error_code unknown;
    has_none_ = is_nothing(path + "/lock");
    std::filesystem::path folder = std::filesystem::absolute(path, unknown).lexically_normal();
    if (!folder.has_filename()) folder = folder.parent_path();
    for (; !folder.empty() && !exists(folder.string()); folder = folder.parent_path())
        missing_.push_back(folder.string());
}

void NewFolder::locked() {
    has_none_ = has_none_ && std::ranges::all_of(our_names, [this](const char* name) {
                    return is_nothing(fmt::format("{}/{}", path_, name));
                });
}

void NewFolder::watch(const std::vector<std::string>& trays) {
    std::ranges::copy_if(trays, std::back_inserter(trays_), is_nothing);
}

void NewFolder::remove_what_was_made() const {
    if (!has_none_ || kept_) return;
    std::error_code unknown;
    for (const std::string& tray : trays_) std::filesystem::remove(tray, unknown);
    for (const char* name : our_names)
        std::filesystem::remove_all(fmt::format("{}/{}", path_, name), unknown);
    std::filesystem::remove(path_ + "/lock", unknown);  // the last, since it guards the others
    // Those that hold something else stay.
    for (const std::string& folder : missing_) ::rmdir(folder.c_str());
}

}  // namespace pf::tools

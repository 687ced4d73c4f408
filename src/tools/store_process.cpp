#include "tools/store_process.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace pf::tools {

using runtime::Task;

namespace {
constexpr const char* trays_file = "trays";

// "UUID PATH", or "UUID write_cache=none PATH"
constexpr std::string_view cache_key = "write_cache=";

Result<pfs::TrayPlace> parse_place(const std::string& line) {
    const size_t space = line.find(' ');
    pfs::TrayPlace place;
    if (space != std::string::npos) {
        const Result<Uuid> id = Uuid::parse(line.substr(0, space));
        place.path = line.substr(space + 1);
        bool good = id.has_value();
        const size_t end = place.path.find(' ');
        if (place.path.starts_with(cache_key) && end != std::string::npos) {
            const std::string name = place.path.substr(cache_key.size(), end - cache_key.size());
            const Result<pfs::WriteCache> cache = pfs::parse_write_cache(name);
            good = good && cache.has_value();
            if (cache) place.write_cache = *cache;
            place.path.erase(0, end + 1);
        }
        if (good && !place.path.empty()) {
            place.id = *id;
            return place;
        }
    }
    return fail(Errc::corrupt,
                "the list of trays has the line '" + line + "'; expected 'UUID PATH'");
}

Task<Status> stop_store(std::unique_ptr<pfs::Store>& store) {
    Task<void> stopping = store->stop();
    co_await stopping;
    store.reset();
    co_return Status{};
}
}  // namespace

Status check_data_address(const pfs::StoreOptions& options) {
    const std::string& host = options.listen.host;
    const bool any = host == "0.0.0.0" || host == "::" || host.empty();
    if (!any || !options.data_address.empty()) return {};
    return fail(
        Errc::invalid_argument,
        fmt::format("the data port listens on {}, which no client can connect to: listen on "
                    "an address of this host that clients reach, or run pfs with "
                    "store.advertise",
                    options.listen.text()));
}

Result<std::vector<pfs::TrayPlace>> known_trays(const DataDir& dir) {
    PF_TRY_ASSIGN(const std::vector<std::string> lines, dir.read_lines(trays_file));
    std::vector<pfs::TrayPlace> places;
    for (const std::string& line : lines) {
        PF_TRY_ASSIGN(pfs::TrayPlace place, parse_place(line));
        places.push_back(std::move(place));
    }
    return places;
}

Result<std::unique_ptr<StoreProcess>> StoreProcess::start(runtime::ReactorGroup& group, size_t home,
                                                          const DataDir& dir,
                                                          pfs::StoreOptions options) {
    PF_TRY(check_data_address(options));
    PF_TRY_ASSIGN(const StoreIdentity identity, load_identity(dir));
    PF_TRY_ASSIGN(const std::vector<pfs::TrayPlace> known, known_trays(dir));
    options.id = identity.id;
    if (options.cluster.is_zero()) options.cluster = identity.cluster;
    if (!identity.cluster.is_zero() && options.cluster != identity.cluster) {
        return fail(Errc::conflict, "the store in '" + dir.path() + "' is of cluster " +
                                        identity.cluster.text() + ", not " +
                                        options.cluster.text());
    }
    for (const pfs::TrayPlace& place : known) {
        // Not two that are known: while disks change their names, two may be listed at one path.
        std::erase_if(options.trays, [&](const auto& each) {
            return each.path == place.path && each.id.is_zero();
        });
        options.trays.push_back(place);
    }
    options.save_cluster = [&dir, id = identity.id](const Uuid& cluster) {
        return save_identity(dir, {id, cluster});
    };
    options.save_trays = [&dir](const std::vector<pfs::TrayPlace>& places) {
        std::vector<std::string> lines;
        for (const pfs::TrayPlace& place : places) {
            const std::string cache =
                place.write_cache
                    ? fmt::format("{}{} ", cache_key, pfs::name_of(*place.write_cache))
                    : "";
            lines.push_back(place.id.text() + " " + cache + place.path);
        }
        return dir.write_lines(trays_file, lines);
    };
    if (identity.cluster.is_zero() && !options.cluster.is_zero()) {
        PF_TRY(options.save_cluster(options.cluster));
    }
    std::unique_ptr<StoreProcess> process(new StoreProcess(group, home));
    for (size_t i = home; i < group.size(); ++i) options.reactors.push_back(&group.reactor(i));
    runtime::Reactor& on = group.reactor(home);
    Result<std::unique_ptr<pfs::Store>> store =
        group.call(home, [&] { return pfs::Store::start(on, options); });
    if (!store) return std::unexpected<Error>(store.error());
    process->store_ = std::move(*store);
    return process;
}

StoreProcess::~StoreProcess() {
    stop();
}

bool StoreProcess::has_tray(const std::string& path) {
    return group_.call(home_, [&] { return store_->has_tray(path); });
}

Status StoreProcess::add_tray(const std::string& path, uint64_t create_bytes) {
    pureflash::v1::AddTrayRequest request;
    request.set_path(path);
    request.set_create_bytes(create_bytes);
    const Result<pureflash::v1::Tray> added =
        group_.call(home_, [&] { return store_->add_tray(request); });
    if (!added) return std::unexpected<Error>(added.error());
    return {};
}

void StoreProcess::join() {
    group_.call(home_, [&] { store_->join(); });
}

bool StoreProcess::registered() {
    return group_.call(home_, [&] { return store_->registered(); });
}

std::string StoreProcess::address() {
    return group_.call(home_, [&] { return store_->address().text(); });
}

void StoreProcess::stop() {
    if (!store_) return;
    const Status stopped = group_.call(home_, [&] { return stop_store(store_); });
    PF_ASSERT(stopped);
}

}  // namespace pf::tools

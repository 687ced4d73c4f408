// pureflash serve: a one-node cluster in one process. The conductor has one reactor, the store
// one or more others; everything that lasts is in one folder.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "base/log.hpp"
#include "base/ports.hpp"
#include "conductor/conductor.hpp"
#include "runtime/uring/socket_address.hpp"
#include "tools/command_line.hpp"
#include "tools/config_main.hpp"
#include "tools/daemon.hpp"
#include "tools/data_reactors.hpp"
#include "tools/serve_check.hpp"
#include "tools/store_http.hpp"
#include "tools/store_process.hpp"
#include "tray/format.hpp"

namespace {

using namespace pf;

struct ServeOptions {
    std::string data;
    std::optional<uint32_t> trays;         // nothing: one, if the folder knows of none
    std::optional<std::string> tray_size;  // nothing: default_tray_bytes()
    std::vector<std::string> tray_paths;
    std::string reactors = "auto";
    std::string host = "127.0.0.1";
    uint16_t port_base = default_port_base;
    bool insecure_listen = false;
    std::string log_level = "warning";
    std::string write_cache = "detect";
    std::string slow_io = "2s";

    [[nodiscard]] runtime::Address address(uint16_t offset) const {
        return {host, static_cast<uint16_t>(port_base + offset)};
    }
};

constexpr size_t control_reactor = 0;
constexpr size_t first_data_reactor = 1;
constexpr uint32_t max_serve_trays = 64;
constexpr unsigned stop_limit_seconds = 20;
constexpr unsigned start_limit_seconds = 120;

uint64_t least_tray_bytes() {
    uint64_t bytes = block_bytes;
    while (!tray::choose_geometry(bytes, 0)) bytes += block_bytes;
    return bytes;
}

Status check_tray_size(const ServeOptions& options) {
    if (!options.tray_size) return {};
    PF_TRY_ASSIGN(const uint64_t bytes,
                  tools::naming("--tray-size", parse_size(*options.tray_size)));
    const uint64_t least = least_tray_bytes();
    if (bytes < least) {
        return fail(Errc::invalid_argument,
                    fmt::format("--tray-size {}: too small, the minimum is {}", *options.tray_size,
                                format_exact_size(least)));
    }
    PF_TRY(tools::naming(fmt::format("--tray-size {}", *options.tray_size),
                         tray::choose_geometry(bytes, 0)));
    return {};
}

Status check(const ServeOptions& options) {
    PF_TRY(tools::check_listen(options.host, options.insecure_listen));
    if (options.trays && (*options.trays == 0 || *options.trays > max_serve_trays)) {
        return fail(Errc::invalid_argument,
                    fmt::format("--trays {}: from 1 to {}; left out, there is one unless --tray "
                                "names others",
                                *options.trays, max_serve_trays));
    }
    if (options.port_base == 0 || options.port_base > UINT16_MAX - conductor_rpc_port_offset) {
        return fail(Errc::invalid_argument,
                    fmt::format("--port-base {}: from 1 to {}", options.port_base,
                                UINT16_MAX - conductor_rpc_port_offset));
    }
    if (options.data.empty()) return fail(Errc::invalid_argument, "--data '': give a folder");
    PF_TRY(tools::naming("--log-level", parse_log_level(options.log_level)));
    PF_TRY(tools::naming("--write-cache", pfs::parse_write_cache(options.write_cache)));
    PF_TRY(tools::naming("--slow-io", parse_duration(options.slow_io)));
    PF_TRY(tools::parse_reactors("--reactors", options.reactors));
    PF_TRY(tools::naming("--host", runtime::to_socket_address(options.address(0))));
    if (std::ranges::find(options.tray_paths, "") != options.tray_paths.end())
        return fail(Errc::invalid_argument, "--tray '': give a device or file");
    return check_tray_size(options);
}

// The conductor on its reactor, driven from main.
class ConductorProcess {
  public:
    explicit ConductorProcess(runtime::ReactorGroup& group) : group_(group) {}
    ConductorProcess(const ConductorProcess&) = delete;
    ConductorProcess& operator=(const ConductorProcess&) = delete;
    ~ConductorProcess() { stop(); }

    Status start(const conductor::ConductorOptions& options) {
        auto created = group_.call(control_reactor, [&] {
            return conductor::Conductor::create(group_.reactor(control_reactor), options);
        });
        if (!created) return std::unexpected<Error>(created.error());
        conductor_ = std::move(*created);
        const Status started = group_.call(control_reactor, [&] { return conductor_->start(); });
        return started;
    }
    Result<Uuid> cluster() {
        const std::string text = group_.call(control_reactor, [&] {
            return std::string(conductor_->core().cluster().record.uuid());
        });
        return Uuid::parse(text);
    }
    void stop() {
        if (!conductor_) return;
        group_.call(control_reactor, [&] { return conductor_->stop(); });
        group_.call(control_reactor, [&] { conductor_.reset(); });
    }

  private:
    runtime::ReactorGroup& group_;
    std::unique_ptr<conductor::Conductor> conductor_;
};

// Tray files reserve their room, and the first try on a small machine should not fail for it.
uint64_t default_tray_bytes(const std::string& folder, uint32_t files) {
    constexpr uint64_t most = uint64_t{20} << 30;
    std::error_code unknown;
    const std::filesystem::space_info space = std::filesystem::space(folder, unknown);
    return unknown ? most : std::min(most, space.available / 2 / std::max(files, 1U));
}

// The trays that this start asks for and the folder does not know yet.
struct NewTrays {
    std::vector<std::string> paths;
    uint64_t bytes = 0;  // of those that are files and do not exist
};

std::string full_path(const std::string& given) {
    std::error_code no_folder;  // a relative path in a folder that is gone: it stays as it is
    const std::filesystem::path full = std::filesystem::absolute(given, no_folder);
    return no_folder ? given : full.lexically_normal().string();
}

// A slip in a path must not fill another disk.
Status check_tray_paths(const ServeOptions& options, const std::vector<pfs::TrayPlace>& known) {
    if (options.tray_size) return {};
    for (const std::string& given : options.tray_paths) {
        const std::string path = full_path(given);
        const bool is_known = std::ranges::find(known, path, &pfs::TrayPlace::path) != known.end();
        std::error_code unknown;
        if (is_known || std::filesystem::exists(path, unknown)) continue;
        return fail(Errc::not_found,
                    fmt::format("--tray '{}' does not exist: name a device or a file, or give "
                                "--tray-size to make a file",
                                given));
    }
    return {};
}

Result<NewTrays> new_trays(const ServeOptions& options, const tools::DataDir& dir,
                           const std::vector<pfs::TrayPlace>& known) {
    uint32_t files = options.trays.value_or(0);
    if (files == 0 && options.tray_paths.empty() && known.empty()) files = 1;
    NewTrays trays;
    trays.bytes = default_tray_bytes(options.data, files);
    if (options.tray_size) {
        PF_TRY_ASSIGN(trays.bytes, parse_size(*options.tray_size));
    }
    trays.bytes = round_down(trays.bytes, block_bytes);
    for (uint32_t i = 0; i < files; ++i) {
        trays.paths.push_back(dir.file(fmt::format("tray{}.img", i)));
    }
    for (const std::string& given : options.tray_paths) {
        trays.paths.push_back(full_path(given));
    }
    std::erase_if(trays.paths, [&known](const std::string& path) {
        return std::ranges::find(known, path, &pfs::TrayPlace::path) != known.end();
    });
    return trays;
}

// One conductor; then as many for data as there are trays to serve, if there are cores for them.
Result<std::vector<runtime::UringOptions>> reactors_for(const ServeOptions& options, size_t trays) {
    PF_TRY_ASSIGN(size_t data, tools::parse_reactors("--reactors", options.reactors));
    if (data == 0) data = std::min(std::max<size_t>(trays, 1), tools::reactors_for_cores());
    std::vector<runtime::UringOptions> all =
        tools::data_reactors(data, tools::default_buffer_bytes);
    runtime::UringOptions control;
    control.seed = tools::random_seed();
    control.buffer_arena_bytes = size_t{16} << 20;
    all.insert(all.begin() + control_reactor, control);
    return all;
}

Result<pfs::StoreOptions> store_options(const ServeOptions& options, const Uuid& cluster) {
    pfs::StoreOptions store;
    PF_TRY_ASSIGN(store.write_cache, pfs::parse_write_cache(options.write_cache));
    PF_TRY_ASSIGN(store.slow_io, parse_duration(options.slow_io));
    store.cluster = cluster;
    store.listen = options.address(store_tcp_port_offset);
    store.http_address = options.address(store_http_port_offset).text();
    store.conductor = options.address(conductor_rpc_port_offset);
    store.version = PUREFLASH_VERSION;
    return store;
}

// Everything that can be seen before something is made or changed.
Status check_start(const ServeOptions& options, runtime::ReactorGroup& group,
                   const tools::DataDir& dir, const std::vector<pfs::TrayPlace>& known,
                   const NewTrays& added) {
    PF_TRY(tools::check_ports(
        {options.address(store_tcp_port_offset), options.address(conductor_http_port_offset),
         options.address(conductor_rpc_port_offset), options.address(store_http_port_offset)},
        "--host or --port-base"));
    PF_TRY_ASSIGN(const tools::StoreIdentity identity, tools::read_identity(dir));
    PF_TRY_ASSIGN(const pfs::StoreOptions store, store_options(options, identity.cluster));
    PF_TRY(tools::check_data_address(store));
    tools::TrayPlan plan{added.paths, added.bytes, identity.cluster, known};
    std::error_code unknown;
    const bool has_conductor = std::filesystem::exists(dir.file("conductor"), unknown);
    if (identity.cluster.is_zero() && has_conductor) plan.cluster.reset();
    return tools::check_new_trays(group, first_data_reactor, plan);
}

Status serve_in(const tools::DataDir& dir, const ServeOptions& options, tools::NewFolder& fresh) {
    PF_TRY_ASSIGN(const std::vector<pfs::TrayPlace> known, tools::known_trays(dir));
    PF_TRY(check_tray_paths(options, known));
    PF_TRY_ASSIGN(const NewTrays added, new_trays(options, dir, known));
    PF_TRY_ASSIGN(const std::vector<runtime::UringOptions> reactors,
                  reactors_for(options, known.size() + added.paths.size()));
    PF_TRY_ASSIGN(const std::unique_ptr<runtime::ReactorGroup> group,
                  runtime::ReactorGroup::start(reactors));
    PF_TRY(check_start(options, *group, dir, known, added));
    fresh.watch(added.paths);

    conductor::ConductorOptions conductor_options;
    conductor_options.data_dir = dir.file("conductor");
    conductor_options.insecure_listen = options.insecure_listen;
    conductor_options.rpc = options.address(conductor_rpc_port_offset);
    conductor_options.http = options.address(conductor_http_port_offset);
    ConductorProcess conductor(*group);
    PF_TRY(conductor.start(conductor_options));
    PF_TRY_ASSIGN(const Uuid cluster, conductor.cluster());

    PF_TRY_ASSIGN(pfs::StoreOptions of_store, store_options(options, cluster));
    PF_TRY_ASSIGN(std::unique_ptr<tools::StoreProcess> store,
                  tools::StoreProcess::start(*group, first_data_reactor, dir, std::move(of_store)));
    for (const std::string& path : added.paths) {
        if (!store->has_tray(path)) PF_TRY(store->add_tray(path, added.bytes));
    }
    PF_TRY_ASSIGN(std::unique_ptr<tools::StoreHttp> pages,
                  tools::StoreHttp::start(options.address(store_http_port_offset),
                                          options.insecure_listen, *store));
    store->join();
    fresh.keep();
    bool stop = false;
    for (unsigned waited_ms = 0; !stop && !store->registered(); waited_ms += 10) {
        if (waited_ms > start_limit_seconds * 1000) {
            return fail(Errc::timed_out, "the store could not register with the conductor");
        }
        stop = tools::stop_requested(10);
    }
    if (!stop) {
        fmt::print("ready conductor={}\n", options.address(conductor_http_port_offset).text());
        std::fflush(stdout);
        tools::serve_until_stopped();
    }
    tools::limit_stop_time(stop_limit_seconds);
    pages.reset();
    store->stop();
    conductor.stop();
    return {};
}

Status serve(const ServeOptions& options) {
    PF_TRY(check(options));
    PF_TRY_ASSIGN(const LogLevel level, parse_log_level(options.log_level));
    set_log_level(level);
    // A folder that is not there knows no trays: what is wrong is said before it is made.
    std::error_code unknown;
    if (!std::filesystem::exists(options.data, unknown)) PF_TRY(check_tray_paths(options, {}));
    tools::NewFolder fresh(options.data);
    PF_TRY_ASSIGN(const tools::DataDir dir, tools::DataDir::open(options.data));
    fresh.locked();
    const Status served = serve_in(dir, options, fresh);
    if (!served) fresh.remove_what_was_made();
    return served;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("PureFlash: an all-flash distributed block store, on one node", "pureflash");
    app.set_version_flag("--version", PUREFLASH_VERSION);
    app.require_subcommand(1);
    ServeOptions options;
    CLI::App* command = app.add_subcommand("serve", "Run conductor and store in one process");
    command->add_option("--data", options.data, "Folder for everything; made if missing")
        ->required();
    command->add_option("--trays", options.trays, "Tray files in the folder (default 1)");
    command->add_option(
        "--tray-size", options.tray_size,
        "Size of new tray files (default: 20G, or half of the free space if that is less)");
    command->add_option(
        "--tray", options.tray_paths,
        "A device or file to use as a tray; with --tray-size a missing file is made");
    command->add_option("--reactors", options.reactors,
                        "Threads that serve I/O, 1 to 64 (default: auto, one for each tray of this "
                        "start, at most one for each core)");
    command->add_option("--host", options.host, "Address to listen on (default 127.0.0.1)");
    command->add_option("--port-base", options.port_base, "First of the node's ports");
    command->add_flag("--insecure-listen", options.insecure_listen,
                      "Allow addresses other than loopback, without authentication");
    command->add_option("--write-cache", options.write_cache,
                        "Whether devices may lose completed writes with the power: detect, "
                        "volatile or none (on your word; default detect)");
    command->add_option("--slow-io", options.slow_io,
                        "I/O slower than this is logged, e.g. 500ms (default 2s)");
    command->add_option("--log-level", options.log_level, "debug, info, warning, error or off");
    if (const auto over = pf::tools::parse_command_line(app, argc, argv)) return *over;

    pf::tools::block_stop_signals();
    const pf::Status status = serve(options);
    if (status) return 0;
    fmt::print(stderr, "pureflash: {}\n", status.error().text());
    return 1;
}

// pfs: the store daemon. Options come from a TOML file and from flags of the same names.
#include <fmt/format.h>

#include <array>

#include "base/log.hpp"
#include "base/ports.hpp"
#include "runtime/uring/socket_address.hpp"
#include "tools/config_main.hpp"
#include "tools/daemon.hpp"
#include "tools/data_reactors.hpp"
#include "tools/serve_check.hpp"
#include "tools/store_http.hpp"
#include "tools/store_process.hpp"

namespace {

using namespace pf;

constexpr std::array config_keys = {
    ConfigKey{"store.data", ConfigType::text, "/var/lib/pureflash/store",
              "Folder with the store's identity and its list of trays."},
    ConfigKey{"store.listen", ConfigType::text, "127.0.0.1:49162", "Data port."},
    ConfigKey{"store.http", ConfigType::text, "127.0.0.1:49181", "Metrics and health port."},
    ConfigKey{"store.advertise", ConfigType::text, "",
              "Address of the data port that clients are told; empty: what is listened on."},
    ConfigKey{"store.conductor", ConfigType::text, "127.0.0.1:49182",
              "RPC address of the conductor."},
    ConfigKey{"store.trays", ConfigType::list, "",
              "Devices or files that hold trays of this store, besides those added later."},
    ConfigKey{"store.reactors", ConfigType::text, "auto",
              "Threads that serve I/O, 1 to 64; auto or 0: one for each core the store may use."},
    ConfigKey{"store.buffers", ConfigType::size, "128M",
              "Memory for I/O in flight, 32M to 64G, split evenly over the reactors; each has at "
              "least 16M."},
    ConfigKey{"store.tray_cache", ConfigType::size, "64M",
              "Memory per tray for tables of older generations."},
    ConfigKey{"store.discard", ConfigType::boolean, "false",
              "Trim freed blocks on block devices that can; never on files."},
    ConfigKey{"store.write_cache", ConfigType::text, "detect",
              "Whether devices may lose completed writes with the power: detect, volatile or none "
              "(on your word), for trays that were not added with a setting of their own."},
    ConfigKey{"store.slow_io", ConfigType::duration, "2s", "I/O slower than this is logged."},
    ConfigKey{"store.insecure_listen", ConfigType::boolean, "false",
              "Allow addresses other than loopback, without authentication."},
    ConfigKey{"log.level", ConfigType::text, "info", "debug, info, warning, error or off."},
};

constexpr uint64_t least_buffers = uint64_t{32} << 20;
constexpr uint64_t most_buffers = uint64_t{64} << 30;

Status run(const Config& config) {
    PF_TRY_ASSIGN(const LogLevel level,
                  tools::naming("log.level", parse_log_level(config.text("log.level"))));
    set_log_level(level);
    PF_TRY_ASSIGN(const runtime::Address listen, tools::address_of(config, "store.listen"));
    PF_TRY_ASSIGN(const runtime::Address http, tools::address_of(config, "store.http"));
    PF_TRY_ASSIGN(const runtime::Address conductor, tools::address_of(config, "store.conductor"));
    const bool insecure = config.boolean("store.insecure_listen");
    PF_TRY(tools::check_listen(listen.host, insecure));
    PF_TRY(tools::check_listen(http.host, insecure));
    PF_TRY_ASSIGN(size_t reactors,
                  tools::parse_reactors("store.reactors", config.text("store.reactors")));
    if (reactors == 0) reactors = tools::reactors_for_cores();
    PF_TRY_ASSIGN(const uint64_t buffer_bytes,
                  tools::size_within(config, "store.buffers", least_buffers, most_buffers));
    pfs::StoreOptions options;
    PF_TRY_ASSIGN(options.write_cache,
                  tools::naming("store.write_cache",
                                pfs::parse_write_cache(config.text("store.write_cache"))));
    for (const std::string& path : config.list("store.trays")) options.trays.push_back({path, {}});
    options.listen = listen;
    if (!config.text("store.advertise").empty()) {
        PF_TRY_ASSIGN(const runtime::Address advertise,
                      tools::address_of(config, "store.advertise"));
        PF_TRY(tools::naming("store.advertise", runtime::to_socket_address(advertise)));
        options.data_address = config.text("store.advertise");
    }
    options.http_address = http.text();
    options.conductor = conductor;
    options.version = PUREFLASH_VERSION;
    options.slow_io = config.duration_ns("store.slow_io");
    options.tray_cache_bytes = config.size_bytes("store.tray_cache");
    options.discard = config.boolean("store.discard");
    PF_TRY(tools::check_data_address(options));

    const std::string& folder = config.text("store.data");
    tools::NewFolder fresh(folder);
    PF_TRY_ASSIGN(const tools::DataDir dir, tools::DataDir::open(folder));
    fresh.locked();
    const Status free = tools::check_ports({listen, http}, "store.listen and store.http");
    if (!free) fresh.remove_what_was_made();
    PF_TRY(free);
    PF_TRY_ASSIGN(const std::unique_ptr<runtime::ReactorGroup> group,
                  runtime::ReactorGroup::start(tools::data_reactors(reactors, buffer_bytes)));
    PF_TRY_ASSIGN(std::unique_ptr<tools::StoreProcess> store,
                  tools::StoreProcess::start(*group, 0, dir, options));
    PF_TRY_ASSIGN(std::unique_ptr<tools::StoreHttp> pages,
                  tools::StoreHttp::start(http, insecure, *store));
    store->join();
    log_info("pfs serves on {} with {} reactors", store->address(), reactors);
    tools::serve_until_stopped();
    log_info("stopping");
    tools::limit_stop_time(20);
    pages.reset();
    store->stop();
    return {};
}

}  // namespace

int main(int argc, char** argv) {
    const pf::tools::ConfiguredDaemon daemon = {"pfs", "The PureFlash store daemon", config_keys,
                                                "store.insecure_listen", &run};
    return pf::tools::run_configured(daemon, argc, argv);
}

// pfs: the store daemon. Options come from a TOML file and from flags of the same names.
#include <fmt/format.h>

#include <array>

#include "base/log.hpp"
#include "base/ports.hpp"
#include "tools/config_main.hpp"
#include "tools/daemon.hpp"
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
    ConfigKey{"store.reactors", ConfigType::integer, "1", "Threads that serve I/O; 1 for now."},
    ConfigKey{"store.buffers", ConfigType::size, "128M", "Memory for I/O in flight, 32M to 64G."},
    ConfigKey{"store.tray_cache", ConfigType::size, "64M",
              "Memory per tray for tables of older generations."},
    ConfigKey{"store.discard", ConfigType::boolean, "false", "Trim freed blocks on the devices."},
    ConfigKey{"store.slow_io", ConfigType::duration, "2s", "I/O slower than this is logged."},
    ConfigKey{"store.insecure_listen", ConfigType::boolean, "false",
              "Allow addresses other than loopback, without authentication."},
    ConfigKey{"log.level", ConfigType::text, "info", "debug, info, warning, error or off."},
};

constexpr uint64_t least_buffers = uint64_t{32} << 20;
constexpr uint64_t most_buffers = uint64_t{64} << 30;

Status run(const Config& config) {
    PF_TRY_ASSIGN(const LogLevel level, parse_log_level(config.text("log.level")));
    set_log_level(level);
    PF_TRY_ASSIGN(const runtime::Address listen, tools::address_of(config, "store.listen"));
    PF_TRY_ASSIGN(const runtime::Address http, tools::address_of(config, "store.http"));
    PF_TRY_ASSIGN(const runtime::Address conductor, tools::address_of(config, "store.conductor"));
    const bool insecure = config.boolean("store.insecure_listen");
    PF_TRY(tools::check_listen(listen.host, insecure));
    PF_TRY(tools::check_listen(http.host, insecure));
    if (config.integer("store.reactors") != 1) {
        return fail(Errc::unsupported, fmt::format("store.reactors = {}: only 1 is offered so far; "
                                                   "run one pfs per core instead",
                                                   config.integer("store.reactors")));
    }
    PF_TRY_ASSIGN(const tools::DataDir dir, tools::DataDir::open(config.text("store.data")));
    runtime::UringOptions reactor;
    reactor.seed = tools::random_seed();
    PF_TRY_ASSIGN(reactor.buffer_arena_bytes,
                  tools::size_within(config, "store.buffers", least_buffers, most_buffers));
    PF_TRY_ASSIGN(const std::unique_ptr<runtime::ReactorGroup> group,
                  runtime::ReactorGroup::start({reactor}));

    pfs::StoreOptions options;
    for (const std::string& path : config.list("store.trays")) options.trays.push_back({path, {}});
    options.listen = listen;
    options.data_address = config.text("store.advertise");
    options.http_address = http.text();
    options.conductor = conductor;
    options.version = PUREFLASH_VERSION;
    options.slow_io = config.duration_ns("store.slow_io");
    options.tray_cache_bytes = config.size_bytes("store.tray_cache");
    options.discard = config.boolean("store.discard");
    PF_TRY_ASSIGN(std::unique_ptr<tools::StoreProcess> store,
                  tools::StoreProcess::start(*group, 0, dir, options));
    PF_TRY_ASSIGN(std::unique_ptr<tools::StoreHttp> pages,
                  tools::StoreHttp::start(http, insecure, *store));
    store->join();
    log_info("pfs serves on {}", store->address());
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

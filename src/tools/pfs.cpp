// pfs: the store daemon. Options come from a TOML file and from flags of the same names.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>

#include "base/config.hpp"
#include "base/log.hpp"
#include "base/ports.hpp"
#include "tools/daemon.hpp"
#include "tools/data_reactors.hpp"
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
              "Memory for I/O in flight, split evenly over the reactors; each has at least 16M."},
    ConfigKey{"store.tray_cache", ConfigType::size, "64M",
              "Memory per tray for tables of older generations."},
    ConfigKey{"store.discard", ConfigType::boolean, "false", "Trim freed blocks on the devices."},
    ConfigKey{"store.write_cache", ConfigType::text, "detect",
              "Whether devices may lose completed writes with the power: detect, volatile or none "
              "(on your word), for trays that were not added with a setting of their own."},
    ConfigKey{"store.slow_io", ConfigType::duration, "2s", "I/O slower than this is logged."},
    ConfigKey{"store.insecure_listen", ConfigType::boolean, "false",
              "Allow addresses other than loopback, without authentication."},
    ConfigKey{"log.level", ConfigType::text, "info", "debug, info, warning, error or off."},
};

Status run(const Config& config) {
    PF_TRY_ASSIGN(const LogLevel level, parse_log_level(config.text("log.level")));
    set_log_level(level);
    PF_TRY_ASSIGN(const runtime::Address listen,
                  runtime::Address::parse(config.text("store.listen")));
    PF_TRY_ASSIGN(const runtime::Address http, runtime::Address::parse(config.text("store.http")));
    PF_TRY_ASSIGN(const runtime::Address conductor,
                  runtime::Address::parse(config.text("store.conductor")));
    const bool insecure = config.boolean("store.insecure_listen");
    PF_TRY(tools::check_listen(listen.host, insecure));
    PF_TRY(tools::check_listen(http.host, insecure));
    PF_TRY_ASSIGN(size_t reactors, tools::parse_reactors(config.text("store.reactors")));
    if (reactors == 0) reactors = tools::reactors_for_cores();
    PF_TRY_ASSIGN(const tools::DataDir dir, tools::DataDir::open(config.text("store.data")));
    PF_TRY_ASSIGN(const std::unique_ptr<runtime::ReactorGroup> group,
                  runtime::ReactorGroup::start(
                      tools::data_reactors(reactors, config.size_bytes("store.buffers"))));

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
    PF_TRY_ASSIGN(options.write_cache, pfs::parse_write_cache(config.text("store.write_cache")));
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
    CLI::App app("The PureFlash store daemon");
    std::string file;
    std::vector<std::string> settings;
    bool print_keys = false;
    app.set_version_flag("--version", PUREFLASH_VERSION);
    app.add_option("--config", file, "TOML file")->check(CLI::ExistingFile);
    app.add_option("--set", settings, "section.key=value, stronger than the file");
    app.add_flag("--print-config-keys", print_keys, "List every key as Markdown, and end");
    CLI11_PARSE(app, argc, argv);

    pf::Config config(config_keys);
    if (print_keys) {
        std::fputs(config.markdown().c_str(), stdout);
        return 0;
    }
    pf::tools::block_stop_signals();
    pf::Status status;
    if (!file.empty()) status = config.load_file(file);
    for (const std::string& setting : settings) {
        const size_t equals = setting.find('=');
        if (!status) break;
        if (equals == std::string::npos) {
            status = pf::fail(pf::Errc::invalid_argument,
                              "--set takes section.key=value, not '" + setting + "'");
        } else {
            status = config.set(setting.substr(0, equals), setting.substr(equals + 1));
        }
    }
    if (status) status = run(config);
    if (status) return 0;
    fmt::print(stderr, "pfs: {}\n", status.error().text());
    return 1;
}

// pfconductor: the control daemon. Options come from a TOML file and from --set.
#include <fmt/format.h>

#include <array>
#include <cstdio>

#include "base/log.hpp"
#include "base/ports.hpp"
#include "conductor/conductor.hpp"
#include "runtime/uring/reactor_thread.hpp"
#include "tools/config_main.hpp"
#include "tools/daemon.hpp"
#include "tools/data_dir.hpp"
#include "tools/serve_check.hpp"

namespace {

using namespace pf;

constexpr std::array config_keys = {
    ConfigKey{"conductor.data", ConfigType::text, "/var/lib/pureflash/conductor",
              "Folder with the metadata."},
    ConfigKey{"conductor.http", ConfigType::text, "127.0.0.1:49180",
              "REST, metrics and health port; what clients and pfcli are told."},
    ConfigKey{
        "conductor.rpc", ConfigType::text, "",
        "RPC port of clients and stores; empty: the HTTP port + 2, where clients look for it."},
    ConfigKey{"conductor.cluster_name", ConfigType::text, "pureflash",
              "Name of a cluster that is made at the first start, for people."},
    ConfigKey{"conductor.heartbeat_interval", ConfigType::duration, "1s",
              "Time between the heartbeats of a store, 50ms to 60s."},
    ConfigKey{"conductor.heartbeats_missed", ConfigType::integer, "4",
              "Heartbeats missed in a row before a store counts as offline, 1 to 1000."},
    ConfigKey{"conductor.store_timeout", ConfigType::duration, "10s",
              "Time limit of one call to a store, 100ms to 2min."},
    ConfigKey{"conductor.max_body", ConfigType::size, "1M",
              "Largest body of a REST request, 4K to 64M."},
    ConfigKey{"conductor.insecure_listen", ConfigType::boolean, "false",
              "Allow addresses other than loopback, without authentication."},
    ConfigKey{"log.level", ConfigType::text, "info", "debug, info, warning, error or off."},
};

constexpr uint64_t least_body = uint64_t{4} << 10;  // of any request that pfcli sends
constexpr uint64_t most_body = uint64_t{64} << 20;

Result<conductor::ConductorOptions> conductor_options(const Config& config) {
    conductor::ConductorOptions options;
    options.data_dir = config.text("conductor.data");
    PF_TRY_ASSIGN(options.http, tools::address_of(config, "conductor.http"));
    if (config.text("conductor.rpc").empty()) {
        options.rpc = options.http;
        if (options.http.port > UINT16_MAX - conductor_rpc_from_http) {
            return fail(Errc::invalid_argument,
                        fmt::format("conductor.http {}: the port is at most {}, the RPC port "
                                    "follows it",
                                    options.http.text(), UINT16_MAX - conductor_rpc_from_http));
        }
        if (options.http.port != 0) {
            options.rpc.port = static_cast<uint16_t>(options.http.port + conductor_rpc_from_http);
        }
    } else {
        PF_TRY_ASSIGN(options.rpc, tools::address_of(config, "conductor.rpc"));
    }
    options.insecure_listen = config.boolean("conductor.insecure_listen");
    PF_TRY(tools::check_listen(options.http.host, options.insecure_listen));
    PF_TRY(tools::check_listen(options.rpc.host, options.insecure_listen));
    PF_TRY_ASSIGN(options.max_body_bytes,
                  tools::size_within(config, "conductor.max_body", least_body, most_body));
    options.core.cluster_name = config.text("conductor.cluster_name");
    PF_TRY_ASSIGN(options.core.heartbeat_interval,
                  tools::duration_within(config, "conductor.heartbeat_interval", 50, 60'000));
    PF_TRY_ASSIGN(options.core.store_timeout,
                  tools::duration_within(config, "conductor.store_timeout", 100, 120'000));
    const uint64_t missed = config.integer("conductor.heartbeats_missed");
    if (missed == 0 || missed > 1000) {
        return fail(
            Errc::invalid_argument,
            fmt::format("conductor.heartbeats_missed = {}: from 1 to 1000 is allowed", missed));
    }
    options.core.heartbeats_missed = static_cast<uint32_t>(missed);
    return options;
}

Status run(const Config& config) {
    PF_TRY_ASSIGN(const LogLevel level,
                  tools::naming("log.level", parse_log_level(config.text("log.level"))));
    set_log_level(level);
    PF_TRY_ASSIGN(const conductor::ConductorOptions options, conductor_options(config));
    tools::NewFolder fresh(options.data_dir);
    PF_TRY_ASSIGN(const tools::DataDir dir, tools::DataDir::open(options.data_dir));
    fresh.locked();
    const Status free =
        tools::check_ports({options.http, options.rpc}, "conductor.http and conductor.rpc");
    if (!free) fresh.remove_what_was_made();
    PF_TRY(free);
    runtime::UringOptions reactor;
    reactor.seed = tools::random_seed();
    reactor.buffer_arena_bytes = size_t{16} << 20;  // RPC only: no data passes here
    reactor.register_arena = false;
    PF_TRY_ASSIGN(const std::unique_ptr<runtime::ReactorGroup> group,
                  runtime::ReactorGroup::start({reactor}));
    auto created =
        group->call(0, [&] { return conductor::Conductor::create(group->reactor(0), options); });
    if (!created) return std::unexpected<Error>(created.error());
    conductor::Conductor& conductor = **created;
    const Status started = group->call(0, [&] { return conductor.start(); });
    if (started) {
        fmt::print("ready conductor={}\n", conductor.http_address().text());
        std::fflush(stdout);
        tools::serve_until_stopped();
        tools::limit_stop_time(20);
    }
    group->call(0, [&] { return conductor.stop(); });
    group->call(0, [&] { created->reset(); });
    return started;
}

}  // namespace

int main(int argc, char** argv) {
    const pf::tools::ConfiguredDaemon daemon = {"pfconductor", "The PureFlash control daemon",
                                                config_keys, "conductor.insecure_listen", &run};
    return pf::tools::run_configured(daemon, argc, argv);
}

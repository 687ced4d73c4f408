#include "tools/config_main.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <vector>

#include "base/units.hpp"
#include "tools/command_line.hpp"
#include "tools/daemon.hpp"

namespace pf::tools {

namespace {

Status apply_settings(Config& config, const std::vector<std::string>& settings) {
    for (const std::string& setting : settings) {
        const size_t equals = setting.find('=');
        if (equals == std::string::npos) {
            return fail(Errc::invalid_argument,
                        fmt::format("--set takes section.key=value, not '{}'", setting));
        }
        PF_TRY(config.set(setting.substr(0, equals), setting.substr(equals + 1)));
    }
    return {};
}

}  // namespace

int run_configured(const ConfiguredDaemon& daemon, int argc, const char* const* argv) {
    CLI::App app(daemon.description, daemon.name);
    std::string file;
    std::vector<std::string> settings;
    bool insecure_listen = false;
    bool print_keys = false;
    app.set_version_flag("--version", PUREFLASH_VERSION);
    app.add_option("--config", file, "TOML file");
    app.add_option("--set", settings, "section.key=value, stronger than the file");
    app.add_flag("--insecure-listen", insecure_listen,
                 "Allow addresses other than loopback, without authentication");
    app.add_flag("--print-config-keys", print_keys, "List every key as Markdown, and end");
    if (const auto over = parse_command_line(app, argc, argv)) return *over;

    Config config(daemon.keys);
    if (print_keys) {
        std::fputs(config.markdown().c_str(), stdout);
        return 0;
    }
    block_stop_signals();
    Status status;
    if (!file.empty()) status = config.load_file(file);
    if (status) status = apply_settings(config, settings);
    if (status && insecure_listen) status = config.set(daemon.insecure_key, "true");
    if (status) status = daemon.run(config);
    if (status) return 0;
    fmt::print(stderr, "{}: {}\n", daemon.name, status.error().text());
    return 1;
}

Result<runtime::Address> address_of(const Config& config, const char* key) {
    auto address = runtime::Address::parse(config.text(key));
    if (address && !address->host.starts_with('/')) return address;
    return fail(Errc::invalid_argument,
                fmt::format("{} = '{}' is not HOST:PORT with a port from 0 to 65535", key,
                            config.text(key)));
}

Result<uint64_t> size_within(const Config& config, const char* key, uint64_t least, uint64_t most) {
    const uint64_t bytes = config.size_bytes(key);
    if (bytes >= least && bytes <= most) return bytes;
    return fail(Errc::invalid_argument,
                fmt::format("{} = {}: from {} to {} is allowed", key, format_exact_size(bytes),
                            format_exact_size(least), format_exact_size(most)));
}

Result<uint64_t> duration_within(const Config& config, const char* key, uint64_t least_ms,
                                 uint64_t most_ms) {
    constexpr uint64_t ms = 1'000'000;
    const uint64_t value = config.duration_ns(key);
    if (value >= least_ms * ms && value <= most_ms * ms) return value;
    return fail(Errc::invalid_argument,
                fmt::format("{} = {}ms: from {}ms to {}ms is allowed", key,
                            static_cast<double>(value) / ms, least_ms, most_ms));
}

}  // namespace pf::tools

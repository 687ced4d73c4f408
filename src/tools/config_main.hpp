// The command line of a daemon: a TOML file, --set for single values, then the daemon itself.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/config.hpp"
#include "runtime/network.hpp"

namespace pf::tools {

struct ConfiguredDaemon {
    const char* name;
    const char* description;
    std::span<const ConfigKey> keys;
    const char* insecure_key;  // what --insecure-listen sets
    Status (*run)(const Config& config);
};

// The exit status: 0, 1 after an error, 2 for a command line that cannot be understood.
[[nodiscard]] int run_configured(const ConfiguredDaemon& daemon, int argc, const char* const* argv);

// The error of `result` with the name of the option or key in front.
template <class T>
[[nodiscard]] Result<T> naming(std::string_view setting, Result<T> result) {
    if (!result) result.error().message = std::string(setting) + ": " + result.error().message;
    return result;
}

// A duration; the error names the key, its value and both limits.
[[nodiscard]] Result<uint64_t> duration_within(const Config& config, const char* key,
                                               uint64_t least_ms, uint64_t most_ms);

// HOST:PORT of a key; the error names the key.
[[nodiscard]] Result<runtime::Address> address_of(const Config& config, const char* key);
// A size within limits; the error names the key and the limits.
[[nodiscard]] Result<uint64_t> size_within(const Config& config, const char* key, uint64_t least,
                                           uint64_t most);

}  // namespace pf::tools

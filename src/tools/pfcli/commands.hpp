// The commands of pfcli. Each noun has a file that adds its commands to the command line and runs
// them.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "base/ports.hpp"
#include "tools/pfcli/api.hpp"

namespace pf::tools {

// How long a cluster that is starting is waited for.
constexpr std::chrono::seconds patience{10};

// Everything that may be given on the command line.
struct Arguments {
    std::string conductor = fmt::format("127.0.0.1:{}", default_conductor_http_port);
    std::string output = "table";
    std::string name;
    std::string new_name;
    std::string size;
    std::optional<std::string> shard_size;
    std::optional<std::string> tray_size;
    std::string path;
    std::string shell;
    std::string write_cache;
    unsigned replicas = 1;
    uint32_t store_id = 0;
    bool force = false;
    double interval_s = 1;
    unsigned count = 0;
};

// What is to be done, once the command line was understood.
struct Command {
    Status (*run)(const Api&, const Arguments&) = nullptr;
    bool prints_names = true;  // what it answers has a name or a uuid, for -o names
    bool waits = true;         // for a server that is starting
};

// Each command, when it is given, puts itself in `chosen`.
void add_volume_commands(CLI::App& app, Arguments& arguments, Command& chosen);
void add_store_commands(CLI::App& app, Arguments& arguments, Command& chosen);
void add_cluster_commands(CLI::App& app, Arguments& arguments, Command& chosen);

// In the form that -o asks for; `text` is for people.
void print(const Arguments& arguments, const nlohmann::json& value, const std::string& text);

// Of what has a default: no size is not the default.
[[nodiscard]] Result<uint64_t> given_size(const char* option, const std::string& text);

// `path` is that of a volume or tray.
[[nodiscard]] Status accept_loss(const Api& api, const Arguments& arguments,
                                 const std::string& path);

}  // namespace pf::tools

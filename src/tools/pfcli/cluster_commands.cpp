// pfcli status, top and version: the cluster as a whole.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "tools/pfcli/commands.hpp"
#include "tools/pfcli/table.hpp"

namespace pf::tools {

using nlohmann::json;

namespace {

const std::vector<Column> status_details = {
    {"cluster_name", "cluster"},
    {"cluster_uuid", "uuid"},
    {"health", "health"},
    {"message", "message"},
    {"stores_online", "stores online"},
    {"stores", "stores"},
    {"trays_ok", "trays ok"},
    {"trays", "trays"},
    {"volumes", "volumes"},
    {"volumes_with_losses", "volumes with losses"},
    {"open_handles", "open handles"},
    {"tasks", "tasks"},
    {"volume_bytes", "volume sizes", Show::bytes},
    {"capacity_bytes", "capacity", Show::bytes},
    {"user_bytes", "used", Show::bytes},
    {"free_bytes", "free", Show::bytes},
};
const std::vector<Column> top_columns = {
    {"name", "NAME"},
    {"read_iops", "READ/S", Show::number},
    {"write_iops", "WRITE/S", Show::number},
    {"read_bytes_per_second", "READ B/S", Show::bytes},
    {"write_bytes_per_second", "WRITE B/S", Show::bytes},
    {"read_latency_seconds", "READ LAT", Show::latency},
    {"write_latency_seconds", "WRITE LAT", Show::latency},
};

Status status(const Api& api, const Arguments& arguments) {
    PF_TRY_ASSIGN(const json answer, api.get("/v1/status"));
    print(arguments, answer, details(answer, status_details));
    return {};
}

// Live on a terminal until it is interrupted; once otherwise, unless --count says more.
Status top(const Api& api, const Arguments& arguments) {
    const bool live = ::isatty(STDOUT_FILENO) != 0 && arguments.output == "table";
    const unsigned rounds = arguments.count != 0 ? arguments.count : live ? UINT32_MAX : 1;
    for (unsigned round = 0; round < rounds; ++round) {
        if (round > 0)
            std::this_thread::sleep_for(std::chrono::duration<double>(arguments.interval_s));
        PF_TRY_ASSIGN(json answer, api.get("/v1/top"));
        json& volumes = answer.at("volumes");
        std::sort(volumes.begin(), volumes.end(), [](const json& a, const json& b) {
            return a.at("read_iops").get<double>() + a.at("write_iops").get<double>() >
                   b.at("read_iops").get<double>() + b.at("write_iops").get<double>();
        });
        if (live) fmt::print("\033[H\033[2J");
        print(arguments, volumes, table(volumes, top_columns));
        std::fflush(stdout);
    }
    return {};
}

// Works without a conductor: what is this program, and what is the other side if there is one.
Status version(const Api& api, const Arguments& arguments) {
    json answer = {{"pfcli", PUREFLASH_VERSION}, {"conductor", nullptr}};
    const auto remote = api.get("/v1/version");
    if (remote) {
        answer["conductor"] = remote->at("version").get<std::string>();
    } else if (remote.error().code != Errc::disconnected) {
        return std::unexpected(remote.error());
    }
    print(arguments, answer, details(answer, {{"pfcli", "pfcli"}, {"conductor", "conductor"}}));
    return {};
}

}  // namespace

void add_cluster_commands(CLI::App& app, Arguments& arguments, Command& chosen) {
    app.add_subcommand("status", "State of the cluster")->callback([&] {
        chosen = {.run = &status, .prints_names = false};
    });
    auto* live = app.add_subcommand("top", "IOPS and latency of each volume, live on a terminal");
    live->callback([&] { chosen = {.run = &top}; });
    live->add_option("--interval", arguments.interval_s, "Seconds between updates (default 1)")
        ->check([](const std::string& text) {
            char* end = nullptr;
            const double seconds = std::strtod(text.c_str(), &end);
            const bool good = *end == '\0' && seconds >= 0.1 && seconds <= 3600;  // not nan
            return good ? "" : fmt::format("Value {} not in range 0.1 to 3600", text);
        });
    live->add_option("--count", arguments.count, "End after so many updates");
    app.add_subcommand("version", "Versions of pfcli and of the conductor")->callback([&] {
        chosen = {.run = &version, .prints_names = false, .waits = false};
    });
}

}  // namespace pf::tools

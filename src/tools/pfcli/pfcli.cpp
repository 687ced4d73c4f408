// pfcli: the administrator's command line, over REST.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <optional>
#include <thread>

#include "base/ports.hpp"
#include "base/units.hpp"
#include "base/uuid.hpp"
#include "tools/command_line.hpp"
#include "tools/pfcli/api.hpp"
#include "tools/pfcli/completion.hpp"
#include "tools/pfcli/table.hpp"

namespace {

using namespace pf;
using namespace pf::tools;
using nlohmann::json;

const std::vector<Column> volume_columns = {
    {"name", "NAME"},         {"size_bytes", "SIZE", Show::bytes},
    {"replicas", "REPLICAS"}, {"shard_count", "SHARDS"},
    {"health", "HEALTH"},     {"open_handles", "OPEN"},
};
const std::vector<Column> volume_details = {
    {"name", "name"},
    {"id", "id"},
    {"size_bytes", "size", Show::bytes},
    {"replicas", "replicas"},
    {"shard_bytes", "shard size", Show::bytes},
    {"shard_count", "shards"},
    {"health", "health"},
    {"open_handles", "open by"},
    {"created_at_ms", "created", Show::time_ms},
    {"lost_shards", "shards with losses"},
    {"message", "message"},
};
const std::vector<Column> store_columns = {
    {"id", "ID"},
    {"data_address", "ADDRESS"},
    {"http_address", "HTTP"},
    {"health", "HEALTH"},
    {"trays", "TRAYS"},
    {"last_heartbeat_ms", "HEARTBEAT MS"},
    {"version", "VERSION"},
    {"uuid", "UUID"},
};
const std::vector<Column> tray_columns = {
    {"uuid", "UUID"},
    {"store_id", "STORE"},
    {"health", "HEALTH"},
    {"capacity_bytes", "CAPACITY", Show::bytes},
    {"free_bytes", "FREE", Show::bytes},
    {"user_bytes", "USED", Show::bytes},
    {"path", "PATH"},
    {"message", "MESSAGE"},
};
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

void print(const Arguments& arguments, const json& value, const std::string& text) {
    if (arguments.output == "json") {
        fmt::print("{}\n", value.dump(2, ' ', false, json::error_handler_t::replace));
    } else if (arguments.output == "names") {
        for (const auto& row : value.is_array() ? value : json::array({value}))
            fmt::print("{}\n", row.contains("name") ? row.at("name").get<std::string>()
                                                    : row.at("uuid").get<std::string>());
    } else {
        fmt::print("{}", text);
    }
}

std::string volume_path(const std::string& name) {
    return "/v1/volumes/" + Api::escape(name);
}

// Of what has a default: no size is not the default.
Result<uint64_t> given_size(const char* option, const std::string& text) {
    PF_TRY_ASSIGN(const uint64_t bytes, parse_size(text));
    if (bytes > 0) return bytes;
    return fail(Errc::invalid_argument,
                fmt::format("{} {}: the size is zero; leave the option out for the default, or "
                            "give a size such as 10G",
                            option, text));
}

Status check_tray_uuid(const std::string& text) {
    if (Uuid::parse(text)) return {};
    return fail(Errc::invalid_argument,
                fmt::format("tray '{}' is not a UUID: `pfcli tray list` shows them", text));
}

Status volume_create(const Api& api, const Arguments& arguments) {
    PF_TRY(check_volume_name(arguments.name));
    PF_TRY_ASSIGN(const uint64_t size_bytes, parse_size(arguments.size));
    PF_TRY(check_volume_size(size_bytes));
    json body = {
        {"name", arguments.name}, {"size_bytes", size_bytes}, {"replicas", arguments.replicas}};
    if (arguments.shard_size) {
        PF_TRY_ASSIGN(body["shard_bytes"], given_size("--shard-size", *arguments.shard_size));
    }
    Result<json> made = api.post("/v1/volumes", body);
    // The first store of a cluster that is starting joins a moment after its conductor answers.
    const auto give_up = std::chrono::steady_clock::now() + patience;
    while (!made && made.error().code == Errc::unavailable &&
           std::chrono::steady_clock::now() < give_up) {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        made = api.post("/v1/volumes", body);
    }
    PF_TRY_ASSIGN(const json volume, std::move(made));
    print(arguments, volume, details(volume, volume_details));
    return {};
}

Status volume_list(const Api& api, const Arguments& arguments) {
    json volumes = json::array();
    std::string after;
    for (bool more = true; more;) {
        PF_TRY_ASSIGN(const json page, api.get("/v1/volumes?after=" + Api::escape(after)));
        for (const auto& volume : page.at("volumes")) volumes.push_back(volume);
        // A page that brings nothing new must not loop for ever.
        const std::string before = after;
        if (!volumes.empty()) after = volumes.back().at("name").get<std::string>();
        more = page.at("more").get<bool>() && after != before;
    }
    print(arguments, volumes, table(volumes, volume_columns));
    return {};
}

Status volume_show(const Api& api, const Arguments& arguments) {
    PF_TRY(check_volume_name(arguments.name));
    PF_TRY_ASSIGN(const json volume, api.get(volume_path(arguments.name)));
    print(arguments, volume, details(volume, volume_details));
    return {};
}

Status volume_resize(const Api& api, const Arguments& arguments) {
    PF_TRY(check_volume_name(arguments.name));
    PF_TRY_ASSIGN(const uint64_t size_bytes, parse_size(arguments.size));
    PF_TRY(check_volume_size(size_bytes));
    PF_TRY_ASSIGN(const json volume,
                  api.patch(volume_path(arguments.name), {{"size_bytes", size_bytes}}));
    print(arguments, volume, details(volume, volume_details));
    return {};
}

Status volume_rename(const Api& api, const Arguments& arguments) {
    PF_TRY(check_volume_name(arguments.name));
    PF_TRY(check_volume_name(arguments.new_name));
    PF_TRY_ASSIGN(const json volume,
                  api.patch(volume_path(arguments.name), {{"name", arguments.new_name}}));
    print(arguments, volume, details(volume, volume_details));
    return {};
}

Status volume_delete(const Api& api, const Arguments& arguments) {
    PF_TRY(check_volume_name(arguments.name));
    PF_TRY_ASSIGN(const json answer,
                  api.remove(volume_path(arguments.name) + (arguments.force ? "?force=true" : "")));
    const bool freed = answer.at("space_freed").get<bool>();
    print(arguments, answer,
          freed ? "deleted\n" : "deleted; its space is freed when its store is back\n");
    return {};
}

Status accept_loss(const Api& api, const Arguments& arguments, const std::string& path) {
    PF_TRY_ASSIGN(
        const json answer,
        api.post(path + "/accept-loss" + (arguments.force ? "?force=true" : ""), json::object()));
    print(arguments, answer,
          fmt::format("{} shards go on with what is left of them\n",
                      answer.at("accepted_shards").get<uint32_t>()));
    return {};
}

Status volume_accept_loss(const Api& api, const Arguments& arguments) {
    PF_TRY(check_volume_name(arguments.name));
    return accept_loss(api, arguments, volume_path(arguments.name));
}

Status tray_accept_loss(const Api& api, const Arguments& arguments) {
    PF_TRY(check_tray_uuid(arguments.name));
    return accept_loss(api, arguments, "/v1/trays/" + Api::escape(arguments.name));
}

Status store_list(const Api& api, const Arguments& arguments) {
    PF_TRY_ASSIGN(const json answer, api.get("/v1/stores"));
    const json& stores = answer.at("stores");
    print(arguments, stores, table(stores, store_columns));
    return {};
}

Status store_show(const Api& api, const Arguments& arguments) {
    PF_TRY_ASSIGN(const json store, api.get(fmt::format("/v1/stores/{}", arguments.store_id)));
    print(arguments, store,
          details(store, store_columns) + "\n" + table(store.at("trays"), tray_columns));
    return {};
}

Status tray_list(const Api& api, const Arguments& arguments) {
    PF_TRY_ASSIGN(const json answer, api.get("/v1/trays"));
    const json& trays = answer.at("trays");
    print(arguments, trays, table(trays, tray_columns));
    return {};
}

Status tray_add(const Api& api, const Arguments& arguments) {
    json body = {{"path", arguments.path}, {"force", arguments.force}};
    if (arguments.store_id != 0) body["store_id"] = arguments.store_id;
    if (arguments.tray_size) {
        PF_TRY_ASSIGN(body["create_bytes"], given_size("--size", *arguments.tray_size));
    }
    if (!arguments.write_cache.empty()) body["write_cache"] = arguments.write_cache;
    auto added = api.post("/v1/trays", body);
    if (!added && added.error().code == Errc::not_found && !arguments.tray_size)
        added.error().message += "; with --size SIZE a file is made";
    PF_TRY_ASSIGN(const json tray, std::move(added));
    print(arguments, tray, details(tray, tray_columns));
    return {};
}

Status tray_remove(const Api& api, const Arguments& arguments) {
    PF_TRY(check_tray_uuid(arguments.name));
    PF_TRY_ASSIGN(const json answer, api.remove("/v1/trays/" + Api::escape(arguments.name) +
                                                (arguments.force ? "?force=true" : "")));
    print(arguments, answer, "removed\n");
    return {};
}

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

using Command = Status (*)(const Api&, const Arguments&);

// The command that was chosen is left in `chosen`.
void add_volume_commands(CLI::App& app, Arguments& arguments, Command& chosen) {
    auto* volume = app.add_subcommand("volume", "Volumes")->require_subcommand(1);
    const auto add = [&](const char* name, const char* help, Command command) {
        return volume->add_subcommand(name, help)->callback([&chosen, command] {
            chosen = command;
        });
    };
    const auto named = [&](CLI::App* command) {
        command->add_option("NAME", arguments.name, "Name of the volume")->required();
        return command;
    };
    auto* create = named(add("create", "Make a volume", &volume_create));
    create->add_option("--size", arguments.size, "Size, e.g. 10G")->required();
    create->add_option("--replicas", arguments.replicas, "Copies of each shard (default 1)")
        ->check(CLI::Range(1U, UINT32_MAX));
    create->add_option("--shard-size", arguments.shard_size, "Size of a shard (default 64G)");
    add("list", "List volumes", &volume_list);
    named(add("show", "Show one volume", &volume_show));
    auto* resize = named(add("resize", "Grow a volume", &volume_resize));
    resize->add_option("--size", arguments.size, "The new size, e.g. 20G")->required();
    auto* rename = named(add("rename", "Give a volume another name", &volume_rename));
    rename->add_option("NEW_NAME", arguments.new_name, "The new name")->required();
    auto* remove = named(add("delete", "Delete a volume and its data", &volume_delete));
    remove->add_flag("--force", arguments.force, "Even if clients have it open");
    auto* accept = named(
        add("accept-loss", "Go on with what is left after writes were lost", &volume_accept_loss));
    accept->add_flag("--force", arguments.force, "What is read may be older than what was written");
}

void add_store_commands(CLI::App& app, Arguments& arguments, Command& chosen) {
    auto* store = app.add_subcommand("store", "Stores")->require_subcommand(1);
    store->add_subcommand("list", "List stores")->callback([&] { chosen = &store_list; });
    auto* show = store->add_subcommand("show", "Show one store and its trays");
    show->callback([&] { chosen = &store_show; });
    show->add_option("ID", arguments.store_id, "Number of the store")->required();

    auto* tray = app.add_subcommand("tray", "Trays")->require_subcommand(1);
    tray->add_subcommand("list", "List trays")->callback([&] { chosen = &tray_list; });
    auto* add = tray->add_subcommand("add", "Format a device or file and use it");
    add->callback([&] { chosen = &tray_add; });
    add->add_option("PATH", arguments.path, "Path on the store's host")->required();
    add->add_option("--store", arguments.store_id,
                    "Number of the store; needed if there are several");
    add->add_option("--size", arguments.tray_size, "Make a file of this size, e.g. 100G");
    add->add_flag("--force", arguments.force, "Format over what is there");
    add->add_option("--write-cache", arguments.write_cache,
                    "Whether it may lose completed writes with the power: detect, volatile or "
                    "none (on your word); default: as the store is set")
        ->check(CLI::IsMember({"detect", "volatile", "none"}));
    auto* remove = tray->add_subcommand("remove", "Stop using a tray");
    remove->callback([&] { chosen = &tray_remove; });
    remove->add_option("UUID", arguments.name, "The tray")->required();
    remove->add_flag("--force", arguments.force, "Even if volumes lose data on it");
    auto* accept = tray->add_subcommand(
        "accept-loss", "Go on with what is left of all its shards after writes were lost");
    accept->callback([&] { chosen = &tray_accept_loss; });
    accept->add_option("UUID", arguments.name, "The tray")->required();
    accept->add_flag("--force", arguments.force, "What is read may be older than what was written");
}

void add_other_commands(CLI::App& app, Arguments& arguments, Command& chosen) {
    app.add_subcommand("status", "State of the cluster")->callback([&] { chosen = &status; });
    auto* live = app.add_subcommand("top", "IOPS and latency of each volume, live on a terminal");
    live->callback([&] { chosen = &top; });
    live->add_option("--interval", arguments.interval_s, "Seconds between updates (default 1)")
        ->check(CLI::Range(0.1, 3600.0));
    live->add_option("--count", arguments.count, "End after so many updates");
    app.add_subcommand("version", "Versions of pfcli and of the conductor")->callback([&] {
        chosen = &version;
    });
    auto* completion = app.add_subcommand("completion", "Shell completion: source its output");
    completion->add_option("SHELL", arguments.shell, "bash or zsh")->required();
}

// What these print has neither a name nor a uuid, and some of them have changed the cluster by
// then.
bool prints_names(Command chosen) {
    static constexpr Command without[] = {
        &volume_delete, &volume_accept_loss, &tray_remove, &tray_accept_loss, &status, &version};
    return std::ranges::find(without, chosen) == std::end(without);
}

// Every command reads the fields it needs with checks that throw: an answer without them is of some
// other server, and that ends here.
Status run_command(const Api& api, const Arguments& arguments, Command chosen) {
    try {
        return chosen(api, arguments);
    } catch (const std::exception&) {
        return api.not_a_conductor();
    }
}

Status run(const CLI::App& app, const Arguments& arguments, Command chosen) {
    if (!arguments.shell.empty()) {
        PF_TRY_ASSIGN(const std::string script, completion_script(app, arguments.shell));
        fmt::print("{}", script);
        return {};
    }
    if (arguments.output == "names" && !prints_names(chosen)) {
        return fail(Errc::invalid_argument,
                    "-o names: this command has no names to print, nothing was done; allowed are "
                    "table and json");
    }
    PF_TRY_ASSIGN(Api api, Api::create(arguments.conductor));
    // `version` is for when nothing works.
    if (chosen != &version) api.be_patient(patience);
    return run_command(api, arguments, chosen);
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("Administers a PureFlash cluster", "pfcli");
    Arguments arguments;
    Command chosen = nullptr;
    app.set_version_flag("--version", PUREFLASH_VERSION);
    app.require_subcommand(1);
    app.fallthrough();
    app.add_option("--conductor", arguments.conductor, "HOST:PORT of the conductor")
        ->envname("PF_CONDUCTOR")
        ->take_last();
    app.add_option("-o,--output", arguments.output, "table, json or names")
        ->take_last()
        ->check(CLI::IsMember({"table", "json", "names"}));
    add_volume_commands(app, arguments, chosen);
    add_store_commands(app, arguments, chosen);
    add_other_commands(app, arguments, chosen);
    if (const auto over = parse_command_line(app, argc, argv)) return *over;
    const Status done = run(app, arguments, chosen);
    if (done) return 0;
    fmt::print(stderr, "pfcli: {}\n",
               done.error().message.empty() ? done.error().text() : done.error().message);
    return 1;
}

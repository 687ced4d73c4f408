// pfcli volume ...
#include <thread>

#include "base/units.hpp"
#include "tools/pfcli/commands.hpp"
#include "tools/pfcli/table.hpp"

namespace pf::tools {

using nlohmann::json;

namespace {

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

std::string volume_path(const std::string& name) {
    return "/v1/volumes/" + Api::escape(name);
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

Status volume_accept_loss(const Api& api, const Arguments& arguments) {
    PF_TRY(check_volume_name(arguments.name));
    return accept_loss(api, arguments, volume_path(arguments.name));
}

}  // namespace

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
    auto* create = named(add("create", "Make a volume", {.run = &volume_create}));
    create->add_option("--size", arguments.size, "Size, e.g. 10G")->required();
    create->add_option("--replicas", arguments.replicas, "Copies of each shard (default 1)")
        ->check(CLI::Range(1U, UINT32_MAX));
    create->add_option("--shard-size", arguments.shard_size, "Size of a shard (default 64G)");
    add("list", "List volumes", {.run = &volume_list});
    named(add("show", "Show one volume", {.run = &volume_show}));
    auto* resize = named(add("resize", "Grow a volume", {.run = &volume_resize}));
    resize->add_option("--size", arguments.size, "The new size, e.g. 20G")->required();
    auto* rename = named(add("rename", "Give a volume another name", {.run = &volume_rename}));
    rename->add_option("NEW_NAME", arguments.new_name, "The new name")->required();
    auto* remove = named(add("delete", "Delete a volume and its data",
                             {.run = &volume_delete, .prints_names = false}));
    remove->add_flag("--force", arguments.force, "Even if clients have it open");
    auto* accept = named(add("accept-loss", "Go on with what is left after writes were lost",
                             {.run = &volume_accept_loss, .prints_names = false}));
    accept->add_flag("--force", arguments.force, "What is read may be older than what was written");
}

}  // namespace pf::tools

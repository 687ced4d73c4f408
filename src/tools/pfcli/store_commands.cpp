// pfcli store ... and pfcli tray ...
#include "base/uuid.hpp"
#include "tools/pfcli/commands.hpp"
#include "tools/pfcli/table.hpp"

namespace pf::tools {

using nlohmann::json;

namespace {

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

Status check_tray_uuid(const std::string& text) {
    if (Uuid::parse(text)) return {};
    return fail(Errc::invalid_argument,
                fmt::format("tray '{}' is not a UUID: `pfcli tray list` shows them", text));
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

Status tray_accept_loss(const Api& api, const Arguments& arguments) {
    PF_TRY(check_tray_uuid(arguments.name));
    return accept_loss(api, arguments, "/v1/trays/" + Api::escape(arguments.name));
}

}  // namespace

void add_store_commands(CLI::App& app, Arguments& arguments, Command& chosen) {
    auto* store = app.add_subcommand("store", "Stores")->require_subcommand(1);
    store->add_subcommand("list", "List stores")->callback([&] { chosen = {.run = &store_list}; });
    auto* show = store->add_subcommand("show", "Show one store and its trays");
    show->callback([&] { chosen = {.run = &store_show}; });
    show->add_option("ID", arguments.store_id, "Number of the store")->required();

    auto* tray = app.add_subcommand("tray", "Trays")->require_subcommand(1);
    tray->add_subcommand("list", "List trays")->callback([&] { chosen = {.run = &tray_list}; });
    auto* add = tray->add_subcommand("add", "Format a device or file and use it");
    add->callback([&] { chosen = {.run = &tray_add}; });
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
    remove->callback([&] { chosen = {.run = &tray_remove, .prints_names = false}; });
    remove->add_option("UUID", arguments.name, "The tray")->required();
    remove->add_flag("--force", arguments.force, "Even if volumes lose data on it");
    auto* accept = tray->add_subcommand(
        "accept-loss", "Go on with what is left of all its shards after writes were lost");
    accept->callback([&] { chosen = {.run = &tray_accept_loss, .prints_names = false}; });
    accept->add_option("UUID", arguments.name, "The tray")->required();
    accept->add_flag("--force", arguments.force, "What is read may be older than what was written");
}

}  // namespace pf::tools

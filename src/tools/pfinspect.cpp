// pfinspect: reads a tray offline. Exit code: 0 clean, 1 damage found, 2 usage or other error.
#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "runtime/uring/uring_reactor.hpp"
#include "tools/command_line.hpp"
#include "tray/inspect.hpp"

namespace {

using namespace pf;
using nlohmann::ordered_json;
using runtime::Task;

constexpr int exit_clean = 0;
constexpr int exit_damage = 1;
constexpr int exit_error = 2;

struct Arguments {
    std::string path;
    std::string what;
    std::string output = "text";
};

ordered_json to_json(const tray::GenerationId& id) {
    return {{"shard", id.shard}, {"snap_seq", id.snap_seq}};
}

ordered_json to_json(const tray::Root& root) {
    return {{"number", root.number},
            {"incarnation", root.incarnation},
            {"log_start", root.log_start},
            {"directory_pages", root.directory_pages},
            {"bitmap", root.bitmap.address == tray::unmapped_address
                           ? ordered_json(nullptr)
                           : ordered_json(uint32_t{root.bitmap.address})}};
}

ordered_json to_json(const tray::Record& record) {
    if (const auto* write = std::get_if<tray::WriteRecord>(&record)) {
        return {{"type", write->kind == tray::WriteKind::data   ? "write"
                         : write->kind == tray::WriteKind::zero ? "zero"
                                                                : "unmap"},
                {"shard", write->shard},
                {"snap_seq", write->snap_seq},
                {"epoch", write->position.epoch},
                {"sequence", write->position.sequence},
                {"session", write->request.session},
                {"request", write->request.request},
                {"block", write->block},
                {"count", write->count},
                {"extents", write->extents.size()},
                {"logged_again", write->logged_again}};
    }
    if (const auto* commit = std::get_if<tray::CommitRecord>(&record)) {
        return {{"type", "commit"},
                {"shard", commit->shard},
                {"epoch", commit->position.epoch},
                {"sequence", commit->position.sequence}};
    }
    if (const auto* shard = std::get_if<tray::ShardRecord>(&record)) {
        return {{"type", shard->type == tray::RecordType::create_shard   ? "create_shard"
                         : shard->type == tray::RecordType::delete_shard ? "delete_shard"
                         : shard->type == tray::RecordType::accept_loss  ? "accept_loss"
                                                                         : "set_shard"},
                {"shard", shard->state.shard},
                {"blocks", shard->state.blocks},
                {"epoch", shard->state.epoch}};
    }
    if (const auto* generation = std::get_if<tray::GenerationRecord>(&record)) {
        return {
            {"type", generation->type == tray::RecordType::create_generation ? "create_generation"
                                                                             : "delete_generation"},
            {"id", to_json(generation->id)},
            {"parent", to_json(generation->parent)}};
    }
    const auto& session = std::get<tray::SessionRecord>(record);
    return {{"type", session.type == tray::RecordType::open_session    ? "open_session"
                     : session.type == tray::RecordType::close_session ? "close_session"
                                                                       : "void_request"},
            {"shard", session.shard},
            {"session", session.request.session},
            {"request", session.request.request}};
}

void add_damage(ordered_json& json, const std::vector<tray::Damage>& damage) {
    json["damage"] = ordered_json::array();
    for (const auto& found : damage) {
        json["damage"].push_back({{"where", found.where}, {"what", found.what}});
    }
}

Task<Result<ordered_json>> superblock_json(tray::Inspector& inspector) {
    PF_CO_TRY_ASSIGN(const auto report, co_await inspector.superblocks());
    const tray::Superblock& superblock = report.superblock;
    ordered_json json;
    json["cluster"] = superblock.cluster.text();
    json["tray"] = superblock.tray.text();
    json["total_blocks"] = superblock.total_blocks;
    json["log_blocks"] = superblock.log_blocks;
    json["data_start"] = superblock.data_start;
    json["data_end"] = superblock.data_end;
    json["roots"] = ordered_json::array();
    for (const auto& root : report.roots) json["roots"].push_back(to_json(root));
    add_damage(json, report.damage);
    co_return json;
}

Task<Result<ordered_json>> log_json(tray::Inspector& inspector) {
    ordered_json blocks = ordered_json::array();
    const auto visit = [&blocks](const tray::LogBlock& block,
                                 const std::vector<tray::Record>& records) {
        ordered_json entry = {{"sequence", block.header.sequence},
                              {"incarnation", block.header.incarnation},
                              {"log_durable", block.header.log_durable},
                              {"data_confirmed", block.header.data_confirmed},
                              {"root_number", block.header.root_number}};
        entry["records"] = ordered_json::array();
        for (const auto& record : records) entry["records"].push_back(to_json(record));
        blocks.push_back(std::move(entry));
    };
    PF_CO_TRY_ASSIGN(const auto report, co_await inspector.log(visit));
    ordered_json json = {{"first", report.first},
                         {"last", report.last},
                         {"confirmed", report.confirmed},
                         {"blocks", std::move(blocks)}};
    add_damage(json, report.damage);
    co_return json;
}

Task<Result<ordered_json>> map_json(tray::Inspector& inspector) {
    PF_CO_TRY_ASSIGN(const auto report, co_await inspector.map());
    ordered_json json;
    json["shards"] = ordered_json::array();
    for (const auto& shard : report.shards) {
        json["shards"].push_back({{"shard", shard.shard},
                                  {"blocks", shard.blocks},
                                  {"epoch", shard.epoch},
                                  {"snap_seq", shard.snap_seq},
                                  {"damaged", shard.damaged}});
    }
    json["generations"] = ordered_json::array();
    for (const auto& generation : report.generations) {
        json["generations"].push_back({{"id", to_json(generation.id)},
                                       {"parent", to_json(generation.parent)},
                                       {"deleted", generation.deleted},
                                       {"tables", generation.tables},
                                       {"own_blocks", generation.own_blocks}});
    }
    json["user_blocks"] = report.user_blocks;
    json["metadata_blocks"] = report.metadata_blocks;
    json["free_blocks"] = report.free_blocks;
    json["bitmap"] = {{"pages", report.bitmap_pages}, {"blocks", report.bitmap_blocks}};
    json["replayed_records"] = report.replayed_records;
    json["dropped_records"] = report.dropped_records;
    add_damage(json, report.damage);
    co_return json;
}

Task<Result<ordered_json>> verify_json(tray::Inspector& inspector) {
    PF_CO_TRY_ASSIGN(const auto report, co_await inspector.verify());
    ordered_json json = {{"tables", report.tables}, {"blocks", report.blocks}};
    add_damage(json, report.damage);
    co_return json;
}

Task<Result<ordered_json>> inspect(const Arguments& arguments) {
    auto& reactor = runtime::Reactor::current();
    runtime::DiskOptions options;
    options.read_only = true;
    PF_CO_TRY_ASSIGN(auto disk, co_await reactor.open_disk(arguments.path, options));
    tray::Inspector inspector(std::move(disk));
    if (arguments.what == "superblock") co_return co_await superblock_json(inspector);
    if (arguments.what == "log") co_return co_await log_json(inspector);
    if (arguments.what == "map") co_return co_await map_json(inspector);
    co_return co_await verify_json(inspector);
}

Task<void> inspect_and_stop(runtime::UringReactor& reactor, const Arguments& arguments,
                            Result<ordered_json>& result) {
    result = co_await inspect(arguments);
    reactor.stop();
}

// One "path: value" line per leaf: easy to read and to grep.
void print_text(const ordered_json& json) {
    const ordered_json flat = json.flatten();
    for (const auto& [key, value] : flat.items()) {
        // Empty lists become null here.
        fmt::print("{}: {}\n", key.substr(1),
                   value.is_null()     ? "none"
                   : value.is_string() ? value.get<std::string>()
                                       : value.dump());
    }
}

}  // namespace

int main(int argc, char** argv) {
    Arguments arguments;
    CLI::App app("Reads a PureFlash tray offline. Exit code: 0 clean, 1 damage found, 2 error.",
                 "pfinspect");
    app.set_version_flag("--version", PUREFLASH_VERSION);
    app.add_option("PATH", arguments.path, "device or file of the tray")->required();
    app.add_option("WHAT", arguments.what, "superblock, log, map or verify")
        ->required()
        ->check(CLI::IsMember({"superblock", "log", "map", "verify"}));
    app.add_option("-o,--output", arguments.output, "text or json")
        ->check(CLI::IsMember({"text", "json"}));
    if (const auto over = tools::parse_command_line(app, argc, argv)) return *over;
    runtime::UringOptions options;
    options.register_arena = false;
    auto reactor = runtime::UringReactor::create(options);
    if (!reactor) {
        fmt::print(stderr, "pfinspect: {}\n", reactor.error().text());
        return exit_error;
    }
    Result<ordered_json> result = fail(Errc::internal);
    (*reactor)->spawn(inspect_and_stop(**reactor, arguments, result));
    (*reactor)->run();
    if (!result) {
        fmt::print(stderr, "pfinspect: {}\n", result.error().text());
        return result.error().code == Errc::corrupt ? exit_damage : exit_error;
    }
    if (arguments.output == "json")
        fmt::print("{}\n", result->dump(2));
    else
        print_text(*result);
    return (*result)["damage"].empty() ? exit_clean : exit_damage;
}

#include "conductor/rest_json.hpp"

#include <fmt/format.h>

#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

namespace pf::conductor {

using nlohmann::json;

namespace {

std::string_view health_name(v1::Health health) {
    switch (health) {
        case v1::HEALTH_OK:
            return "ok";
        case v1::HEALTH_DEGRADED:
            return "degraded";
        case v1::HEALTH_ERROR:
            return "error";
        case v1::HEALTH_OFFLINE:
            return "offline";
        default:
            return "unknown";
    }
}

// Takes fields out of an object one by one; what is left over at the end is unknown.
class Fields {
  public:
    static Result<Fields> parse(std::string_view body) {
        std::set<std::string, std::less<>> names;
        std::string twice;  // the parser alone would let the last one win
        const auto see = [&](int depth, json::parse_event_t event, const json& found) {
            if (event != json::parse_event_t::key || depth != 1) return true;
            const auto& name = found.get_ref<const std::string&>();
            if (!names.insert(name).second && twice.empty()) twice = name;
            return true;
        };
        json value = json::parse(body, see, false);
        if (value.is_discarded()) {
            return fail(Errc::invalid_argument, "the body is not JSON: send one JSON object");
        }
        if (!value.is_object()) {
            return fail(Errc::invalid_argument,
                        fmt::format("the body is a JSON {}: send an object", value.type_name()));
        }
        if (!twice.empty()) {
            return fail(Errc::invalid_argument, fmt::format("field '{}' is given twice", twice));
        }
        return Fields(std::move(value));
    }

    Result<std::optional<std::string>> text(const char* name) {
        const auto found = object_.find(name);
        if (found == object_.end()) return std::nullopt;
        if (!found->is_string()) return mistyped(name, "a string", *found);
        std::optional<std::string> out = found->get<std::string>();
        object_.erase(found);
        return out;
    }
    Result<std::optional<uint64_t>> number(const char* name,
                                           uint64_t limit = std::numeric_limits<uint64_t>::max()) {
        const auto found = object_.find(name);
        if (found == object_.end()) return std::nullopt;
        if (!found->is_number_unsigned()) return mistyped(name, "a whole number from 0", *found);
        const auto value = found->get<uint64_t>();
        if (value > limit) {
            return fail(Errc::invalid_argument,
                        fmt::format("field '{}' is {}: at most {}", name, value, limit));
        }
        object_.erase(found);
        return std::optional<uint64_t>(value);
    }
    // Of what has a default: no size is not the default.
    Result<uint64_t> size_or_default(const char* name) {
        PF_TRY_ASSIGN(const auto given, number(name));
        if (!given || *given > 0) return given.value_or(0);
        return fail(Errc::invalid_argument,
                    fmt::format("field '{}' is 0: leave it out for the default, or give a size in "
                                "bytes",
                                name));
    }
    Result<bool> flag(const char* name) {
        const auto found = object_.find(name);
        if (found == object_.end()) return false;
        if (!found->is_boolean()) return mistyped(name, "true or false", *found);
        const bool value = found->get<bool>();
        object_.erase(found);
        return value;
    }
    [[nodiscard]] Status done(std::string_view known) const {
        if (object_.empty()) return {};
        return fail(Errc::invalid_argument,
                    fmt::format("unknown field '{}': there are {}", object_.begin().key(), known));
    }

  private:
    explicit Fields(json object) : object_(std::move(object)) {}
    static std::unexpected<Error> mistyped(const char* name, const char* wanted,
                                           const json& value) {
        return fail(Errc::invalid_argument, fmt::format("field '{}' is a {}: it must be {}", name,
                                                        value.type_name(), wanted));
    }
    json object_;
};

}  // namespace

json to_json(const v1::Volume& volume) {
    return {{"id", volume.id()},
            {"name", volume.name()},
            {"size_bytes", volume.size_bytes()},
            {"shard_bytes", volume.shard_bytes()},
            {"shard_count", volume.shard_count()},
            {"replicas", volume.replicas()},
            {"health", health_name(volume.health())},
            {"created_at_ms", volume.created_at_ms()},
            {"writer_token", volume.writer_token()},
            {"open_handles", volume.open_handles()},
            {"lost_shards", volume.lost_shards()},
            {"message", volume.message()}};
}

json to_json(const v1::Tray& tray) {
    return {{"uuid", tray.uuid()},
            {"store_id", tray.store_id()},
            {"path", tray.path()},
            {"health", health_name(tray.health())},
            {"message", tray.message()},
            {"capacity_bytes", tray.capacity_bytes()},
            {"free_bytes", tray.free_bytes()},
            {"user_bytes", tray.user_bytes()},
            {"log_bytes", tray.log_bytes()},
            {"log_used_bytes", tray.log_used_bytes()},
            {"volatile_cache", tray.volatile_cache()},
            {"incarnation", tray.incarnation()}};
}

json to_json(const v1::Store& store) {
    json trays = json::array();
    for (const auto& tray : store.trays()) trays.push_back(to_json(tray));
    return {{"id", store.id()},
            {"uuid", store.uuid()},
            {"data_address", store.data_address()},
            {"http_address", store.http_address()},
            {"health", health_name(store.health())},
            {"last_heartbeat_ms", store.last_heartbeat_ms()},
            {"version", store.version()},
            {"trays", std::move(trays)}};
}

json to_json(const ClusterStatus& status) {
    return {{"cluster_uuid", status.cluster.uuid()},
            {"cluster_name", status.cluster.name()},
            {"health", health_name(status.health)},
            {"message", status.message},
            {"volumes", status.volumes},
            {"stores", status.stores},
            {"stores_online", status.stores_online},
            {"trays", status.trays},
            {"trays_ok", status.trays_ok},
            {"open_handles", status.open_handles},
            {"tasks", status.tasks},
            {"volumes_with_losses", status.volumes_with_losses},
            {"capacity_bytes", status.capacity_bytes},
            {"free_bytes", status.free_bytes},
            {"user_bytes", status.user_bytes},
            {"volume_bytes", status.volume_bytes}};
}

json to_json(const VolumeRate& rate) {
    return {{"name", rate.name},
            {"read_iops", rate.read_iops},
            {"write_iops", rate.write_iops},
            {"read_bytes_per_second", rate.read_bytes_per_second},
            {"write_bytes_per_second", rate.write_bytes_per_second},
            {"read_latency_seconds", rate.read_latency_seconds},
            {"write_latency_seconds", rate.write_latency_seconds}};
}

std::string to_text(const json& value) {
    return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<v1::CreateVolumeRequest> parse_create_volume(std::string_view body) {
    PF_TRY_ASSIGN(auto fields, Fields::parse(body));
    PF_TRY_ASSIGN(const auto name, fields.text("name"));
    PF_TRY_ASSIGN(const auto size_bytes, fields.number("size_bytes"));
    PF_TRY_ASSIGN(const auto replicas, fields.number("replicas", 16));
    PF_TRY_ASSIGN(const uint64_t shard_bytes, fields.size_or_default("shard_bytes"));
    PF_TRY(fields.done("name, size_bytes, replicas and shard_bytes"));
    if (!name || !size_bytes) {
        return fail(Errc::invalid_argument,
                    fmt::format("field '{}' is missing", name ? "size_bytes" : "name"));
    }
    if (replicas && *replicas == 0) {
        return fail(Errc::invalid_argument, "replicas must be at least 1");
    }
    v1::CreateVolumeRequest request;
    request.set_name(*name);
    request.set_size_bytes(*size_bytes);
    request.set_replicas(static_cast<uint32_t>(replicas.value_or(1)));
    request.set_shard_bytes(shard_bytes);
    return request;
}

Result<VolumeChange> parse_volume_change(std::string_view body) {
    PF_TRY_ASSIGN(auto fields, Fields::parse(body));
    VolumeChange change;
    PF_TRY_ASSIGN(change.name, fields.text("name"));
    PF_TRY_ASSIGN(change.size_bytes, fields.number("size_bytes"));
    PF_TRY(fields.done("name and size_bytes"));
    if (change.name.has_value() == change.size_bytes.has_value()) {
        return fail(Errc::invalid_argument,
                    "exactly one of 'name' (rename) and 'size_bytes' (resize) must be given");
    }
    return change;
}

Result<NewTray> parse_new_tray(std::string_view body) {
    PF_TRY_ASSIGN(auto fields, Fields::parse(body));
    PF_TRY_ASSIGN(const auto path, fields.text("path"));
    PF_TRY_ASSIGN(const uint64_t create_bytes, fields.size_or_default("create_bytes"));
    PF_TRY_ASSIGN(const auto store_id, fields.number("store_id", UINT32_MAX));
    PF_TRY_ASSIGN(const bool force, fields.flag("force"));
    PF_TRY_ASSIGN(const auto write_cache, fields.text("write_cache"));
    PF_TRY(fields.done("path, create_bytes, store_id, force and write_cache"));
    if (!path) return fail(Errc::invalid_argument, "field 'path' is missing");
    NewTray tray;
    tray.store_id = static_cast<uint32_t>(store_id.value_or(0));
    tray.request.set_path(*path);
    tray.request.set_create_bytes(create_bytes);
    tray.request.set_force(force);
    tray.request.set_write_cache(write_cache.value_or(""));
    return tray;
}

Result<bool> parse_flag(std::string_view name, const std::string* value) {
    if (value == nullptr || *value == "false") return false;
    if (*value == "true") return true;
    return fail(Errc::invalid_argument,
                fmt::format("parameter '{}' is '{}': true or false", name, *value));
}

Result<uint32_t> parse_number(std::string_view name, std::string_view value) {
    uint32_t number = 0;
    const auto parsed = std::from_chars(value.data(), value.data() + value.size(), number);
    if (value.empty() || parsed.ec != std::errc{} || parsed.ptr != value.data() + value.size()) {
        return fail(Errc::invalid_argument,
                    fmt::format("'{}' is '{}': a whole number from 0", name, value));
    }
    return number;
}

}  // namespace pf::conductor

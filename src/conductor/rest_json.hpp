// JSON of the REST interface: snake_case, 64-bit values as numbers, health as a lowercase word. (The
// JSON mapping of protobuf writes 64-bit values as strings, hence our own.) Parsers take what a
// stranger sent: unknown and mistyped fields are refused by name.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "conductor/core.hpp"

namespace pf::conductor {

[[nodiscard]] nlohmann::json to_json(const v1::Volume& volume);
[[nodiscard]] nlohmann::json to_json(const v1::Tray& tray);
[[nodiscard]] nlohmann::json to_json(const v1::Store& store);
[[nodiscard]] nlohmann::json to_json(const ClusterStatus& status);
[[nodiscard]] nlohmann::json to_json(const VolumeRate& rate);
[[nodiscard]] std::string to_text(const nlohmann::json& json);

struct VolumeChange {
    std::optional<std::string> name;
    std::optional<uint64_t> size_bytes;
};
struct NewTray {
    uint32_t store_id = 0;
    v1::AddTrayRequest request;
};

[[nodiscard]] Result<v1::CreateVolumeRequest> parse_create_volume(std::string_view body);
[[nodiscard]] Result<VolumeChange> parse_volume_change(std::string_view body);
[[nodiscard]] Result<NewTray> parse_new_tray(std::string_view body);
// "true" or "false"; absent is false.
[[nodiscard]] Result<bool> parse_flag(std::string_view name, const std::string* value);
[[nodiscard]] Result<uint32_t> parse_number(std::string_view name, std::string_view value);

}  // namespace pf::conductor

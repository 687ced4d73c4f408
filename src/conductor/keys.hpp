// The keys of everything the conductor persists (docs/formats/metadata.md). Numbers are fixed-width
// hexadecimal, so that byte order is numeric order.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace pf::conductor::keys {

inline constexpr std::string_view cluster = "cluster";
inline constexpr std::string_view volumes = "volumes/";
inline constexpr std::string_view names = "names/";
inline constexpr std::string_view shards = "shards/";
inline constexpr std::string_view stores = "stores/";
inline constexpr std::string_view trays = "trays/";
inline constexpr std::string_view tasks = "tasks/";
inline constexpr std::string_view open_marks = "open/";

[[nodiscard]] inline std::string counter(std::string_view name) {
    return fmt::format("counters/{}", name);
}
[[nodiscard]] inline std::string volume(uint64_t id) {
    return fmt::format("{}{:016x}", volumes, id);
}
[[nodiscard]] inline std::string name(std::string_view volume_name) {
    return fmt::format("{}{}", names, volume_name);
}
[[nodiscard]] inline std::string shard_page(uint64_t volume_id, size_t page) {
    return fmt::format("{}{:016x}/{:08x}", shards, volume_id, page);
}
[[nodiscard]] inline std::string store(uint32_t id) {
    return fmt::format("{}{:08x}", stores, id);
}
[[nodiscard]] inline std::string tray(std::string_view uuid) {
    return fmt::format("{}{}", trays, uuid);
}
// A trim of a volume; there is at most one for each.
[[nodiscard]] inline std::string task(uint64_t volume_id) {
    return fmt::format("{}{:016x}", tasks, volume_id);
}
// Exists while clients have the volume open, so that a restarted conductor knows.
[[nodiscard]] inline std::string open_mark(uint64_t volume_id) {
    return fmt::format("{}{:016x}", open_marks, volume_id);
}

}  // namespace pf::conductor::keys

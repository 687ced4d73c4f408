// What people read: JSON of the API as aligned columns, or as lines of name and value.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pf::tools {

enum class Show : uint8_t { plain, bytes, time_ms, number, latency };

struct Column {
    const char* field;
    const char* title;
    Show show = Show::plain;
};

// Both throw (nlohmann::json::exception) for what is not rows, or a row, with the first column.
[[nodiscard]] std::string table(const nlohmann::json& rows, const std::vector<Column>& columns);
[[nodiscard]] std::string details(const nlohmann::json& row, const std::vector<Column>& columns);

}  // namespace pf::tools

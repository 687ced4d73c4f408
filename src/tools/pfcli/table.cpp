#include "tools/pfcli/table.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/units.hpp"

namespace pf::tools {

using nlohmann::json;

namespace {

// Every row of a conductor has its first column, so one without is of something else.
void check_row(const json& row, const std::vector<Column>& columns) {
    (void)row.at(columns.front().field);
}

std::string cell(const json& row, const Column& column) {
    const auto found = row.find(column.field);
    if (found == row.end() || found->is_null()) return "-";
    switch (column.show) {
        case Show::bytes:
            if (found->is_number()) return format_size(found->get<uint64_t>());
            break;
        case Show::time_ms:
            if (found->is_number()) {
                const auto seconds = static_cast<time_t>(found->get<uint64_t>() / 1000);
                return fmt::format("{:%Y-%m-%d %H:%M:%S}", fmt::localtime(seconds));
            }
            break;
        case Show::number:
            if (found->is_number()) return fmt::format("{:.0f}", found->get<double>());
            break;
        case Show::latency:
            if (found->is_number()) return fmt::format("{:.0f} us", found->get<double>() * 1e6);
            break;
        case Show::plain:
            break;
    }
    if (found->is_string()) return found->get<std::string>();
    if (found->is_array()) return std::to_string(found->size());
    return found->dump();
}

// Columns are counted in code points, so that names in any script line up.
size_t width(const std::string& text) {
    return static_cast<size_t>(
        std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

std::string table(const json& rows, const std::vector<Column>& columns) {
    std::vector<std::vector<std::string>> lines(1);
    for (const auto& column : columns) lines[0].emplace_back(column.title);
    for (const auto& row : rows.get_ref<const json::array_t&>()) {
        check_row(row, columns);
        auto& line = lines.emplace_back();
        for (const auto& column : columns) line.push_back(cell(row, column));
    }
    std::vector<size_t> widths(columns.size(), 0);
    for (const auto& line : lines) {
        for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], width(line[i]));
    }
    std::string out;
    for (const auto& line : lines) {
        for (size_t i = 0; i < line.size(); ++i) {
            out += line[i];
            if (i + 1 < line.size()) out.append(widths[i] - width(line[i]) + 2, ' ');
        }
        out += '\n';
    }
    return out;
}

std::string details(const json& row, const std::vector<Column>& columns) {
    check_row(row, columns);
    size_t longest = 0;
    for (const auto& column : columns) longest = std::max(longest, width(column.title));
    std::string out;
    for (const auto& column : columns) {
        out += column.title;
        out.append(longest - width(column.title) + 2, ' ');
        out += cell(row, column) + '\n';
    }
    return out;
}

}  // namespace pf::tools

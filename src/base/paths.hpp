// Paths that people give, and that are kept in files of lines.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "base/error.hpp"

namespace pf {

// No control characters: a line break in one would make the store's list of trays unreadable.
[[nodiscard]] inline Status check_tray_path(std::string_view path) {
    constexpr size_t max_bytes = 4096;
    const auto is_control = [](char c) {
        return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    };
    const auto bad = std::ranges::find_if(path, is_control);
    if (bad != path.end()) {
        return fail(Errc::invalid_argument,
                    fmt::format("the tray path has the control character 0x{:02x}: rename the file",
                                static_cast<unsigned char>(*bad)));
    }
    if (path.size() > max_bytes) {
        return fail(Errc::invalid_argument,
                    fmt::format("the tray path has {} bytes: at most {} are "
                                "allowed",
                                path.size(), max_bytes));
    }
    return {};
}

}  // namespace pf

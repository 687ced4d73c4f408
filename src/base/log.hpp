// Logging for people: a level and one line of text, to stderr unless a sink is set. Not on the I/O
// path. Thread-safe. Nothing decides on what was logged, and the text carries no time of its own
// (the sink adds it), so logging does not disturb determinism.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string_view>

#include "base/error.hpp"

namespace pf {

enum class LogLevel : uint8_t { debug, info, warning, error, off };

void set_log_level(LogLevel level) noexcept;
[[nodiscard]] LogLevel log_level() noexcept;
// "debug", "info", "warning", "error" or "off".
[[nodiscard]] Result<LogLevel> parse_log_level(std::string_view text);

// Takes every line instead of stderr (the simulator, tests); nullptr restores stderr.
using LogSink = void (*)(LogLevel level, std::string_view line);
void set_log_sink(LogSink sink) noexcept;

void write_log(LogLevel level, std::string_view line) noexcept;

template <class... Args>
void log_at(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
    if (level < log_level()) return;
    write_log(level, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
    log_at(LogLevel::debug, format, std::forward<Args>(args)...);
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
    log_at(LogLevel::info, format, std::forward<Args>(args)...);
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
    log_at(LogLevel::warning, format, std::forward<Args>(args)...);
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
    log_at(LogLevel::error, format, std::forward<Args>(args)...);
}

}  // namespace pf

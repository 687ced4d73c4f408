#include "base/log.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <array>
#include <atomic>

namespace pf {

namespace {

constexpr std::array<std::string_view, 5> level_names = {"debug", "info", "warning", "error",
                                                         "off"};

std::atomic<LogLevel> current_level{LogLevel::info};
std::atomic<LogSink> current_sink{nullptr};

spdlog::logger& stderr_logger() {
    // Never destroyed: threads may log while the process ends.
    static spdlog::logger* logger = [] {
        auto* made =
            new spdlog::logger("pureflash", std::make_shared<spdlog::sinks::stderr_sink_mt>());
        made->set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
        made->set_level(spdlog::level::trace);
        return made;
    }();
    return *logger;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
    switch (level) {
        case LogLevel::debug:
            return spdlog::level::debug;
        case LogLevel::info:
            return spdlog::level::info;
        case LogLevel::warning:
            return spdlog::level::warn;
        case LogLevel::error:
        case LogLevel::off:
            return spdlog::level::err;
    }
    return spdlog::level::err;
}

}  // namespace

void set_log_level(LogLevel level) noexcept {
    current_level.store(level, std::memory_order_relaxed);
}

LogLevel log_level() noexcept {
    return current_level.load(std::memory_order_relaxed);
}

Result<LogLevel> parse_log_level(std::string_view text) {
    for (size_t i = 0; i < level_names.size(); ++i) {
        if (text == level_names[i]) return static_cast<LogLevel>(i);
    }
    return fail(Errc::invalid_argument,
                fmt::format("log level '{}' is unknown: debug, info, warning, error or off", text));
}

void set_log_sink(LogSink sink) noexcept {
    current_sink.store(sink, std::memory_order_relaxed);
}

void write_log(LogLevel level, std::string_view line) noexcept {
    if (level < log_level() || level == LogLevel::off) return;
    if (const LogSink sink = current_sink.load(std::memory_order_relaxed)) {
        sink(level, line);
        return;
    }
    stderr_logger().log(to_spdlog(level), "{}", line);
}

}  // namespace pf

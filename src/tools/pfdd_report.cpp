#include "tools/pfdd_report.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/units.hpp"

namespace pf::tools {

namespace {

constexpr auto bar_interval = std::chrono::milliseconds(200);
constexpr auto line_interval = std::chrono::seconds(1);
constexpr size_t bar_width = 28;

// Powers of ten, as dd shows them.
std::string decimal(double value) {
    constexpr const char* units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    size_t unit = 0;
    for (; value >= 999.5 && unit + 1 < std::size(units); ++unit) value /= 1000;
    const int decimals = unit == 0 || value >= 9.95 ? 0 : 1;
    return fmt::format("{:.{}f} {}", value, decimals, units[unit]);
}

}  // namespace

Report::Report(DdOptions::Status status)
    : status_(status), terminal_(::isatty(STDERR_FILENO) == 1) {}

double Report::seconds_so_far() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
}

bool StallWatch::notice(const CopyCounts& counts, bool busy, Time now) {
    const uint64_t records = counts.records();
    const bool moved = records != records_ || !busy || now - looked_ > std::chrono::seconds(1);
    records_ = records;
    looked_ = now;
    if (moved) {
        moved_ = now;
        said_ = false;
    }
    return now - moved_ >= limit && !std::exchange(said_, true);
}

void Report::say_stalled() {
    if (terminal_ && line_length_ > 0) fmt::print(stderr, "\n");
    fmt::print(stderr,
               "pfdd: no block was finished for {} s: the volume's store is away or slow; see "
               "'pfcli status'\n",
               StallWatch::limit.count());
}

void Report::tick(const Copy& copy) {
    const auto now = std::chrono::steady_clock::now();
    if (stall_.notice(copy.counts(), copy.busy(), now) && status_ != DdOptions::Status::none)
        say_stalled();
    const bool wanted = status_ == DdOptions::Status::progress ||
                        (status_ == DdOptions::Status::automatic && terminal_);
    if (!wanted) return;
    if (now - printed_ < (terminal_ ? std::chrono::nanoseconds(bar_interval)
                                    : std::chrono::nanoseconds(line_interval)))
        return;
    printed_ = now;
    progress(copy, seconds_so_far());
}

void Report::progress(const Copy& copy, double seconds) {
    const auto bytes = static_cast<double>(copy.counts().bytes);
    const double rate = bytes / std::max(seconds, 1e-9);
    std::string line;
    if (const auto expected = copy.expected_bytes(); expected && *expected > 0) {
        const double part = std::min(1.0, bytes / static_cast<double>(*expected));
        const auto filled = static_cast<size_t>(part * bar_width);
        const double left = (static_cast<double>(*expected) - bytes) / std::max(rate, 1.0);
        line = fmt::format("[{:#<{}}{:.<{}}] {:3.0f} %  {} of {}  {}/s", "", filled, "",
                           bar_width - filled, part * 100, format_size(copy.counts().bytes),
                           format_size(*expected), decimal(rate));
        // Before the first byte there is no rate to tell it from.
        if (bytes > 0) line += fmt::format("  {:.0f} s left", left);
    } else {
        line = fmt::format("{} bytes ({}) copied, {:.0f} s, {}/s", copy.counts().bytes,
                           decimal(bytes), seconds, decimal(rate));
    }
    const size_t padding = line.size() < line_length_ ? line_length_ - line.size() : 0;
    line_length_ = line.size();
    if (terminal_) {
        fmt::print(stderr, "\r{}{:{}}", line, "", padding);
    } else {
        fmt::print(stderr, "{}\n", line);
    }
    std::fflush(stderr);
}

void Report::summary(const Copy& copy) {
    if (terminal_ && line_length_ > 0) {
        progress(copy, seconds_so_far());
        fmt::print(stderr, "\n");
    }
    if (status_ == DdOptions::Status::none) return;
    const CopyCounts& counts = copy.counts();
    if (counts.padded_bytes > 0)
        fmt::print(stderr, "the last sector was filled with {} bytes of zeros\n",
                   counts.padded_bytes);
    fmt::print(stderr, "{}+{} records in\n{}+{} records out\n", counts.full_in, counts.partial_in,
               counts.full_out, counts.partial_out);
    if (status_ == DdOptions::Status::noxfer) return;
    const double seconds = seconds_so_far();
    fmt::print(stderr, "{} bytes ({}, {}) copied, {:.6g} s, {}/s\n", counts.bytes,
               decimal(static_cast<double>(counts.bytes)), format_size(counts.bytes), seconds,
               decimal(static_cast<double>(counts.bytes) / std::max(seconds, 1e-9)));
}

}  // namespace pf::tools

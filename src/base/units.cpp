#include "base/units.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>

namespace pf {

namespace {

constexpr std::array<const char*, 6> unit_names = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};

constexpr std::string_view size_help =
    "a size is a positive number with an optional suffix K, M, G, T or P (powers of 1024), e.g. "
    "10G";

// Returns the power of two that a suffix stands for, or -1.
int suffix_shift(std::string_view suffix) {
    if (suffix.empty() || suffix == "B") return 0;
    static constexpr std::string_view letters = "KMGTP";
    const char upper = suffix[0] >= 'a' ? static_cast<char>(suffix[0] - 'a' + 'A') : suffix[0];
    const size_t index = letters.find(upper);
    if (index == std::string_view::npos) return -1;
    const std::string_view rest = suffix.substr(1);
    if (!rest.empty() && rest != "B" && rest != "iB") return -1;
    return static_cast<int>(index + 1) * 10;
}

// Takes one code point of UTF-8 off the front; false for anything else: cut, overlong, a surrogate.
bool take_code_point(std::string_view& text, uint32_t& code_point) {
    const auto first = static_cast<unsigned char>(text[0]);
    const size_t bytes = first < 0x80             ? 1
                         : (first & 0xe0) == 0xc0 ? 2
                         : (first & 0xf0) == 0xe0 ? 3
                         : (first & 0xf8) == 0xf0 ? 4
                                                  : 0;
    if (bytes == 0 || bytes > text.size()) return false;
    code_point = bytes == 1 ? first : first & (0x7fU >> bytes);
    for (size_t i = 1; i < bytes; ++i) {
        const auto next = static_cast<unsigned char>(text[i]);
        if ((next & 0xc0) != 0x80) return false;
        code_point = code_point << 6 | (next & 0x3fU);
    }
    static constexpr std::array<uint32_t, 5> least = {0, 0, 0x80, 0x800, 0x10000};
    text.remove_prefix(bytes);
    return code_point >= least[bytes] && code_point <= 0x10ffff &&
           !(code_point >= 0xd800 && code_point <= 0xdfff);
}

}  // namespace

Result<uint64_t> parse_size(std::string_view text) {
    const auto refuse = [&](std::string_view why) {
        return fail(Errc::invalid_argument, fmt::format("size '{}' {}: {}", text, why, size_help));
    };
    const size_t digits = text.find_first_not_of("0123456789.");
    const std::string_view number = text.substr(0, digits);
    const std::string_view suffix = digits == std::string_view::npos ? "" : text.substr(digits);
    if (number.empty()) return refuse("is not a number");
    const int shift = suffix_shift(suffix);
    if (shift < 0) return refuse("has an unknown suffix");

    if (number.find('.') == std::string_view::npos) {
        uint64_t value = 0;
        const auto parsed = std::from_chars(number.data(), number.data() + number.size(), value);
        if (parsed.ec != std::errc{}) return refuse("is too large");
        if (shift > 0 && (value >> (64 - shift)) != 0) return refuse("is too large");
        return value << shift;
    }
    double value = 0;
    const auto parsed = std::from_chars(number.data(), number.data() + number.size(), value);
    if (parsed.ec != std::errc{} || parsed.ptr != number.data() + number.size()) {
        return refuse("is not a number");
    }
    const double bytes = std::ldexp(value, shift);
    if (!(bytes < std::ldexp(1.0, 63))) return refuse("is too large");
    if (bytes != std::floor(bytes)) return refuse("is not a whole number of bytes");
    return static_cast<uint64_t>(bytes);
}

std::string format_size(uint64_t bytes) {
    size_t unit = 0;
    double value = static_cast<double>(bytes);
    while (value >= 1024 && unit + 1 < unit_names.size()) {
        value /= 1024;
        ++unit;
    }
    if (value == std::floor(value)) return fmt::format("{:.0f} {}", value, unit_names[unit]);
    return fmt::format("{:.1f} {}", value, unit_names[unit]);
}

std::string format_exact_size(uint64_t bytes) {
    size_t unit = 0;
    while (bytes != 0 && bytes % 1024 == 0 && unit + 1 < unit_names.size()) {
        bytes /= 1024;
        ++unit;
    }
    return fmt::format("{} {}", bytes, unit_names[unit]);
}

Status check_volume_name(std::string_view name) {
    if (name.empty())
        return fail(Errc::invalid_argument, "the volume name is empty: 1 to 96 bytes are allowed");
    if (name.size() > max_name_bytes) {
        return fail(Errc::invalid_argument,
                    fmt::format("the volume name has {} bytes: at most {} are allowed", name.size(),
                                max_name_bytes));
    }
    uint32_t c = 0;
    for (std::string_view rest = name; !rest.empty();) {
        if (!take_code_point(rest, c)) {
            return fail(Errc::invalid_argument,
                        "the volume name is not UTF-8: give it in UTF-8, other bytes are not "
                        "allowed");
        }
        if (c < 0x20 || (c >= 0x7f && c < 0xa0)) {
            return fail(
                Errc::invalid_argument,
                fmt::format("the volume name has the control character 0x{:02x}: remove it", c));
        }
        if (c == '/' || c == '@' || c == ':') {
            return fail(
                Errc::invalid_argument,
                fmt::format(
                    "the volume name '{}' has the character '{}': '/', '@' and ':' are not allowed",
                    name, static_cast<char>(c)));
        }
    }
    return {};
}

Status check_volume_size(uint64_t bytes) {
    if (bytes == 0 || bytes % block_bytes != 0) {
        return fail(Errc::invalid_argument,
                    fmt::format("volume size {} is not a positive multiple of 4096 bytes", bytes));
    }
    if (bytes > max_volume_bytes) {
        return fail(Errc::invalid_argument,
                    fmt::format("volume size {} is over the limit of 1 PiB ({} bytes)", bytes,
                                max_volume_bytes));
    }
    return {};
}

}  // namespace pf

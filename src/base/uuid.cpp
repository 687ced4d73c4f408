#include "base/uuid.hpp"

#include <fmt/format.h>

#include <cstring>

namespace pf {

std::string Uuid::text() const {
    std::string out;
    for (size_t i = 0; i < bytes.size(); ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
        out += fmt::format("{:02x}", bytes[i]);
    }
    return out;
}

Uuid Uuid::from_random(uint64_t high, uint64_t low) {
    Uuid uuid;
    std::memcpy(uuid.bytes.data(), &high, 8);
    std::memcpy(uuid.bytes.data() + 8, &low, 8);
    uuid.bytes[6] = static_cast<uint8_t>((uuid.bytes[6] & 0x0f) | 0x40);
    uuid.bytes[8] = static_cast<uint8_t>((uuid.bytes[8] & 0x3f) | 0x80);
    return uuid;
}

Result<Uuid> Uuid::parse(std::string_view text) {
    const auto refuse = [&] {
        return fail(Errc::invalid_argument,
                    fmt::format("'{}' is not a uuid of 32 hex digits", text));
    };
    Uuid uuid;
    size_t nibbles = 0;
    for (const char c : text) {
        if (c == '-') continue;
        int value = -1;
        if (c >= '0' && c <= '9') value = c - '0';
        if (c >= 'a' && c <= 'f') value = c - 'a' + 10;
        if (c >= 'A' && c <= 'F') value = c - 'A' + 10;
        if (value < 0 || nibbles == 32) return refuse();
        auto& byte = uuid.bytes[nibbles / 2];
        byte = static_cast<uint8_t>(nibbles % 2 == 0 ? value << 4 : byte | value);
        ++nibbles;
    }
    if (nibbles != 32) return refuse();
    return uuid;
}

}  // namespace pf

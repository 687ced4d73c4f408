// 128-bit identifiers of clusters, trays and replicas. Made from a caller's random numbers, so that
// the simulator gives the same ones for the same seed.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.hpp"

namespace pf {

struct Uuid {
    std::array<uint8_t, 16> bytes{};

    auto operator<=>(const Uuid&) const = default;
    [[nodiscard]] bool is_zero() const { return *this == Uuid{}; }
    // "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
    [[nodiscard]] std::string text() const;
    [[nodiscard]] static Uuid from_random(uint64_t high, uint64_t low);  // version 4
    [[nodiscard]] static Result<Uuid> parse(std::string_view text);
};

}  // namespace pf

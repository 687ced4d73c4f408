// Which seeds a randomised scenario runs. Every run prints its seed on failure; PF_SIM_SEED=N then
// replays exactly that one, and PF_SIM_RUNS=N widens the search (soak).
//
//     for (const uint64_t seed : seeds_to_run(20)) {
//         SCOPED_TRACE(testing::Message() << "PF_SIM_SEED=" << seed);
//         ...
//     }
#pragma once

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <vector>

#include "base/assert.hpp"

namespace pf::runtime::sim {

inline std::optional<uint64_t> number_from_environment(const char* name) {
    const char* text = std::getenv(name);
    if (text == nullptr) return std::nullopt;
    uint64_t value = 0;
    const char* end = text + std::strlen(text);
    const auto parsed = std::from_chars(text, end, value);
    PF_ASSERT(parsed.ec == std::errc{} && parsed.ptr == end);  // a typo must not pass as "no seed"
    return value;
}

inline std::vector<uint64_t> seeds_to_run(uint64_t runs) {
    if (const auto seed = number_from_environment("PF_SIM_SEED")) return {*seed};
    runs = number_from_environment("PF_SIM_RUNS").value_or(runs);
    std::vector<uint64_t> seeds;
    for (uint64_t seed = 1; seed <= runs; ++seed) seeds.push_back(seed);
    return seeds;
}

}  // namespace pf::runtime::sim

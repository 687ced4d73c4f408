// The command line of pfdd: operands NAME=VALUE as dd has them, and a few long options.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/error.hpp"

namespace pf::tools {

struct DdOptions {
    enum class Status : uint8_t { automatic, none, noxfer, progress };

    std::string input = "-";
    std::string output = "-";
    uint64_t block_bytes = 1u << 20;
    std::optional<uint64_t> count_bytes;  // nothing: to the end of the input
    uint64_t skip_bytes = 0;
    uint64_t seek_bytes = 0;
    uint32_t depth = 16;
    bool fsync = false;
    bool sparse = false;
    bool no_truncate = false;
    Status status = Status::automatic;
    std::string conductor;  // empty: from the environment
    bool help = false;
    bool version = false;
};

[[nodiscard]] Result<DdOptions> parse_dd_options(int argc, const char* const* argv);
[[nodiscard]] const char* dd_help();

// "pf:NAME" gives NAME.
[[nodiscard]] std::optional<std::string> volume_name(const std::string& operand);

}  // namespace pf::tools

// The earlier client library's INI file, as far as it matters here. Unknown sections and keys are
// ignored and bad numbers keep their default, as they always were.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pf::client {

struct PfConf {
    static constexpr uint32_t max_depth = 1024;
    static constexpr uint32_t max_timeout_s = 24 * 3600;

    std::string conductor;
    uint32_t depth = 120;
    uint32_t timeout_s = 30;
};

[[nodiscard]] PfConf parse_pf_conf(std::string_view text);

}  // namespace pf::client

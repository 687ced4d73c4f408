#include "tools/pfcli/commands.hpp"

#include "base/units.hpp"

namespace pf::tools {

using nlohmann::json;

void print(const Arguments& arguments, const json& value, const std::string& text) {
    if (arguments.output == "json") {
        fmt::print("{}\n", value.dump(2, ' ', false, json::error_handler_t::replace));
    } else if (arguments.output == "names") {
        for (const auto& row : value.is_array() ? value : json::array({value}))
            fmt::print("{}\n", row.contains("name") ? row.at("name").get<std::string>()
                                                    : row.at("uuid").get<std::string>());
    } else {
        fmt::print("{}", text);
    }
}

Result<uint64_t> given_size(const char* option, const std::string& text) {
    PF_TRY_ASSIGN(const uint64_t bytes, parse_size(text));
    if (bytes > 0) return bytes;
    return fail(Errc::invalid_argument,
                fmt::format("{} {}: the size is zero; leave the option out for the default, or "
                            "give a size such as 10G",
                            option, text));
}

Status accept_loss(const Api& api, const Arguments& arguments, const std::string& path) {
    PF_TRY_ASSIGN(
        const json answer,
        api.post(path + "/accept-loss" + (arguments.force ? "?force=true" : ""), json::object()));
    print(arguments, answer,
          fmt::format("{} shards go on with what is left of them\n",
                      answer.at("accepted_shards").get<uint32_t>()));
    return {};
}

}  // namespace pf::tools

#include "client/pf_conf.hpp"

#include <charconv>

namespace pf::client {

namespace {

std::string_view trim(std::string_view text) {
    const size_t first = text.find_first_not_of(" \t\r\n");
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

void read_number(std::string_view text, uint32_t limit, uint32_t& value) {
    uint32_t parsed = 0;
    const auto end = std::from_chars(text.data(), text.data() + text.size(), parsed);
    if (end.ec == std::errc{} && parsed > 0) value = parsed < limit ? parsed : limit;
}

void read_key(PfConf& conf, std::string_view section, std::string_view key,
              std::string_view value) {
    if (section == "conductor" && (key == "address" || key == "addr" || key == "conductor"))
        conf.conductor = value;
    if (section == "client" && key == "io_depth") read_number(value, PfConf::max_depth, conf.depth);
    if (section == "client" && key == "io_timeout")
        read_number(value, PfConf::max_timeout_s, conf.timeout_s);
}

}  // namespace

PfConf parse_pf_conf(std::string_view text) {
    PfConf conf;
    std::string_view section;
    while (!text.empty()) {
        const size_t end = text.find('\n');
        std::string_view line = text.substr(0, end);
        text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
        line = trim(line.substr(0, line.find_first_of("#;")));
        if (line.starts_with('[') && line.ends_with(']')) {
            section = trim(line.substr(1, line.size() - 2));
        } else if (const size_t equals = line.find('='); equals != std::string_view::npos) {
            read_key(conf, section, trim(line.substr(0, equals)), trim(line.substr(equals + 1)));
        }
    }
    return conf;
}

}  // namespace pf::client

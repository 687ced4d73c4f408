#include "base/config.hpp"

// toml++ 3.3 asserts on malformed keys ("[[["), or with NDEBUG lets the compiler assume them away;
// the code behind that assertion reports them properly.
#undef NDEBUG
#define TOML_ASSERT(expr) static_cast<void>(0)
#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <numeric>

#include "base/assert.hpp"
#include "base/units.hpp"

namespace pf {

namespace {

constexpr uint64_t max_config_bytes = 1u << 20;

std::string_view type_name(ConfigType type) {
    switch (type) {
        case ConfigType::text:
            return "text";
        case ConfigType::list:
            return "a list of texts";
        case ConfigType::boolean:
            return "true or false";
        case ConfigType::integer:
            return "a whole number from 0";
        case ConfigType::size:
            return "a size such as \"10G\"";
        case ConfigType::duration:
            return "a duration such as \"500ms\"";
    }
    return "";
}

Result<uint64_t> parse_integer(std::string_view text) {
    uint64_t value = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || parsed.ec != std::errc{} || parsed.ptr != text.data() + text.size()) {
        return fail(Errc::invalid_argument, fmt::format("'{}' is not a whole number from 0", text));
    }
    return value;
}

Status check_value(ConfigType type, std::string_view text) {
    switch (type) {
        case ConfigType::text:
        case ConfigType::list:
            return {};
        case ConfigType::boolean:
            if (text == "true" || text == "false") return {};
            return fail(Errc::invalid_argument, fmt::format("'{}' is not true or false", text));
        case ConfigType::integer:
            PF_TRY(parse_integer(text));
            return {};
        case ConfigType::size:
            PF_TRY(parse_size(text));
            return {};
        case ConfigType::duration:
            PF_TRY(parse_duration(text));
            return {};
    }
    return {};
}

std::vector<std::string> split_list(std::string_view text) {
    std::vector<std::string> out;
    while (!text.empty()) {
        const size_t comma = text.find(',');
        out.emplace_back(text.substr(0, comma));
        text = comma == std::string_view::npos ? "" : text.substr(comma + 1);
    }
    return out;
}

std::vector<std::string> from_text(ConfigType type, std::string_view text) {
    if (type == ConfigType::list) return split_list(text);
    return {std::string(text)};
}

// A TOML scalar as it would be typed on a command line.
Result<std::string> scalar_text(const toml::node& node) {
    if (const auto* text = node.as_string()) return text->get();
    if (const auto* integer = node.as_integer()) return std::to_string(integer->get());
    if (const auto* boolean = node.as_boolean()) {
        return std::string(boolean->get() ? "true" : "false");
    }
    return fail(Errc::invalid_argument, "has a type that is not used here");
}

Result<std::vector<std::string>> node_values(const toml::node& node) {
    std::vector<std::string> out;
    if (const auto* array = node.as_array()) {
        for (const auto& item : *array) {
            PF_TRY_ASSIGN(auto text, scalar_text(item));
            out.push_back(std::move(text));
        }
        return out;
    }
    PF_TRY_ASSIGN(auto text, scalar_text(node));
    out.push_back(std::move(text));
    return out;
}

// One key of the file. A table without keys is kept too, as its name may be misspelt.
struct FlatValue {
    std::string name;
    std::vector<std::string> values;
    bool empty_table = false;
    bool only_texts = true;  // of the items of a list
};
using FlatValues = std::vector<FlatValue>;

bool has_only_texts(const toml::node& node) {
    const auto* array = node.as_array();
    return array == nullptr ||
           std::all_of(array->begin(), array->end(), [](const auto& it) { return it.is_string(); });
}

// The parser bounds the nesting of what it accepts, so recursion is bounded too.
Status flatten(const toml::table& table, const std::string& prefix, std::string_view origin,
               FlatValues& out) {
    for (const auto& [key, node] : table) {
        const std::string name = prefix + std::string(key.str());
        if (const auto* inner = node.as_table()) {
            if (inner->empty()) out.push_back({name, {}, true, true});
            PF_TRY(flatten(*inner, name + ".", origin, out));
            continue;
        }
        auto values = node_values(node);
        if (!values) {
            return fail(Errc::invalid_argument,
                        fmt::format("{}: key '{}' {}", origin, name, values.error().message));
        }
        out.push_back({name, std::move(*values), false, has_only_texts(node)});
    }
    return {};
}

size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 1; i <= a.size(); ++i) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.size(); ++j) {
            const size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
        }
    }
    return row[b.size()];
}

}  // namespace

Result<uint64_t> parse_duration(std::string_view text) {
    static constexpr std::pair<std::string_view, uint64_t> units[] = {
        {"ns", 1},
        {"us", 1'000},
        {"ms", 1'000'000},
        {"s", 1'000'000'000},
        {"min", 60'000'000'000},
        {"h", 3'600'000'000'000},
    };
    const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    const std::string_view suffix = text.substr(digits);
    const auto* unit = std::find_if(std::begin(units), std::end(units),
                                    [&](const auto& entry) { return entry.first == suffix; });
    const auto number = parse_integer(text.substr(0, digits));
    if (!number || unit == std::end(units) || *number > UINT64_MAX / unit->second) {
        return fail(Errc::invalid_argument,
                    fmt::format("duration '{}' is not a number with a unit: ns, us, ms, s, min or "
                                "h, e.g. 500ms",
                                text));
    }
    return *number * unit->second;
}

Config::Config(std::span<const ConfigKey> keys) : keys_(keys) {
    for (const auto& key : keys_) {
        auto values = from_text(key.type, key.default_value);
        for (const auto& text : values) PF_ASSERT(check_value(key.type, text).has_value());
        values_.insert_or_assign(std::string(key.name), std::move(values));
    }
}

Status Config::load_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        return fail(Errc::not_found,
                    fmt::format("configuration file '{}' cannot be opened: check the path", path));
    }
    std::string text;
    text.resize(max_config_bytes + 1);
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(file.gcount()));
    // What opens may still fail to be read: a folder, a broken disk. It is not an empty file.
    if (!file.eof() && text.size() <= max_config_bytes) {
        return fail(Errc::io_error,
                    fmt::format("configuration file '{}' cannot be read: is it a file?", path));
    }
    if (text.size() > max_config_bytes) {
        return fail(Errc::invalid_argument,
                    fmt::format("configuration file '{}' is over 1 MiB", path));
    }
    return load_text(text, path);
}

Status Config::load_text(std::string_view toml_text, std::string_view origin) {
    const toml::parse_result parsed = toml::parse(toml_text, origin);
    if (!parsed) {
        return fail(Errc::invalid_argument,
                    fmt::format("{}: line {}: {}", origin, parsed.error().source().begin.line,
                                parsed.error().description()));
    }
    FlatValues flat;
    PF_TRY(flatten(parsed.table(), "", origin, flat));
    for (auto& [name, values, empty_table, only_texts] : flat) {
        if (empty_table) {
            PF_TRY(check_table(name, origin));
            continue;
        }
        const ConfigKey* key = find(name);
        if (key != nullptr && key->type == ConfigType::list && !only_texts) {
            return fail(Errc::invalid_argument,
                        fmt::format("{}: key '{}' takes {}, not other items", origin, name,
                                    type_name(key->type)));
        }
        PF_TRY(store(name, std::move(values), origin));
    }
    return {};
}

Status Config::check_table(const std::string& name, std::string_view origin) const {
    const std::string prefix = name + ".";
    for (const auto& key : keys_) {
        if (key.name.starts_with(prefix)) return {};
    }
    const std::string_view close = nearest(name);
    return fail(Errc::invalid_argument,
                fmt::format("{}: unknown table '{}': did you mean '{}'?", origin, name,
                            close.substr(0, close.find('.'))));
}

Status Config::set(std::string_view name, std::string_view value) {
    const ConfigKey* key = find(name);
    return store(name, from_text(key == nullptr ? ConfigType::text : key->type, value),
                 "command line");
}

Status Config::store(std::string_view name, std::vector<std::string> values,
                     std::string_view origin) {
    const ConfigKey* key = find(name);
    if (key == nullptr) {
        return fail(Errc::invalid_argument, fmt::format("{}: unknown key '{}': did you mean '{}'?",
                                                        origin, name, nearest(name)));
    }
    if (key->type != ConfigType::list && values.size() != 1) {
        return fail(Errc::invalid_argument, fmt::format("{}: key '{}' takes {}, not a list", origin,
                                                        name, type_name(key->type)));
    }
    for (const auto& text : values) {
        if (const auto checked = check_value(key->type, text); !checked) {
            return fail(Errc::invalid_argument,
                        fmt::format("{}: key '{}': {}", origin, name, checked.error().message));
        }
    }
    values_.insert_or_assign(std::string(name), std::move(values));
    return {};
}

const ConfigKey* Config::find(std::string_view name) const {
    for (const auto& key : keys_) {
        if (key.name == name) return &key;
    }
    return nullptr;
}

std::string_view Config::nearest(std::string_view name) const {
    std::string_view best;
    size_t best_distance = SIZE_MAX;
    for (const auto& key : keys_) {
        const size_t distance = edit_distance(name, key.name);
        if (distance < best_distance) {
            best_distance = distance;
            best = key.name;
        }
    }
    return best;
}

const std::vector<std::string>& Config::value(std::string_view name, ConfigType type) const {
    const ConfigKey* key = find(name);
    PF_ASSERT(key != nullptr);
    PF_ASSERT(key->type == type);
    return values_.find(name)->second;
}

const std::string& Config::text(std::string_view name) const {
    return value(name, ConfigType::text)[0];
}
std::vector<std::string> Config::list(std::string_view name) const {
    return value(name, ConfigType::list);
}
bool Config::boolean(std::string_view name) const {
    return value(name, ConfigType::boolean)[0] == "true";
}
uint64_t Config::integer(std::string_view name) const {
    return *parse_integer(value(name, ConfigType::integer)[0]);
}
uint64_t Config::size_bytes(std::string_view name) const {
    return *parse_size(value(name, ConfigType::size)[0]);
}
uint64_t Config::duration_ns(std::string_view name) const {
    return *parse_duration(value(name, ConfigType::duration)[0]);
}

std::string Config::markdown() const {
    std::string out = "| key | value | default | meaning |\n|---|---|---|---|\n";
    for (const auto& key : keys_) {
        out += fmt::format("| `{}` | {} | {} | {} |\n", key.name, type_name(key.type),
                           key.default_value.empty() ? "" : fmt::format("`{}`", key.default_value),
                           key.help);
    }
    return out;
}

}  // namespace pf

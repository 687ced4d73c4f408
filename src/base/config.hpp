// Configuration: a table of typed keys, read from TOML, with single values overridden from the
// command line. What the table does not know is an error that names the nearest known key, so a
// typo never silently leaves a default in force.
//
// Used at start, on one thread. Every value was checked when it was taken, so reading cannot fail;
// asking for a key that is not in the table, or as another type, is a bug.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"

namespace pf {

enum class ConfigType : uint8_t { text, list, boolean, integer, size, duration };

struct ConfigKey {
    std::string_view name;  // "section.key"
    ConfigType type = ConfigType::text;
    std::string_view default_value;  // as it would be typed; a list: values separated by commas
    std::string_view help;           // one sentence
};

// "500ms", "10s", "2min", "1h", "100us": in nanoseconds.
[[nodiscard]] Result<uint64_t> parse_duration(std::string_view text);

class Config {
  public:
    // `keys` outlives this.
    explicit Config(std::span<const ConfigKey> keys);

    [[nodiscard]] Status load_file(const std::string& path);
    // `origin` names the text in messages.
    [[nodiscard]] Status load_text(std::string_view toml, std::string_view origin);
    [[nodiscard]] Status set(std::string_view name, std::string_view value);

    [[nodiscard]] const std::string& text(std::string_view name) const;
    [[nodiscard]] std::vector<std::string> list(std::string_view name) const;
    [[nodiscard]] bool boolean(std::string_view name) const;
    [[nodiscard]] uint64_t integer(std::string_view name) const;
    [[nodiscard]] uint64_t size_bytes(std::string_view name) const;
    [[nodiscard]] uint64_t duration_ns(std::string_view name) const;

    // The key that differs from `name` by the fewest edits.
    [[nodiscard]] std::string_view nearest(std::string_view name) const;
    // The table as Markdown, for docs/reference/config.md.
    [[nodiscard]] std::string markdown() const;

  private:
    [[nodiscard]] Status check_table(const std::string& name, std::string_view origin) const;
    [[nodiscard]] const ConfigKey* find(std::string_view name) const;
    [[nodiscard]] const std::vector<std::string>& value(std::string_view name,
                                                        ConfigType type) const;
    [[nodiscard]] Status store(std::string_view name, std::vector<std::string> values,
                               std::string_view origin);

    std::span<const ConfigKey> keys_;
    std::map<std::string, std::vector<std::string>, std::less<>> values_;
};

}  // namespace pf

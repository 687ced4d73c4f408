// How the programs read their command lines: alike, and a mistake is one line.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>

namespace pf::tools {

// Nothing: go on. Else the exit status: 0 after --help or --version, 2 after one line on stderr.
[[nodiscard]] std::optional<int> parse_command_line(CLI::App& app, int argc,
                                                    const char* const* argv);

}  // namespace pf::tools

// Shell completion, generated from the commands themselves.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/error.hpp"

namespace pf::tools {

// For "bash" or "zsh": a script to source.
[[nodiscard]] Result<std::string> completion_script(const CLI::App& app, const std::string& shell);

}  // namespace pf::tools

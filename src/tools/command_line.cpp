#include "tools/command_line.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <string>

namespace pf::tools {

namespace {

// The subcommands that were given: their help is the one to look at.
std::string words_so_far(const CLI::App& app) {
    std::string words = app.get_name();
    for (const CLI::App* command = &app; !command->get_subcommands().empty();) {
        command = command->get_subcommands().front();
        words += " " + command->get_name();
    }
    return words;
}

}  // namespace

std::optional<int> parse_command_line(CLI::App& app, int argc, const char* const* argv) {
    try {
        app.parse(argc, argv);
        return {};
    } catch (const CLI::Success& success) {
        return app.exit(success);
    } catch (const CLI::ParseError& error) {
        std::string line = error.what();
        for (char& c : line) c = c == '\n' ? ' ' : c;
        fmt::print(stderr, "{}: {}: see '{} --help'\n", app.get_name(), line, words_so_far(app));
        return 2;
    }
}

}  // namespace pf::tools

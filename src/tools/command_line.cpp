#include "tools/command_line.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <vector>

namespace pf::tools {

namespace {

// The deepest subcommand that was given: its help is the one to look at.
const CLI::App& given(const CLI::App& app) {
    const CLI::App* command = &app;
    while (!command->get_subcommands().empty()) command = command->get_subcommands().front();
    return *command;
}

std::string words_so_far(const CLI::App& app) {
    std::string words = app.get_name();
    for (const CLI::App* command = &app; !command->get_subcommands().empty();) {
        command = command->get_subcommands().front();
        words += " " + command->get_name();
    }
    return words;
}

// Why it failed. The library says that a command is missing where one is misspelt.
std::string reason(const CLI::App& app, const CLI::ParseError& error) {
    const auto commands = given(app).get_subcommands(nullptr);
    const std::vector<std::string> unknown = app.remaining(true);
    if (commands.empty() || unknown.empty()) return error.what();
    std::string known;
    for (const CLI::App* command : commands)
        known += (known.empty() ? "" : ", ") + command->get_name();
    return unknown.front().starts_with('-')
               ? fmt::format("unknown option '{}'", unknown.front())
               : fmt::format("unknown command '{}', known are {}", unknown.front(), known);
}

}  // namespace

std::optional<int> parse_command_line(CLI::App& app, int argc, const char* const* argv) {
    try {
        app.parse(argc, argv);
        return {};
    } catch (const CLI::Success& success) {
        return app.exit(success);
    } catch (const CLI::ParseError& error) {
        std::string line = reason(app, error);
        for (char& c : line) c = c == '\n' ? ' ' : c;
        fmt::print(stderr, "{}: {}: see '{} --help'\n", app.get_name(), line, words_so_far(app));
        return 2;
    }
}

}  // namespace pf::tools

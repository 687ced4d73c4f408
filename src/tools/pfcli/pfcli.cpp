// pfcli: the administrator's command line, over REST.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <system_error>

#include "tools/command_line.hpp"
#include "tools/pfcli/commands.hpp"
#include "tools/pfcli/completion.hpp"

namespace {

using namespace pf;
using namespace pf::tools;

// Every command reads the fields it needs with checks that throw: an answer without them is of some
// other server, and that ends here.
Status run_command(const Api& api, const Arguments& arguments, const Command& chosen) {
    try {
        return chosen.run(api, arguments);
    } catch (const nlohmann::json::exception&) {
        return api.not_a_conductor();
    } catch (const std::bad_alloc&) {
        return fail(Errc::resource_exhausted, "not enough memory for the answer");
    } catch (const std::system_error& thrown) {  // standard output, from fmt
        return fail(Errc::io_error, thrown.what());
    } catch (const std::exception& thrown) {
        return fail(Errc::internal, fmt::format("a bug, please report it: {}", thrown.what()));
    }
}

Status run(const CLI::App& app, const Arguments& arguments, const Command& chosen) {
    if (!arguments.shell.empty()) {
        PF_TRY_ASSIGN(const std::string script, completion_script(app, arguments.shell));
        std::fputs(script.c_str(), stdout);
        return {};
    }
    if (arguments.output == "names" && !chosen.prints_names) {
        return fail(Errc::invalid_argument,
                    "-o names: this command has no names to print, nothing was done; allowed are "
                    "table and json");
    }
    PF_TRY_ASSIGN(Api api, Api::create(arguments.conductor));
    if (chosen.waits) api.be_patient(patience);
    return run_command(api, arguments, chosen);
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("Administers a PureFlash cluster", "pfcli");
    Arguments arguments;
    Command chosen;
    app.set_version_flag("--version", PUREFLASH_VERSION);
    app.require_subcommand(1);
    app.fallthrough();
    app.add_option("--conductor", arguments.conductor, "HOST:PORT of the conductor")
        ->envname("PF_CONDUCTOR")
        ->take_last();
    app.add_option("-o,--output", arguments.output, "table, json or names")
        ->take_last()
        ->check(CLI::IsMember({"table", "json", "names"}));
    add_volume_commands(app, arguments, chosen);
    add_store_commands(app, arguments, chosen);
    add_cluster_commands(app, arguments, chosen);
    auto* completion = app.add_subcommand("completion", "Shell completion: source its output");
    completion->add_option("SHELL", arguments.shell, "bash or zsh")->required();
    if (const auto over = parse_command_line(app, argc, argv)) return *over;
    const Status done = run(app, arguments, chosen);
    if (done && std::fflush(stdout) == 0) return 0;
    if (done) {
        fmt::print(stderr, "pfcli: done, but what it says cannot be written: {}\n",
                   std::strerror(errno));
        return 1;
    }
    fmt::print(stderr, "pfcli: {}\n",
               done.error().message.empty() ? done.error().text() : done.error().message);
    return 1;
}

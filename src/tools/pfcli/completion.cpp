#include "tools/pfcli/completion.hpp"

#include <fmt/format.h>

namespace pf::tools {

namespace {

std::string words_of(const CLI::App& app) {
    std::string out;
    for (const auto* command : app.get_subcommands(nullptr)) out += command->get_name() + " ";
    for (const auto* option : app.get_options()) {
        for (const auto& name : option->get_lnames()) out += "--" + name + " ";
    }
    return out;
}

// One case for each command, named by its path: "volume create".
void add_cases(const CLI::App& app, const std::string& path, std::string& out) {
    out += fmt::format("        '{}') words='{}' ;;\n", path, words_of(app));
    for (const auto* command : app.get_subcommands(nullptr)) {
        add_cases(*command, path.empty() ? command->get_name() : path + " " + command->get_name(),
                  out);
    }
}

constexpr std::string_view cases_mark = "@CASES@";
constexpr std::string_view script = R"script(_pfcli() {
    local word path='' words='' i
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        case "$word" in
            -o|--output|--conductor) ((i++)) ;;
            -*) ;;
            volume|store|tray|status|top|version|completion) [ -z "$path" ] && path="$word" ;;
            *) [ "${path#* }" = "$path" ] && path="$path $word" ;;
        esac
    done
    case "$path" in
@CASES@    esac
    case "$path" in
        'volume show'|'volume delete'|'volume resize'|'volume rename'|'volume accept-loss')
            words="$words $(pfcli volume list -o names 2>/dev/null)" ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _pfcli pfcli
)script";

}  // namespace

Result<std::string> completion_script(const CLI::App& app, const std::string& shell) {
    std::string cases;
    add_cases(app, "", cases);
    std::string bash(script);
    bash.replace(bash.find(cases_mark), cases_mark.size(), cases);
    if (shell == "bash") return bash;
    if (shell == "zsh") return "autoload -U +X bashcompinit && bashcompinit\n" + bash;
    return fail(Errc::invalid_argument, fmt::format("shell '{}': bash or zsh", shell));
}

}  // namespace pf::tools

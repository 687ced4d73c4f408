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

// Names come from the cluster: any that a volume may have, and without making a person wait for a
// server that is not there. The shell cuts HOST:PORT into three words.
constexpr std::string_view script = R"script(_pfcli_names() {
    local name typed="${COMP_WORDS[COMP_CWORD]//\\/}"
    while IFS= read -r name; do
        [[ $name == "$typed"* ]] && COMPREPLY+=("$(printf '%q' "$name")")
    done < <(timeout 2 "${COMP_WORDS[0]}" "${address[@]}" -o names "$@" 2>/dev/null)
}
_pfcli() {
    local word path='' words='' i address=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        case "$word" in
            --conductor)
                address=(--conductor "${COMP_WORDS[i + 1]}")
                ((i++))
                if [ "${COMP_WORDS[i + 1]}" = ':' ]; then
                    address[1]+=":${COMP_WORDS[i + 2]}"
                    ((i += 2))
                fi ;;
            -o|--output) ((i++)) ;;
            -*) ;;
            @NOUNS@) [ -z "$path" ] && path="$word" ;;
            *) [ "${path#* }" = "$path" ] && path="$path $word" ;;
        esac
    done
    case "$path" in
@CASES@    esac
    [ "$word" = -o ] || [ "$word" = --output ] && words='table json names'
    COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
    case "$path" in
        'volume show'|'volume delete'|'volume resize'|'volume rename'|'volume accept-loss') _pfcli_names volume list ;;
        'tray remove'|'tray accept-loss') _pfcli_names tray list ;;
    esac
}
complete -F _pfcli pfcli
)script";

void fill(std::string& text, std::string_view mark, const std::string& with) {
    text.replace(text.find(mark), mark.size(), with);
}

}  // namespace

Result<std::string> completion_script(const CLI::App& app, const std::string& shell) {
    std::string cases;
    add_cases(app, "", cases);
    std::string bash(script);
    std::string nouns;
    for (const auto* noun : app.get_subcommands(nullptr))
        nouns += (nouns.empty() ? "" : "|") + noun->get_name();
    fill(bash, "@NOUNS@", nouns);
    fill(bash, "@CASES@", cases);
    if (shell == "bash") return bash;
    if (shell == "zsh") return "autoload -U +X bashcompinit && bashcompinit\n" + bash;
    return fail(Errc::invalid_argument, fmt::format("shell '{}': bash or zsh", shell));
}

}  // namespace pf::tools

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
    out += fmt::format("        '{}') offered='{}' ;;\n", path, words_of(app));
    for (const auto* command : app.get_subcommands(nullptr)) {
        add_cases(*command, path.empty() ? command->get_name() : path + " " + command->get_name(),
                  out);
    }
}

// After these words.
constexpr const char* values = R"(        -o|--output) offered='table json names' ;;
        --write-cache) offered='detect volatile none' ;;
        completion) offered='bash zsh' ;;
)";

// Names come from the cluster: any that a volume may have, and without making a person wait for a
// server that is not there. bash cuts HOST:PORT into three words.
constexpr std::string_view bash_script = R"script(_pfcli_names() {
    local name typed="${COMP_WORDS[COMP_CWORD]//\\/}"
    while IFS= read -r name; do
        [[ $name == "$typed"* ]] && COMPREPLY+=("$(printf '%q' "$name")")
    done < <(timeout 2 "${COMP_WORDS[0]}" "${address[@]}" -o names "$@" 2>/dev/null)
}
_pfcli() {
    local word command='' offered='' i address=()
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
            @NOUNS@) [ -z "$command" ] && command="$word" ;;
            *) [[ ' @GROUPS@' == *" $command "* ]] && command="$command $word" ;;
        esac
    done
    case "$command" in
@CASES@    esac
    case "${COMP_WORDS[COMP_CWORD - 1]}" in
@VALUES@    esac
    COMPREPLY=($(compgen -W "$offered" -- "${COMP_WORDS[COMP_CWORD]}"))
    case "$command" in
        @NAMED@) _pfcli_names volume list ;;
        @TRAYS@) _pfcli_names tray list ;;
    esac
}
complete -F _pfcli pfcli
)script";

// The same for zsh, where `path` and `words` are the shell's own. A function of the completion
// system if it is a file `_pfcli` in fpath; when sourced it names itself.
constexpr std::string_view zsh_script = R"script(#compdef pfcli
_pfcli_names() {
    local -a names
    names=("${(@f)$(timeout 2 "${words[1]}" "${address[@]}" -o names "$@" 2>/dev/null)}")
    compadd -- "${(@)names:#}"
}
_pfcli() {
    local word command='' offered='' i
    local -a address
    for ((i = 2; i < CURRENT; i++)); do
        word="${words[i]}"
        case "$word" in
            --conductor)
                address=(--conductor "${(Q)words[i + 1]}")
                ((i++)) ;;
            -o|--output) ((i++)) ;;
            -*) ;;
            @NOUNS@) [[ -z "$command" ]] && command="$word" ;;
            *) [[ ' @GROUPS@' == *" $command "* ]] && command="$command $word" ;;
        esac
    done
    case "$command" in
@CASES@    esac
    case "${words[CURRENT - 1]}" in
@VALUES@    esac
    compadd -- ${=offered}
    case "$command" in
        @NAMED@) _pfcli_names volume list ;;
        @TRAYS@) _pfcli_names tray list ;;
    esac
}
if [[ "${funcstack[1]}" == _pfcli ]]; then _pfcli "$@"; else compdef _pfcli pfcli; fi
)script";

void fill(std::string& text, std::string_view mark, const std::string& with) {
    text.replace(text.find(mark), mark.size(), with);
}

// The commands of a noun that take the name of something that is there, as one pattern of `case`.
std::string taking(const CLI::App& app, const std::string& noun, const char* positional) {
    std::string out;
    for (const auto* command : app.get_subcommand(noun)->get_subcommands(nullptr)) {
        if (command->get_name() == "create" || command->get_option_no_throw(positional) == nullptr)
            continue;
        out += fmt::format("{}'{} {}'", out.empty() ? "" : "|", noun, command->get_name());
    }
    return out;
}

}  // namespace

Result<std::string> completion_script(const CLI::App& app, const std::string& shell) {
    if (shell != "bash" && shell != "zsh")
        return fail(Errc::invalid_argument, fmt::format("shell '{}': bash or zsh", shell));
    std::string cases;
    add_cases(app, "", cases);
    std::string nouns;
    std::string groups;  // nouns with verbs
    for (const auto* noun : app.get_subcommands(nullptr)) {
        nouns += (nouns.empty() ? "" : "|") + noun->get_name();
        if (!noun->get_subcommands(nullptr).empty()) groups += noun->get_name() + " ";
    }
    std::string script(shell == "bash" ? bash_script : zsh_script);
    fill(script, "@NOUNS@", nouns);
    fill(script, "@GROUPS@", groups);
    fill(script, "@CASES@", cases);
    fill(script, "@VALUES@", values);
    fill(script, "@NAMED@", taking(app, "volume", "NAME"));
    fill(script, "@TRAYS@", taking(app, "tray", "UUID"));
    return script;
}

}  // namespace pf::tools

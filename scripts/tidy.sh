#!/usr/bin/env bash
# clang-tidy over what changed since BASE (default HEAD, so: uncommitted changes), or --all.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -f build/dev/compile_commands.json ] || cmake --preset dev >/dev/null
foreign='^tests/system/programs/'  # built by tests as a user would, so the build does not know them
if [ "${1:-}" = --all ]; then
    mapfile -t files < <(git ls-files '*.cpp' | grep -vE "$foreign")
else
    mapfile -t files < <({ git diff --name-only "${BASE:-HEAD}" --; git ls-files --others --exclude-standard; } |
        grep -E '\.cpp$' | grep -vE "$foreign" | sort -u || true)
fi
[ ${#files[@]} -eq 0 ] && exit 0
# g++'s flags that clang does not know stay out of the way.
printf '%s\n' "${files[@]}" | xargs -P 2 -n 4 clang-tidy-19 -p build/dev --quiet \
    --extra-arg=-Wno-unknown-warning-option

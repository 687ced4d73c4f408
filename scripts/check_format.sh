#!/usr/bin/env bash
# Fails when a source file is not as clang-format-19 would write it.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(git ls-files --cached --others --exclude-standard '*.cpp' '*.hpp' '*.h' '*.c')
clang-format-19 --dry-run -Werror "${files[@]}"

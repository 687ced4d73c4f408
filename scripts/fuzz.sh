#!/usr/bin/env bash
# Runs every fuzz target for the given number of seconds on a copy of its corpus.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-600}
# A volume of the most shards there may be takes a second here, and many on a busy machine: -timeout=60.
cmake --preset fuzz >/dev/null
mapfile -t targets < <(find tests/fuzz -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | sort)
cmake --build build/fuzz --target "${targets[@]}"
for target in "${targets[@]}"; do
    work=build/fuzz/corpus/$target
    mkdir -p "$work"
    echo "=== $target: $seconds s"
    binary=$(find build/fuzz -type f -name "$target" -perm -u+x | head -n 1)
    "$binary" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=2048 -print_final_stats=1 \
        "$work" "tests/fuzz/$target"
done

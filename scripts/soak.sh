#!/usr/bin/env bash
# Long loops, for a night rather than a commit: 10^7 crash states, many simulation seeds, 500 rounds of
# kill -9, TSan over the threaded parts, and the planted bugs.
set -euo pipefail
cd "$(dirname "$0")/.."
cmake --preset release >/dev/null
cmake --build build/release
build/release/tests/sim/crash_states --states=10000000 --seed="${SEED:-$(date +%s)}"
build/release/tests/sim/sim_run --seeds="${SEEDS:-20000}" --first="${SEED:-$(date +%s)}"
tests/system/kill_loop.sh build/release 500
scripts/planted.sh
cmake --preset tsan >/dev/null
cmake --build build/tsan
ctest --test-dir build/tsan --output-on-failure -L 'unit|short'

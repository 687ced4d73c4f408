#!/usr/bin/env bash
# Long loops, for a night rather than a commit: 10^7 crash states, many simulation seeds, 500 rounds of
# kill -9, TSan over the threaded parts, and the planted bugs.
set -euo pipefail
cd "$(dirname "$0")/.."
cmake --preset release >/dev/null
cmake --build build/release
# About 2500 crash states a second on a core: half of them on each of two, an hour in all.
seed=${SEED:-$(date +%s)}
build/release/tests/sim/crash_states --states=5000000 --seed="$seed" >build/crash_states.second.log &
second=$!
build/release/tests/sim/crash_states --states=5000000 --seed=$((seed + 1000000000))
wait "$second" || { cat build/crash_states.second.log; exit 1; }
cat build/crash_states.second.log
build/release/tests/sim/disk_faults --runs=100000 --seed="$seed"
build/release/tests/sim/sim_run --seeds="${SEEDS:-20000}" --first="$seed"
tests/system/kill_loop.sh build/release 500
scripts/planted.sh
cmake --preset tsan >/dev/null
cmake --build build/tsan
# The simulations run on one thread: nothing there for TSan.
TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp" ctest --test-dir build/tsan --output-on-failure -L unit

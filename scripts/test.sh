#!/usr/bin/env bash
# Everything that CI runs, in order; stops at the first step that fails. A test may skip only if
# tests/skips.txt names it with its reason.
set -euo pipefail
cd "$(dirname "$0")/.."
start=$SECONDS
step() { printf '\n=== %s (at %d s) ===\n' "$1" $((SECONDS - start)); }

# Runs the tests of a label and fails on a skip that is not listed.
run_label() {
    local build=$1 label=$2 log
    log=$(mktemp)
    ctest --test-dir "$build" --output-on-failure --no-tests=error -j2 -L "^($label)$" 2>&1 | tee "$log"
    while read -r name; do
        grep -q "^$name[[:space:]]" tests/skips.txt || { echo "unlisted skip: $name" >&2; exit 1; }
    done < <(sed -n 's/^.*Test *#[0-9]*: \([^ ]*\) .*\*\*\*Skipped.*/\1/p' "$log")
    rm -f "$log"
}

# Not /tmp: where that is memory, a tray may not be opened with O_DIRECT.
export TMPDIR=${TMPDIR:-/var/tmp}

step "format and layering"
scripts/check_format.sh
scripts/check_layering.py

step "build: g++ release with assertions"
cmake --preset release >/dev/null
cmake --build build/release
cmake --build build/release --target fio_engine

step "build: clang-19 with ASan and UBSan"
cmake --preset asan >/dev/null
cmake --build build/asan

step "unit and property tests"
run_label build/release 'unit|short'
run_label build/asan 'unit|short'

step "crash states"
run_label build/release crash

step "simulation"
run_label build/release sim

step "the same seeds give the same trace: g++ -O2, clang with sanitizers, g++ debug"
traces_of() { "$1"/tests/sim/sim_run --seeds=5 --first=77 | sed -n 's/^trace hash //p'; }
release_traces=$(traces_of build/release)
asan_traces=$(traces_of build/asan)
[ -n "$release_traces" ] && [ "$release_traces" = "$asan_traces" ] ||
    { echo "trace hashes differ: $release_traces and $asan_traces" >&2; exit 1; }
# Both are -O2. Of the debug build only the test that pins a trace is made: all of it takes too long here.
cmake --preset dev >/dev/null
cmake --build build/dev --target simulation_test
pinned=$(build/dev/src/runtime/sim/simulation_test --gtest_filter=Simulation.TheTraceHashIsTheSameInEveryBuild) &&
    [[ $pinned = *"PASSED  ] 1 test"* ]] ||
    { echo "$pinned"; echo "the debug build does not have the pinned trace hash" >&2; exit 1; }

step "system: real processes and real clients"
run_label build/release system

printf '\nall steps passed in %d s\n' $((SECONDS - start))

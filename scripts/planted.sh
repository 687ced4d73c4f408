#!/usr/bin/env bash
# Planted bugs: one build that contains them all, one chosen at run time. The general suites, which know
# nothing of the plants, must catch each; prints which did. The scenarios of single rules are asked only
# about what those missed, and do not count. Without a plant every suite must pass.
#     scripts/planted.sh            scripts/planted.sh PLANT...
set -euo pipefail
cd "$(dirname "$0")/.."
cmake --preset planted >/dev/null
cmake --build build/planted --target crash_states disk_faults sim_run sim_sweep store_test client_test \
    rules_test tray_model_test tray_test tray_sweep_test
bin=build/planted/tests/sim

# In order of cost. Each ends with 0 when it found nothing.
general=("lying disks|$bin/disk_faults --runs=2400"
         "crash states|$bin/crash_states --states=100000"
         "tray model|build/planted/src/tray/tray_model_test"
         "whole cluster|$bin/sim_run --seeds=100"
         "failure sweep|$bin/sim_sweep"
         "tray sweep|$bin/tray_sweep_test"
         "crash states|$bin/crash_states --states=1000000 --seed=1000000")
rules=("tray rules|$bin/rules_test"
       "store rules|build/planted/src/store/store_test"
       "client rules|build/planted/src/client/client_test"
       "tray|build/planted/src/tray/tray_test")

# The first of the suites that fails under the plant, and how; nothing if none does.
caught_by() {
    local plant=$1 suite code found log=build/planted/plant.$1.log
    shift
    for suite in "$@"; do
        code=0
        # shellcheck disable=SC2086
        PF_PLANT=$plant timeout 1200 ${suite#*|} >"$log" 2>&1 || code=$?
        if [ "$code" -ne 0 ]; then
            found=$(grep -m1 -E 'FAILED|Failure|assertion|Falsifiable' "$log" | cut -c1-110) ||
                found="ended with exit status $code"
            printf '%-14s %s\n' "${suite%%|*}" "$found"
            return
        fi
    done
}

mapfile -t plants < <(grep -rhoE 'planted\("[a-z_]+"\)' src | sed 's/.*"\(.*\)".*/\1/' | sort -u)
if [ $# -gt 0 ]; then
    plants=("$@")
else
    clean=$(caught_by none "${general[@]}" "${rules[@]}")
    [ -z "$clean" ] || { echo "without a plant: $clean" >&2; exit 1; }
fi
results=build/planted/results.txt
: >"$results"
try() {
    local plant=$1 found
    found=$(caught_by "$plant" "${general[@]}")
    if [ -z "$found" ]; then
        found=$(caught_by "$plant" "${rules[@]}")
        found="NOT CAUGHT${found:+ but by $found}"
    fi
    printf '%-34s %s\n' "$plant" "$found" | tee -a "$results"
}
for plant in "${plants[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
    try "$plant" &
done
wait
caught=$(grep -vc 'NOT CAUGHT' "$results" || true)
echo "${#plants[@]} planted bugs, $((${#plants[@]} - caught)) not caught by the general suites"
[ "$caught" -eq "${#plants[@]}" ]

#!/usr/bin/env bash
# Planted bugs: one build that contains them all, one chosen at run time. The general suites, which know
# nothing of the plants, must catch each; prints which suite did. Without a plant all suites must pass.
set -euo pipefail
cd "$(dirname "$0")/.."
cmake --preset planted >/dev/null
cmake --build build/planted --target crash_states disk_faults sim_run sim_sweep store_test \
    rules_test tray_model_test tray_test
bin=build/planted/tests/sim

# In order of cost. Each ends with 0 when it found nothing.
suites=("crash states|$bin/crash_states --states=20000"
        "lying disks|$bin/disk_faults --runs=400"
        "whole cluster|$bin/sim_run --seeds=40"
        "store rules|build/planted/src/store/store_test"
        "tray model|build/planted/src/tray/tray_model_test"
        "tray|build/planted/src/tray/tray_test"
        "tray rules|$bin/rules_test"
        "failure sweep|$bin/sim_sweep")

caught_by() {
    local plant=$1 suite
    for suite in "${suites[@]}"; do
        # shellcheck disable=SC2086
        if ! PF_PLANT=$plant timeout 600 ${suite#*|} >"build/planted/$plant.log" 2>&1; then
            echo "${suite%%|*}: $(grep -m1 -E 'FAILED|Failure|assertion' "build/planted/$plant.log" | cut -c1-110)"
            return
        fi
    done
    echo "NOT CAUGHT"
}

clean=$(caught_by none)
[ "$clean" = "NOT CAUGHT" ] || { echo "without a plant: $clean" >&2; exit 1; }
mapfile -t plants < <(grep -rhoE 'planted\("[a-z_]+"\)' src | sed 's/.*"\(.*\)".*/\1/' | sort -u)
missed=0
for plant in "${plants[@]}"; do
    result=$(caught_by "$plant")
    printf '%-36s %s\n' "$plant" "$result"
    [ "$result" != "NOT CAUGHT" ] || missed=$((missed + 1))
done
echo "${#plants[@]} planted bugs, $missed not caught"
[ "$missed" -eq 0 ]

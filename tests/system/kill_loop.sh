#!/usr/bin/env bash
# kill -9 in a loop: fio writes through our engine with crc32c, the server is killed in the middle and
# started again on the same folder, fio finishes (its I/O waits and is sent again) and verifies what
# it wrote; then what the round before wrote is verified once more by a new client. Now and then the
# server is killed a second time while it still recovers.
#
# Usage: kill_loop.sh BUILD ROUNDS [SEED]
set -euo pipefail
build=$(cd "${1:?usage: kill_loop.sh BUILD ROUNDS [SEED]}" && pwd)
rounds=${2:?usage: kill_loop.sh BUILD ROUNDS [SEED]}
RANDOM=${3:-$$}
mode=real
# shellcheck source=tests/system/lib.sh
. "$(dirname "$0")/lib.sh"

need fio
[ -e "$build/pfbd_fio.so" ] || run 600 cmake --build "$build" --target fio_engine >/dev/null
echo "seed ${3:-$$}"

region_mib=96
regions=12
tray_size=4G
start_cluster
run 20 "$build/src/tools/pfcli" volume create vol --size $((region_mib * regions))M >/dev/null

# load ROUND [MORE FIO OPTIONS]: every block of the round's region once, in an order and with contents
# that the round's number decides, so that the same options with --verify_only check it again.
load() {
    local round=$1
    shift
    local sizes=(4k 16k 64k) rates=(18000 5000 1300)
    local kind=$((round % 3))
    # The rate makes writing last over a second, so that the kill always comes in the middle.
    LSAN_OPTIONS=detect_leaks=0 run 90 fio --name="round$round" \
        --ioengine="external:$build/pfbd_fio.so" --volume=vol --conductor="$conductor" \
        --rw=randwrite --bs="${sizes[kind]}" --rate_iops="${rates[kind]}" --iodepth=32 \
        --offset=$(((round % regions) * region_mib))m --size=${region_mib}m \
        --randseed="$round" --verify=crc32c --verify_fatal=1 --verify_dump=0 \
        --aux-path="$work" --minimal "$@" >"$work/fio.$round.out" 2>"$work/fio.err" || {
        cat "$work/fio.err" >&2
        fail "round $round: fio $*"
    }
}
kill_server() {
    kill -KILL "$cluster_pid"
    wait "$cluster_pid" 2>/dev/null || true
    unset 'pids[-1]'
}
# The load has the volume open: a kill before that would test opening, which does not wait for a server.
wait_until_open() {
    for _ in $(seq 200); do
        "$build/src/tools/pfcli" -o json volume show vol 2>/dev/null | jq -e '.open_handles > 0' >/dev/null && return
        sleep 0.05
    done
    fail "the load did not open the volume"
}
sleep_ms() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }

in_the_middle=0
slowest_ms=0
for ((round = 1; round <= rounds; round++)); do
    load "$round" &
    fio_pid=$!
    wait_until_open
    sleep_ms $((100 + RANDOM % 900))
    kill -0 "$fio_pid" 2>/dev/null && in_the_middle=$((in_the_middle + 1))
    kill_server
    if ((round % 5 == 0)); then # while it recovers
        "$build/src/tools/pureflash" serve --data "$work/data" --port-base "$port_base" \
            >/dev/null 2>>"$work/serve.err" &
        early=$!
        sleep_ms $((RANDOM % 400))
        kill -KILL "$early"
        wait "$early" 2>/dev/null || true
    fi
    began=$(date +%s%N)
    start_cluster
    took_ms=$((($(date +%s%N) - began) / 1000000))
    ((took_ms > slowest_ms)) && slowest_ms=$took_ms
    wait "$fio_pid" || fail "round $round"
    ((round == 1)) || load $((round - 1)) --verify_only --rate_iops=0
    rm -f "$work"/fio.*.out
done
# Whoever kills nothing while it writes proves nothing.
((in_the_middle * 10 >= rounds * 9)) || fail "only $in_the_middle of $rounds kills hit the load"
load "$rounds" --verify_only --rate_iops=0
stop_last
echo "$rounds rounds, $in_the_middle kills under load, slowest start $slowest_ms ms"
passed

#!/usr/bin/env bash
# A volume's whole life on this machine, on real data: create, fill with a real filesystem, kill the
# server in the middle of a write load, start it again, read everything back through NBD, check it bit for
# bit, and measure. Leaves nothing running and nothing behind.
set -euo pipefail
build=$(realpath "${1:-build/release}")
tools=$build/src/tools
export PATH=$tools:$PATH
# Ports that are free now, drawn as the system tests do.
system_tests=$(realpath "$(dirname "$0")/../tests/system")
port_base=${PF_PORT_BASE:-$(PYTHONPATH=$system_tests python3 -B -c 'import cluster; print(cluster.free_port_base())')}
# Not /tmp: where that is memory, a tray may not be opened with O_DIRECT.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/pureflash-quickstart.XXXXXX")
export PF_CONDUCTOR=127.0.0.1:$((port_base + 20))
server= load= nbd=

finish() {
    local status=$?
    for pid in $load $nbd $server; do kill -9 "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    [ $status -eq 0 ] || { echo "quickstart FAILED; the server said:" >&2; tail -n 20 "$work/server.log" >&2 || true; }
    rm -rf "$work"
    exit $status
}
trap finish EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '  $ %s\n' "$*"; "$@"; }

start_server() {
    pureflash serve --data "$work/data" --tray-size 8G --port-base "$port_base" \
        >"$work/ready" 2>>"$work/server.log" &
    server=$!
    for _ in $(seq 300); do
        grep -q '^ready ' "$work/ready" && { echo "  $(cat "$work/ready")"; return; }
        kill -0 $server 2>/dev/null || { echo "the server ended" >&2; return 1; }
        sleep 0.1
    done
    echo "the server was not ready within 30 s" >&2
    return 1
}

# A kill after the load would show nothing, so that is a failure, not a pass.
load_runs() {
    kill -0 $load 2>/dev/null || { echo "the load ended before the server was killed" >&2; return 1; }
}
# However long the load takes to begin. The figures are up to a second old, so a load that wrote its gigabyte
# in that time would be reported as ended.
await_first_writes() {
    for _ in $(seq 200); do
        load_runs || return 1
        pfcli -o json top --interval 0.1 --count 1 |
            jq -e 'any(.[]; .name == "load" and .write_iops > 0)' >/dev/null && return
    done
    echo "the load wrote nothing within 20 s" >&2
    return 1
}

say "1. Start a one-node cluster on files"
printf '  $ pureflash serve --data DIR --tray-size 8G --port-base %s\n' "$port_base"
start_server

say "2. Build a real ext4 image from a real directory tree"
source_tree=/usr/share/doc
[ "$(find $source_tree -type f 2>/dev/null | head -n 2000 | wc -l)" -ge 500 ] || source_tree=/usr/include
tree_kib=$(du -sk --apparent-size $source_tree | cut -f1)
image_mib=$(((tree_kib * 2) / 1024 + 128))
truncate -s ${image_mib}M "$work/image"
mkfs.ext4 -q -F -d $source_tree "$work/image"
image_bytes=$((image_mib << 20))
image_sum=$(sha256sum <"$work/image" | cut -d' ' -f1)
echo "  $source_tree -> ext4 image of $image_mib MiB, $(find $source_tree -type f | wc -l) files"
echo "  sha256 $image_sum"

say "3. Create two volumes and write the image to one"
run pfcli volume create demo --size ${image_mib}M
run pfcli volume create load --size 1G
run pfdd if="$work/image" of=pf:demo bs=1M conv=sparse
run pfcli volume list

say "4. Kill the server with SIGKILL in the middle of a second write load"
pfdd if=/dev/urandom of=pf:load bs=64K iodepth=32 count=16384 status=none 2>"$work/load.log" &
load=$!
await_first_writes
load_runs
kill -9 $server
wait $server 2>/dev/null || true
echo "  killed pid $server; the load (pid $load) waits for the server"

say "5. Start it again on the same folder"
begin=$(date +%s%N)
start_server
echo "  back after $((($(date +%s%N) - begin) / 1000000)) ms"
wait $load || { cat "$work/load.log" >&2; exit 1; }
load=
echo "  the interrupted write load went on and finished without an error"

say "6. Read the image back through NBD and compare"
pfbd nbd demo --socket "$work/nbd.sock" --read-only >"$work/nbd.ready" 2>>"$work/server.log" &
nbd=$!
for _ in $(seq 100); do grep -q '^ready ' "$work/nbd.ready" && break; sleep 0.1; done
run nbdinfo --size "nbd+unix:///demo?socket=$work/nbd.sock"
run nbdcopy "nbd+unix:///demo?socket=$work/nbd.sock" "$work/back"
kill $nbd && wait $nbd || true
nbd=
truncate -s $image_bytes "$work/back"
back_sum=$(sha256sum <"$work/back" | cut -d' ' -f1)
echo "  sha256 $back_sum"
[ "$back_sum" = "$image_sum" ] || { echo "the image differs" >&2; exit 1; }
run e2fsck -fn "$work/back"

say "7. Measure: 10 seconds of random 4 KiB I/O with the fio engine"
if [ -f "$build/pfbd_fio.so" ]; then
    fio --name=quickstart --ioengine=external:"$build/pfbd_fio.so" --volume=load \
        --conductor="$PF_CONDUCTOR" --rw=randrw --rwmixread=70 --bs=4k --iodepth=64 --thread=1 \
        --time_based --runtime=10 --output-format=json --output="$work/fio.json" >/dev/null
    jq -r '.jobs[0] | "  read  \(.read.iops|floor) IOPS, p50 \(.read.clat_ns.percentile["50.000000"]/1000|floor) us, p99 \(.read.clat_ns.percentile["99.000000"]/1000|floor) us\n  write \(.write.iops|floor) IOPS, p50 \(.write.clat_ns.percentile["50.000000"]/1000|floor) us, p99 \(.write.clat_ns.percentile["99.000000"]/1000|floor) us"' \
        "$work/fio.json"
else
    echo "the fio engine was not built" >&2
    exit 1
fi

say "8. What the cluster says"
run pfcli status
kill -TERM $server
wait $server
server=
echo "  stopped cleanly"

cat <<TEXT

Done: $image_mib MiB written, killed, restarted and read back bit for bit.

Go on by hand:
  export PATH=$tools:\$PATH
  pureflash serve --data /var/tmp/pf --tray-size 20G &      # prints: ready conductor=127.0.0.1:49180
  pfcli volume create vm1 --size 10G
  pfbd nbd vm1 --socket /tmp/vm1.sock &                     # then: qemu ... -drive file=nbd+unix:///vm1?socket=/tmp/vm1.sock
  pfcli top
TEXT

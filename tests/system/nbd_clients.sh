#!/usr/bin/env bash
# Real NBD clients against our server: nbdinfo, nbdcopy, qemu-img, qemu-io, fio's nbd engine.
#
# Usage: nbd_clients.sh BUILD [fake|real]
#   fake  a volume in memory (the protocol alone)
#   real  `pureflash serve` in a temporary folder, `pfcli`, `pfbd nbd` (end to end)
# Every command has a time limit; what was started is ended by its pid.
set -euo pipefail
build=$(cd "${1:?usage: nbd_clients.sh BUILD [fake|real]}" && pwd)
mode=${2:-fake}
# shellcheck source=tests/system/lib.sh
. "$(dirname "$0")/lib.sh"

for tool in nbdinfo nbdcopy qemu-img qemu-io fio; do need "$tool"; done
size_mib=256
[ "$mode" = real ] && start_cluster
start_nbd vol ${size_mib}M --socket "$work/nbd.sock"
uri=$nbd_uri

step "nbdinfo"
run 20 nbdinfo --json "$uri" >"$work/info.json"
python3 - "$work/info.json" $((size_mib << 20)) <<'PY'
import json, sys
export = json.load(open(sys.argv[1]))["exports"][0]
expected = {
    "export-size": int(sys.argv[2]), "is_read_only": False, "can_flush": True, "can_fua": True,
    "can_trim": True, "can_zero": True, "can_multi_conn": True, "can_fast_zero": True,
    "block_size_minimum": 512, "block_size_preferred": 4096, "block_size_maximum": 32 << 20,
}
for key, value in expected.items():
    assert export.get(key) == value, (key, export.get(key), value)
assert "base:allocation" in export["contexts"], export["contexts"]
PY
run 20 nbdinfo --list "${uri/\/vol/\/}" | grep -q 'export="vol"' || fail "export list without vol"
run 20 nbdinfo "${uri/\/vol/\/other}" >/dev/null 2>&1 && fail "an unknown export was accepted"

step "nbdcopy there and back, byte for byte, with 4 connections"
make_image "$work/image" $size_mib
run 60 nbdcopy --connections=4 --flush "$work/image" "$uri"
run 60 nbdcopy --connections=4 "$uri" "$work/back"
cmp "$work/image" "$work/back"

step "qemu-img info, compare, map, convert"
run 20 qemu-img info -f raw "$uri" | grep -q "virtual size: $size_mib MiB" || fail "qemu-img info"
run 60 qemu-img compare -f raw -F raw "$work/image" "$uri"
run 60 qemu-img map --output=json -f raw "$uri" >"$work/map.json"
python3 - "$work/map.json" <<'PY'
import json, sys
runs = json.load(open(sys.argv[1]))
assert any(r["zero"] for r in runs) and any(r["data"] for r in runs), runs[:4]
PY
run 90 qemu-img convert -n -W -f raw -O raw -t none "$work/image" "$uri" # the second time over
run 90 qemu-img convert -f raw -O qcow2 "$uri" "$work/back.qcow2"
run 60 qemu-img compare -f raw -F qcow2 "$work/image" "$work/back.qcow2"
rm "$work/back.qcow2"

step "nbdinfo --map: data and holes"
run 20 nbdinfo --map --json "$uri" >"$work/map2.json"
python3 - "$work/map2.json" $((size_mib << 20)) <<'PY'
import json, sys
runs = json.load(open(sys.argv[1]))
kinds = {run["description"] for run in runs}
assert "data" in kinds and any("zero" in kind for kind in kinds), kinds
assert sum(run["length"] for run in runs) == int(sys.argv[2])
PY

step "clients that die in the middle of a write, and TLS refused"
run 60 python3 "$(dirname "$0")/nbd_dying_client.py" "$work/nbd.sock" vol

step "qemu-io: patterns, zeroes, discard, FUA, unaligned by read-modify-write in the client"
run 60 qemu-io -f raw -t none -c "write -P 0xa1 0 64k" -c "write -f -P 0xa2 1M 4k" \
    -c "write -z 1052672 4k" -c "write -zu 2M 1M" -c "discard 4M 2M" -c "flush" \
    -c "write -P 0xa3 8M 20M" -c "read -P 0xa3 8M 20M" \
    -c "read -P 0xa1 0 64k" -c "read -P 0xa2 1M 4k" -c "read -P 0 1052672 4k" \
    -c "read -P 0 2M 1M" -c "write -P 0xa4 777 1000" -c "read -P 0xa4 777 1000" \
    -c "read -P 0xa1 1777 1000" "$uri" | tee "$work/qemu-io.log" >/dev/null
! grep -iE 'fail|error' "$work/qemu-io.log" || fail "qemu-io: $(grep -iE 'fail|error' "$work/qemu-io.log")"

step "fio nbd: random mixed sizes with crc32c verify, over 4 connections"
run 90 fio --name=verify --ioengine=nbd --uri="$uri" --rw=randwrite --bsrange=512-256k --bs_unaligned=0 \
    --blockalign=512 --size=64m --iodepth=32 --verify=crc32c --verify_fatal=1 --end_fsync=1 \
    --minimal >/dev/null
run 60 fio --name=many --ioengine=nbd --uri="$uri" --rw=randrw --bs=4k --iodepth=16 --numjobs=4 \
    --size=64m --offset_increment=64m --runtime=5 --time_based --minimal >/dev/null

step "read-only and a socket that is in use"
server_command vol ${size_mib}M --socket "$work/nbd.sock"
run 10 "${server[@]}" >"$work/second.out" 2>&1 && fail "a second server took the socket"
grep -q 'cannot listen' "$work/second.out" || fail "second server: $(cat "$work/second.out")"
server_command vol ${size_mib}M --listen 0.0.0.0:0
run 10 "${server[@]}" >"$work/open.out" 2>&1 && fail "it listens on every address"
grep -q 'insecure-listen' "$work/open.out" || fail "open listener: $(cat "$work/open.out")"
start_nbd vol ${size_mib}M --socket "$work/ro.sock" --read-only
run 20 nbdinfo --is read-only "$nbd_uri" || fail "not read-only"
run 20 qemu-io -f raw -c "write 0 4k" "$nbd_uri" >"$work/ro.log" 2>&1 && fail "it was written"
grep -qiE 'read-only|permission denied' "$work/ro.log" || fail "read-only: $(cat "$work/ro.log")"
run 20 qemu-io -r -f raw -c "read 0 4k" "$nbd_uri" >/dev/null
stop_last

step "a name that a URI has to escape"
start_nbd "vm 1 ü%" ${size_mib}M --socket "$work/a name.sock"
run 20 nbdinfo --size "$nbd_uri" | grep -qx $((size_mib << 20)) || fail "the URI $nbd_uri"
stop_last

step "TCP on a free port; SIGTERM takes the socket file along"
start_nbd vol ${size_mib}M --listen 127.0.0.1:0
run 20 nbdinfo --size "$nbd_uri" | grep -qx $((size_mib << 20)) || fail "size over TCP"
stop_last
stop_last
[ ! -e "$work/nbd.sock" ] || fail "the socket file is left over"

passed

#!/usr/bin/env bash
# A volume as a block device of this host, without kernel modules: nbdfuse, a loop device, and on it
# ext4 and xfs: mount, copy, fstrim, compare, fsck.
#
# Usage: nbd_mount.sh BUILD [fake|real]
set -euo pipefail
build=$(cd "${1:?usage: nbd_mount.sh BUILD [fake|real]}" && pwd)
mode=${2:-fake}
# shellcheck source=tests/system/lib.sh
. "$(dirname "$0")/lib.sh"

for tool in nbdfuse losetup mkfs.ext4 mkfs.xfs xfs_repair fstrim; do need "$tool"; done
# 77: skipped, with the reason in tests/skips.txt.
[ -e /dev/fuse ] && [ -e /dev/loop-control ] && [ "$(id -u)" = 0 ] || {
    echo "skipped: needs root, /dev/fuse and loop devices"
    exit 77
}

loop=
before_exit() {
    umount "$work/fs" 2>/dev/null || true
    [ -z "$loop" ] || losetup -d "$loop" 2>/dev/null || true
    umount "$work/disk" 2>/dev/null || true
    rm -f "$work/disk" 2>/dev/null || true
}

[ "$mode" = real ] && start_cluster
start_nbd vol 1G --socket "$work/nbd.sock"
mkdir "$work/fs"
: >"$work/disk"
nbdfuse -C 4 "$work/disk" "$nbd_uri" 2>>"$work/nbdfuse.err" &
pids+=($!)
for _ in $(seq 100); do
    [ "$(stat -c %s "$work/disk" 2>/dev/null)" = $((1 << 30)) ] && break
    sleep 0.1
done
loop=$(losetup -f --show --direct-io=on "$work/disk")

# A real tree of some thousand small files.
tree=/usr/include
for fs in ext4 xfs; do
    step "$fs: make, fill, trim, compare, check"
    case $fs in
    ext4) run 60 mkfs.ext4 -qF "$loop" ;;
    xfs) run 60 mkfs.xfs -qf "$loop" ;;
    esac
    mount "$loop" "$work/fs"
    run 120 cp -a "$tree" "$work/fs/tree"
    run 60 dd if=/dev/urandom of="$work/fs/random" bs=1M count=64 status=none
    run 60 sync -f "$work/fs"
    sum=$(sha256sum <"$work/fs/random")
    umount "$work/fs" # nothing of it stays in the page cache
    mount "$loop" "$work/fs"
    run 120 diff -r --no-dereference "$tree" "$work/fs/tree"
    [ "$(sha256sum <"$work/fs/random")" = "$sum" ] || fail "$fs: a file came back different"
    rm -r "$work/fs/tree"
    run 60 sync -f "$work/fs"
    run 60 fstrim -v "$work/fs"
    [ "$(sha256sum <"$work/fs/random")" = "$sum" ] || fail "$fs: trimming damaged a file"
    umount "$work/fs"
    case $fs in
    ext4) run 60 e2fsck -fn "$loop" >"$work/fsck.log" 2>&1 || fail "$(cat "$work/fsck.log")" ;;
    xfs) run 60 xfs_repair -n "$loop" >"$work/fsck.log" 2>&1 || fail "$(cat "$work/fsck.log")" ;;
    esac
done
passed

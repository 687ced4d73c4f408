# Sourced by the system tests: a temporary folder, processes that end with the test, time limits.
# Needs: $build, $mode.
work=$(mktemp -d "${TMPDIR:-/tmp}/pf-system.XXXXXX")
pids=() # ours, in the order they were started
nbd_uri=
conductor=

fail() {
    echo "FAILED: $*" >&2
    tail -n 20 "$work"/*.err >&2 2>/dev/null || true
    exit 1
}
step() { echo "--- $*"; }
passed() { echo "passed"; }
need() { command -v "$1" >/dev/null || fail "$1 is not installed (scripts/install_deps.sh)"; }
# run SECONDS COMMAND...
run() {
    local limit=$1
    shift
    timeout -k 5 "$limit" "$@"
}

# Ends process $1, politely for at most $2 seconds.
end_pid() {
    kill -TERM "$1" 2>/dev/null || return 0
    local i
    for ((i = 0; i < ${2:-10} * 10; i++)); do
        kill -0 "$1" 2>/dev/null || { wait "$1" 2>/dev/null || true; return 0; }
        sleep 0.1
    done
    echo "process $1 ignored SIGTERM" >&2
    kill -KILL "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
    return 1
}
stop_last() {
    local pid=${pids[-1]}
    unset 'pids[-1]'
    end_pid "$pid" 15 || fail "SIGTERM was not obeyed"
}
on_exit() {
    local status=$?
    declare -F before_exit >/dev/null && before_exit
    local i
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do end_pid "${pids[i]}" 5 || true; done
    rm -rf "$work"
    exit "$status"
}
trap on_exit EXIT
trap 'exit 130' INT TERM

# Waits until file $1 has a line that begins with "ready", written by process $2.
await_ready() {
    local i
    for ((i = 0; i < 300; i++)); do
        grep -q '^ready ' "$1" 2>/dev/null && return 0
        kill -0 "$2" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

# A --port-base whose ports are all free now.
free_port_base() {
    python3 - <<'PY'
import random, socket
for _ in range(200):
    base = random.randrange(20000, 32000)
    try:
        for offset in (0, 2, 20, 21, 22):
            with socket.socket() as s:
                s.bind(("127.0.0.1", base + offset))
    except OSError:
        continue
    print(base)
    break
PY
}

# Starts `pureflash serve` on $work/data; again after a kill, it continues on the same folder.
start_cluster() {
    : "${port_base:=$(free_port_base)}"
    : >"$work/serve.out"
    "$build/src/tools/pureflash" serve --data "$work/data" --tray-size "${tray_size:-2G}" \
        --port-base "$port_base" >"$work/serve.out" 2>>"$work/serve.err" &
    cluster_pid=$!
    pids+=("$cluster_pid")
    await_ready "$work/serve.out" "$cluster_pid" || fail "pureflash serve did not become ready"
    conductor=$(sed -n 's/^ready conductor=//p' "$work/serve.out" | head -n 1)
    export PF_CONDUCTOR=$conductor
}

# Sets `server` to the command that serves volume $1 of size $2 with the arguments that follow.
server_command() {
    local name=$1 size=$2
    shift 2
    if [ "$mode" = fake ]; then
        server=("$build/tests/system/nbd_fake_server" "$name" "$size" "$@")
    else
        server=("$build/src/tools/pfbd" nbd "$name" "$@")
    fi
}
# Starts it in the background, the volume created before if it is missing; sets nbd_uri.
start_nbd() {
    local out=$work/nbd.${#pids[@]}.out
    if [ "$mode" = real ]; then
        run 20 "$build/src/tools/pfcli" volume show "$1" >/dev/null 2>&1 ||
            run 20 "$build/src/tools/pfcli" volume create "$1" --size "$2" >/dev/null
    fi
    server_command "$@"
    : >"$out"
    "${server[@]}" >"$out" 2>>"$work/nbd.err" &
    pids+=($!)
    await_ready "$out" "${pids[-1]}" || fail "the NBD server did not become ready"
    nbd_uri=$(sed -n 's/^ready //p' "$out" | head -n 1)
}

# make_image PATH MIB: random data, text, holes and zeroes.
make_image() {
    python3 - "$1" "$2" <<'PY'
import os, random, sys
path, mib = sys.argv[1], int(sys.argv[2])
source = random.Random(7)
with open(path, "wb") as image:
    image.truncate(mib << 20)
    for piece in range(mib):
        kind = piece % 4
        if kind == 3:
            continue  # a hole
        image.seek(piece << 20)
        image.write(source.randbytes(1 << 20) if kind else b"pureflash " * 100000)
PY
}

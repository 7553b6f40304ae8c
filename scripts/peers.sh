# Sourced by scripts that compare: starts daemons apart from each other and ends them all. `sockets` holds what the harness
# calls them; `begin_peers` comes first.

begin_peers() {
    root_only
    work=$(mktemp -d "${TMPDIR:-/tmp}/ringer-peers.XXXXXX")
    sockets=()
    started=()
    trap end_peers EXIT
    trap 'exit 130' INT TERM
}

# Ends what was started, the last first, and the folder with it.
end_peers() {
    local code=$? at pid
    trap - EXIT
    for ((at = ${#started[@]} - 1; at >= 0; at--)); do
        pid=${started[at]}
        kill -TERM "$pid" 2> /dev/null || continue
        for _ in $(seq 300); do
            kill -0 "$pid" 2> /dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2> /dev/null || true
        wait "$pid" 2> /dev/null || true
    done
    rm -rf "$work"
    exit "$code"
}

# answers SOCKET PID LOG: waits until the daemon does
answers() {
    for _ in $(seq 300); do
        if curl --silent --fail --unix-socket "$1" http://docker/_ping > /dev/null 2>&1; then return; fi
        kill -0 "$2" 2> /dev/null || { tail -n 20 "$3" >&2; fail "the daemon ended before it was ready"; }
        sleep 0.1
    done
    fail "no answer from $1 within 30 s"
}

# registries NAME PID: two registries in the daemon's network namespace, where both are 127.0.0.1 to it
registries() {
    local kind login=() port=5000
    for kind in registry login-registry; do
        nsenter --net="/proc/$2/ns/net" "$top/scripts/registry" "$work/$1-$kind" --port "$port" "${login[@]}" > /dev/null &
        started+=($!)
        login=(--auth)
        port=5001
    done
    for kind in registry login-registry; do
        for _ in $(seq 300); do
            if [ -e "$work/$1-$kind/address" ]; then break; fi
            sleep 0.1
        done
    done
}

start_dockerd() {
    local name=dockerd$1 pid
    say "starting dockerd $1"
    "$top/scripts/dockerd" "$work/$name" "$("$top/scripts/parts" "docker-$1")" > "$work/$name.log" 2>&1 &
    pid=$!
    started+=("$pid")
    answers "$work/$name/docker.sock" "$pid" "$work/$name.log"
    sockets+=("$name=unix://$work/$name/docker.sock,netns=$pid,reference")
    registries "$name" "$pid"
}

start_ringer() {
    local pid
    say "starting ringer"
    mkdir "$work/ringer"
    "$top/scripts/apart" "$1" serve -H "unix://$work/ringer/docker.sock" --data-root "$work/ringer/data" \
        --exec-root "$work/ringer/exec" --pidfile "$work/ringer/pid" > "${RINGER_LOG:-$work/ringer.log}" 2>&1 &
    pid=$!
    started+=("$pid")
    answers "$work/ringer/docker.sock" "$pid" "${RINGER_LOG:-$work/ringer.log}"
    sockets+=("ringer=unix://$work/ringer/docker.sock,netns=$pid")
    registries ringer "$pid"
}

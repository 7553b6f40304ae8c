# Sourced by scripts that compare: starts daemons apart from each other and ends them all. `sockets` holds what the harness
# calls them; `begin_peers` comes first.

begin_peers() {
    root_only
    # Short: a job's BuildKit makes sockets deep below it, whose paths have an end.
    work=$(mktemp -d "${TMPDIR:-/tmp}/rngp.XXXXXX")
    sockets=()
    started=()
    ending=()
    tls=()
    trap end_peers EXIT
    trap 'exit 130' INT TERM
}

# Ends what was started, the last first, and the folder with it.
end_peers() {
    local code=$? at pid
    trap - EXIT
    # A job outlives its daemon, and so does its cgroup.
    if [ ${#ending[@]} -gt 0 ]; then "${ending[@]}" > /dev/null || true; fi
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

# listen_on_tcp: what is started from now on listens on tcp://127.0.0.1:2376 too, with TLS, for clients with a certificate.
# `$work/certificates` gets a folder for each client, as docker CLI wants them: `client`, and `stranger`, whose CA is another.
listen_on_tcp() {
    local folder=$work/certificates
    mkdir "$folder"
    authority "$folder/daemon" server
    authority "$folder/client" client "$folder/daemon"
    authority "$folder/stranger" client
    mv "$folder/stranger/ca.pem" "$folder/stranger/own-ca.pem"
    cp "$folder/daemon/ca.pem" "$folder/stranger/ca.pem"
    tls=(-H tcp://127.0.0.1:2376 --tlsverify "--tlscacert=$folder/daemon/ca.pem" "--tlscert=$folder/daemon/cert.pem" \
        "--tlskey=$folder/daemon/key.pem")
}

# authority FOLDER server|client [FOLDER2]: a certificate with its key, by the CA of FOLDER2 or by a new one
authority() {
    local ca=${3:-$1} key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    mkdir "$1"
    {
        if [ "$ca" = "$1" ]; then openssl req -x509 "${key[@]}" -keyout "$ca/ca-key.pem" -out "$ca/ca.pem" -days 2 -subj /CN=ca; fi
        openssl req "${key[@]}" -keyout "$1/key.pem" -out "$1/request" -subj "/CN=$2"
        openssl x509 -req -in "$1/request" -CA "$ca/ca.pem" -CAkey "$ca/ca-key.pem" -CAcreateserial -out "$1/cert.pem" -days 2 \
            -extfile <(printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=%sAuth\n' "$2")
    } 2> "$1/log" || fail "openssl: $(cat "$1/log")"
    [ "$ca" = "$1" ] || cp "$ca/ca.pem" "$1/ca.pem"
}

# start_dockerd NAME: by the names of scripts/parts; NAME-containerd keeps its images in containerd
start_dockerd() {
    local name=dockerd$1 part=${1%-containerd} store=() pid
    if [ "$part" != "$1" ]; then store=(--feature containerd-snapshotter=true); fi
    say "starting dockerd $1"
    "$top/scripts/dockerd" "$work/$name" "$("$top/scripts/parts" "docker-$part")" "${store[@]}" "${tls[@]}" > "$work/$name.log" 2>&1 &
    pid=$!
    started+=("$pid")
    answers "$work/$name/docker.sock" "$pid" "$work/$name.log"
    sockets+=("$name=unix://$work/$name/docker.sock,netns=$pid,reference")
    registries "$name" "$pid"
}

# start_ringer PROGRAM [flags...]
start_ringer() {
    local pid
    say "starting ringer"
    mkdir "$work/ringer"
    "$top/scripts/apart" "$1" serve -H "unix://$work/ringer/docker.sock" --data-root "$work/ringer/data" \
        --exec-root "$work/ringer/exec" --pidfile "$work/ringer/pid" "${tls[@]}" "${@:2}" > "${RINGER_LOG:-$work/ringer.log}" 2>&1 &
    pid=$!
    started+=("$pid")
    answers "$work/ringer/docker.sock" "$pid" "${RINGER_LOG:-$work/ringer.log}"
    sockets+=("ringer=unix://$work/ringer/docker.sock,netns=$pid")
    registries ringer "$pid"
}

# start_job PROGRAM [flags...]: ringer, and in it a job with the policy RINGER_JOB, through whose socket the harness goes, in the job's network.
# Its clients may bind what they have below `$work/clients`, as those of `ringer job run` their folder.
start_job() {
    local exec=$work/ringer/exec socket pid
    start_ringer "$@"
    unset "sockets[-1]"
    mkdir "$work/clients"
    socket=$("$1" job --admin-host "unix://$exec/admin.sock" create --policy "$RINGER_JOB" --bind "$work/clients" | jq -r .socket)
    ending=("$1" job --admin-host "unix://$exec/admin.sock" rm "$(basename "$(dirname "$socket")")")
    # Nothing is routed out of here. What asks for a name in a job hears it at once, as beside the daemon, in place of waiting.
    nsenter --net="/proc/$(cat "$work/ringer/pid")/ns/net" ip route add prohibit default
    # The namespace is mounted where ringer sees it.
    nsenter --target "$(cat "$work/ringer/pid")" --mount \
        nsenter --net="$exec/hosts/$(basename "$(dirname "$socket")")/host" sleep infinity &
    pid=$!
    started+=("$pid")
    for _ in $(seq 300); do
        if [ "$(cat "/proc/$pid/comm")" = sleep ]; then break; fi
        sleep 0.1
    done
    # By the same name: the same deviations hold.
    sockets+=("ringer=unix://$socket,netns=$pid,job=$RINGER_JOB")
    registries job "$pid"
}

# Functions that every step may call. Sourced by the harness before the step's own lines.

# api METHOD PATH [JSON]: the status and the body of an API call, without any docker client
api() {
    local method=$1 path=$2
    shift 2
    if [ $# -gt 0 ]; then set -- -H 'Content-Type: application/json' -d "$1"; fi
    curl --silent --unix-socket "$SOCKET" -X "$method" -o api.body -w '%{http_code}\n' "http://docker$path" "$@"
    cat api.body
}

# eventually COMMAND...: until it succeeds, at most ten seconds; prints only what the last try printed
eventually() {
    local tries
    for tries in $(seq 100); do
        if "$@" > eventually.out 2> eventually.err; then break; fi
        sleep 0.1
    done
    cat eventually.out
    cat eventually.err >&2
    [ "$tries" -lt 100 ]
}

# prints TEXT COMMAND...: whether the command's output contains the text
prints() {
    local text=$1
    shift
    "$@" 2>&1 | grep -q -e "$text"
}

# is STATE CONTAINER: whether inspect says so
is() { [ "$(docker inspect --type container --format '{{.State.Status}}' "$2" 2> /dev/null)" = "$1" ]; }

# past_events ARGUMENTS...: what happened so far. The client knows times only in seconds, so it waits for the next one.
past_events() {
    sleep 1.1
    docker events --since 10m --until 0s "$@"
}

# Functions that every step may call. Sourced by the harness before the step's own lines.

# When the subject began.
[ -e "$HOME/began" ] || date +%s.%N > "$HOME/began"

# api METHOD PATH [JSON]: the status and the body of an API call, without any docker client
api() {
    local method=$1 path=$2
    shift 2
    if [ $# -gt 0 ]; then set -- -H 'Content-Type: application/json' -d "$1"; fi
    curl --silent --unix-socket "$SOCKET" -X "$method" -o api.body -w '%{http_code}\n' "http://docker$path" "$@"
    cat api.body
}

# eventually COMMAND...: until it succeeds; prints only what the last try printed. After a hundred tries the step is over
# and has failed, whatever it would have done next: what never came is the same on every daemon.
eventually() {
    local tries
    for tries in $(seq 100); do
        if "$@" > eventually.out 2> eventually.err; then break; fi
        sleep 0.1
    done
    cat eventually.out
    cat eventually.err >&2
    if [ "$tries" = 100 ]; then exit 99; fi
}

# prints TEXT COMMAND...: whether the command's output contains the text
prints() {
    local text=$1
    shift
    "$@" 2>&1 | grep -q -e "$text"
}

# is STATE CONTAINER: whether inspect says so
is() { [ "$(docker inspect --type container --format '{{.State.Status}}' "$2" 2> /dev/null)" = "$1" ]; }

# past_events ARGUMENTS...: what happened since the subject began, on daemons that may have run it before. The client knows times only in seconds, so it waits for the next one.
past_events() {
    sleep 1.1
    docker events --since "$(cat "$HOME/began")" --until 0s "$@"
}

# tcp CLIENT COMMAND...: a command that finds the daemon over tcp, with the certificates of that client
tcp() {
    local folder=${CERTIFICATES:?was not given: compat run --certificates}/$1
    shift
    DOCKER_HOST=tcp://127.0.0.1:2376 DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=$folder "$@"
}

# refused CURL...: whether it fails while it greets the daemon, or when it first sends (55) or reads (56) after that
refused() {
    local code=0
    "$@" || code=$?
    case $code in 35 | 55 | 56) echo refused ;; *) return 1 ;; esac
}

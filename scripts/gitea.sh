# Sourced by scripts that have a real Gitea: `dir` is where everything lies. `servers` are ended with the script, and `remove` is removed.
address=10.99.0.1
url=http://$address:3000
gitea=$parts/gitea

servers=()
end() {
    local code=$? pid
    trap - EXIT
    for pid in "${servers[@]}"; do kill "$pid" 2> /dev/null || true; done
    wait
    if [ "$code" != 0 ] && [ -s "$dir/ringer.log" ]; then
        say "the end of ringer's log"
        tail -n 30 "$dir/ringer.log" >&2
    fi
    if [ -n "${remove-}" ]; then
        awk -v below="$remove/" 'index($2, below) == 1 { print $2 }' /proc/mounts | tac | xargs -r umount --lazy || true
        rm -rf --one-file-system "$remove" || true
    fi
    exit "$code"
}
trap end EXIT
trap 'exit 130' INT TERM

# until WHAT COMMAND...: for two minutes at most
until_true() {
    local what=$1
    shift
    for _ in $(seq 600); do
        if "$@" > /dev/null 2>&1; then return; fi
        sleep 0.2
    done
    fail "waited in vain: $what"
}

# of_gitea ARGUMENT...: its command line
of_gitea() { HOME=$dir "$gitea/gitea" --config "$dir/app.ini" "$@"; }

# api PATH [ARGUMENTS OF CURL]
api() { curl --silent --show-error --fail -H "Authorization: token $token" -H 'Content-Type: application/json' "$url/api/v1$1" "${@:2}"; }

# file PATH LOCAL: a change for the API
file() { printf '{"operation":"create","path":"%s","content":"%s"}' "$1" "$(base64 -w0 "$2")"; }

# push REPOSITORY CHANGES: commits them
push() { api "/repos/$1/contents" -d "{\"branch\":\"main\",\"message\":\"a push\",\"files\":[$2]}" > /dev/null; }

start_gitea() {
    cat > "$dir/app.ini" <<INI
RUN_USER = root
I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true
WORK_PATH = $dir/gitea
[server]
HTTP_ADDR = 0.0.0.0
HTTP_PORT = 3000
ROOT_URL = $url/
LOCAL_ROOT_URL = $url/
STATIC_ROOT_PATH = $gitea/static
DISABLE_SSH = true
OFFLINE_MODE = true
[database]
DB_TYPE = sqlite3
[security]
INSTALL_LOCK = true
SECRET_KEY = of-a-demo
[actions]
ENABLED = true
DEFAULT_ACTIONS_URL = self
INI
    of_gitea migrate > "$dir/gitea.log" 2>&1
    of_gitea admin user create --admin --must-change-password=false --username demo --password of-a-demo-1 --email demo@localhost >> "$dir/gitea.log" 2>&1
    token=$(of_gitea admin user generate-access-token --username demo --token-name ringer --scopes all --raw 2>> "$dir/gitea.log" | grep -xE '[0-9a-f]{40}')
    # Without a function: the process that is started is the one to end.
    HOME=$dir "$gitea/gitea" --config "$dir/app.ini" web >> "$dir/gitea.log" 2>&1 &
    servers+=($!)
    until_true "Gitea answers" curl --silent --fail "$url/api/v1/version"
}

# start_registry IMAGE...
start_registry() {
    "$top/scripts/registry" "$dir/registry" "$@" > "$dir/registry.log" 2>&1 &
    servers+=($!)
    until_true "the registry has the images" test -s "$dir/registry/address"
    registry=$(cat "$dir/registry/address")
}

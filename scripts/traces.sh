# Sourced by scripts that start a daemon: what a daemon leaves on a machine, taken before and compared after.

# traces FOLDER: one line per process of FOLDER, mount, link, network namespace, nft table, control group, and file in the
# places where container daemons put some. Other daemons may be at work on the machine: what is plainly alive and not
# of FOLDER is left out.
traces() {
    local folder=$1
    {
        processes_of "$folder"
        awk '{ print "mount", $5 }' /proc/self/mountinfo
        awk -F: 'NR > 2 { gsub(/ /, "", $1); print "link", $1 }' /proc/net/dev
        find /run/netns /var/run/docker/netns -mindepth 1 | sed 's/^/netns /'
        nft list ruleset | sed 's/^[[:space:]]*/nft /'
        find /run/ringer /run/runc /run/crun /var/lib/ringer -maxdepth 3 | sed 's/^/file /'
        dead_sockets | sed 's/^/file /'
        find "${TMPDIR:-/tmp}" -maxdepth 1 -newer "$folder" ! -path "$folder" \
            \( -name 'ringer-demo*' -o -name 'containerd*' -o -name 'shim*' \) | sed 's/^/file /'
        empty_groups | sed 's/^/cgroup /'
    } 2> /dev/null || true
}

# Every process but this script and its children whose command line names a file in the folder, or whose root lies there
processes_of() {
    local pid words line
    for pid in /proc/[0-9]*; do
        mapfile -d '' -t words < "$pid/cmdline" || continue
        line="${words[*]}"
        if [[ $line != *"$1/"* ]] && ! grep -q -m 1 -F "$1/" <(head -n 1 "$pid/mountinfo"); then continue; fi
        if [ "${pid#/proc/}" != $$ ] && ! grep -q "^PPid:[[:space:]]*$$\$" "$pid/status"; then
            echo "process ${pid#/proc/} ${line:0:120}"
        fi
    done
}

# Sockets of shims that nobody listens at any more
dead_sockets() {
    local socket code
    for socket in /run/containerd/s/*; do
        if [ -S "$socket" ]; then
            code=0
            curl --silent --max-time 0.1 --unix-socket "$socket" http://shim/ > /dev/null || code=$?
            if [ "$code" = 7 ]; then echo "$socket"; fi
        fi
    done
}

# Control groups of containers in which nothing runs
empty_groups() {
    local group
    while read -r group; do
        if [ -z "$(cat "$group/cgroup.procs")" ]; then echo "$group"; fi
    done < <(find /sys/fs/cgroup -maxdepth 4 -type d -regextype posix-extended -regex '.*/(ringer[^/]*|[0-9a-f]{64})')
}

# leftovers FOLDER BEFORE: whether nothing is there that the list BEFORE has not; tells what is. The kernel takes a moment to
# drop namespaces, and with them their links, so it looks for up to five seconds.
leftovers() {
    local folder=$1 before=$2 left=
    for _ in $(seq 25); do
        left=$(traces "$folder" | sort | comm -13 <(sort "$before") -)
        if [ -z "$left" ]; then return 0; fi
        sleep 0.2
    done
    echo "stayed behind:"
    echo "$left" | sed 's/^/  /'
    return 1
}

# tree PID: the process and all its descendants
tree() {
    local pid
    echo "$1"
    for pid in $(cat /proc/"$1"/task/*/children 2> /dev/null); do tree "$pid"; done
}

# Sourced by scripts that start a daemon: what a daemon leaves on a machine, taken before and compared after.

# traces FOLDER: one line per process that works in or from FOLDER, mount, link, network namespace, nft table, and file
# in the places where container daemons put some
traces() {
    local folder=$1
    {
        processes_of "$folder"
        awk '{ print "mount", $5 }' /proc/self/mountinfo
        awk -F: 'NR > 2 { gsub(/ /, "", $1); print "link", $1 }' /proc/net/dev
        find /run/netns /var/run/docker/netns -mindepth 1 | sed 's/^/netns /'
        nft list ruleset | sed 's/^[[:space:]]*/nft /'
        find /run/containerd /run/ringer /run/runc /run/crun /run/docker /var/lib/{ringer,containerd,docker} -maxdepth 3 | sed 's/^/file /'
        find "${TMPDIR:-/tmp}" -maxdepth 1 -newer "$folder" ! -path "$folder" -name '*ringer*' | sed 's/^/file /'
        find /sys/fs/cgroup -maxdepth 3 -type d | sed 's/^/cgroup /'
    } 2> /dev/null || true
}

# Everything but this script and its own children, whose command line names a file in the folder
processes_of() {
    local pid line
    for pid in /proc/[0-9]*; do
        line=$(tr '\0' ' ' < "$pid/cmdline") || continue
        case $line in *"$1/"*) ;; *) continue ;; esac
        if [ "${pid#/proc/}" != $$ ] && ! grep -q "^PPid:[[:space:]]*$$\$" "$pid/status"; then
            echo "process ${pid#/proc/} ${line:0:120}"
        fi
    done
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

# Sourced by the other scripts: where things lie, and how they speak. Sets `top` (the repository), `target` (cargo's
# folder, which also keeps the fetched parts and the images between runs) and `say`.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$top/target}
parts=$target/parts
images=$target/images
say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
root_only() { [ "$(id -u)" = 0 ] || fail "needs root: it mounts, makes network namespaces and runs a container daemon"; }

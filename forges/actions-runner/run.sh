#!/bin/sh
# The start script of the runner's folder, with the manners of upstream's: it writes its helper beside itself, passes signals on if it is
# told to, and its own exit code says nothing of the job.
here=$(cd "$(dirname "$0")" && pwd)
cp -f "$here/run-helper.sh.template" "$here/run-helper.sh"
chmod 755 "$here/run-helper.sh"
if [ -z "$RUNNER_MANUALLY_TRAP_SIG" ]; then
    "$here/run-helper.sh" "$@"
    exit 0
fi
"$here/run-helper.sh" "$@" &
helper=$!
trap 'kill -TERM $helper 2> /dev/null' INT TERM
# A signal ends the waiting, not the helper.
wait $helper
code=$?
while kill -0 $helper 2> /dev/null; do
    wait $helper
    code=$?
done
exit $code

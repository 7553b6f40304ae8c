#!/bin/sh
# The start of the image, with the variables of upstream's run.sh: registers once, then runs.
set -e
state=${RUNNER_STATE_FILE:-.runner}
set --
if [ -n "$CONFIG_FILE" ]; then set -- --config "$CONFIG_FILE"; fi

token=$GITEA_RUNNER_REGISTRATION_TOKEN
if [ -f "$GITEA_RUNNER_REGISTRATION_TOKEN_FILE" ]; then token=$(cat "$GITEA_RUNNER_REGISTRATION_TOKEN_FILE"); fi

register() {
    gitea-runner "$@" register --no-interactive --instance "$GITEA_INSTANCE_URL" --token "$token" --name "${GITEA_RUNNER_NAME:-$(hostname)}" \
        ${GITEA_RUNNER_LABELS:+--labels "$GITEA_RUNNER_LABELS"} ${GITEA_RUNNER_EPHEMERAL:+--ephemeral}
}

attempt=1
while [ ! -s "$state" ]; do
    if register "$@"; then break; fi
    if [ "$attempt" -ge "${GITEA_MAX_REG_ATTEMPTS:-10}" ]; then exit 1; fi
    attempt=$((attempt + 1))
    sleep 5
done
unset GITEA_RUNNER_REGISTRATION_TOKEN GITEA_RUNNER_REGISTRATION_TOKEN_FILE
exec gitea-runner "$@" daemon ${GITEA_RUNNER_ONCE:+--once}

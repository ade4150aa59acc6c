#!/bin/bash
# The whole life of a connection in headless Chromium against the sandbox, from an empty store: see
# tests/inbox/connect.py. Pictures are left in target/connect/. LOAD_SECONDS is how long messages come while tokens
# expire every two seconds. Prints SKIP with the reason and ends with 77 where a tool is missing.
. "$(dirname "$0")/support/script.sh"
need python3 mosquitto mosquitto_pub mosquitto_sub chromium

cargo build --locked --quiet
folder=$(mktemp -d)
code=0
timeout 300 python3 tests/inbox/connect.py target/debug/pipepost "$folder" target/connect \
    "${LOAD_SECONDS:-60}" || code=$?
if [ "$code" -ne 0 ]; then
    for log in gateway sandbox; do
        echo "--- the $log's output"
        tail -n 40 "$folder/$log.log" || true
    done
fi
rm -rf "$folder"
exit "$code"

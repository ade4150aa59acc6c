#!/bin/bash
# The sandbox's inbox page in headless Chromium, on `pipepost demo`: see tests/inbox/check.py. Pictures of the page
# are left in target/inbox/. Prints SKIP with the reason and ends with 77 where a tool is missing.
. "$(dirname "$0")/support/script.sh"
need python3 mosquitto_pub chromium

cargo build --locked --quiet
folder=$(mktemp -d)
code=0
timeout 180 python3 tests/inbox/check.py target/debug/pipepost "$folder" target/inbox || code=$?
if [ "$code" -ne 0 ]; then
    echo "--- the demo's output"
    tail -n 60 "$folder"/demo.log || true
fi
rm -rf "$folder"
exit "$code"

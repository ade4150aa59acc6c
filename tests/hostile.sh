#!/bin/bash
# Hostile peers at the listener of a real daemon: slow ones (slowhttptest, tests/hostile/slow.py), then 100,000 broken
# requests with memory before and after (tests/hostile/flood.py). Everything runs on the loopback interface.
# PIPEPOST_PROGRAM names another build. Prints SKIP with the reason and ends with 77 where a tool is missing.
. "$(dirname "$0")/support/script.sh"
need python3 slowhttptest

program=${PIPEPOST_PROGRAM:-target/debug/pipepost}
[ -n "${PIPEPOST_PROGRAM:-}" ] || cargo build --locked --quiet
folder=$(mktemp -d)
code=0
for part in "${@:-slow flood}"; do
    for name in $part; do
        timeout 120 python3 "tests/hostile/$name.py" "$program" "$folder" || code=$?
    done
done
if [ "$code" -ne 0 ]; then
    echo "--- the daemon's log"
    tail -n 40 "$folder"/*.log || true
fi
rm -rf "$folder"
exit "$code"

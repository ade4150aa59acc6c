#!/bin/bash
# Hostile peers at the listener of a real daemon: slow ones (slowhttptest, tests/hostile/slow.py), then 100,000 broken
# requests with memory before and after (tests/hostile/flood.py). Everything runs on the loopback interface.
# PIPEPOST_PROGRAM names another build. Prints SKIP with the reason and ends with 77 where a tool is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
    echo "SKIP: $1"
    exit 77
}
for tool in python3 slowhttptest; do
    command -v "$tool" >/dev/null || skip "$tool is not installed"
done

program=${PIPEPOST_PROGRAM:-target/debug/pipepost}
[ -n "${PIPEPOST_PROGRAM:-}" ] || cargo build --locked --quiet
folder=$(mktemp -d)
code=0
for part in "${@:-slow flood}"; do
    for name in $part; do
        PYTHONDONTWRITEBYTECODE=1 timeout 120 python3 "tests/hostile/$name.py" "$program" "$folder" || code=$?
    done
done
if [ "$code" -ne 0 ]; then
    echo "--- the daemon's log"
    tail -n 40 "$folder"/*.log || true
fi
rm -rf "$folder"
exit "$code"

#!/bin/bash
# The sandbox's inbox page in headless Chromium, on `pipepost demo`: see tests/inbox/check.py. Pictures of the page
# are left in target/inbox/. Prints SKIP with the reason and ends with 77 where a tool is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

skip() {
    echo "SKIP: $1"
    exit 77
}
for tool in python3 mosquitto_pub chromium; do
    command -v "$tool" >/dev/null || skip "$tool is not installed"
done

cargo build --locked --quiet
folder=$(mktemp -d)
code=0
PYTHONDONTWRITEBYTECODE=1 timeout 180 python3 tests/inbox/check.py target/debug/pipepost "$folder" target/inbox || code=$?
if [ "$code" -ne 0 ]; then
    echo "--- the demo's output"
    tail -n 60 "$folder"/demo.log || true
fi
rm -rf "$folder"
exit "$code"

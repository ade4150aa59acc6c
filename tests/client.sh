#!/bin/bash
# Pipedrive's own published client for Node.js against the sandbox: see tests/client/flow.js. npm installs it into a
# folder of this run. Prints SKIP with the reason and ends with 77 where a tool or npm's registry is missing.
. "$(dirname "$0")/support/script.sh"

client=pipedrive@33.7.0

need node npm

cargo build --locked --quiet
folder=$(mktemp -d)
sandbox=
finish() {
    if [ -n "$sandbox" ]; then
        kill "$sandbox" 2>/dev/null || true
        wait "$sandbox" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT

started=$SECONDS
if ! timeout 60 npm install --prefix "$folder" --no-audit --no-fund --no-package-lock --ignore-scripts \
    --fetch-retries=1 --fetch-timeout=20000 "$client" >"$folder/npm.log" 2>&1; then
    if grep -qE 'ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|E40[0-9]|E50[0-9]' "$folder/npm.log" ||
        ! grep -q 'npm error' "$folder/npm.log"; then
        skip "npm cannot get $client: $(grep -m1 -E 'npm (error|ERR)' "$folder/npm.log" || echo 'no answer in 60 s')"
    fi
    cat "$folder/npm.log"
    exit 1
fi
echo "ok $((SECONDS - started)) s  npm installed $client"

target/debug/pipepost sim pipedrive --bind 127.0.0.1:0 --ca-out "$folder/ca.pem" --oauth 2>"$folder/sandbox.log" &
sandbox=$!
address=
for _ in $(seq 200); do
    address=$(sed -n 's/^Channels API *//p' "$folder/sandbox.log")
    [ -n "$address" ] && break
    kill -0 "$sandbox" 2>/dev/null || break
    sleep 0.05
done
if [ -z "$address" ]; then
    cat "$folder/sandbox.log"
    exit 1
fi
code=0
NODE_PATH="$folder/node_modules" NODE_EXTRA_CA_CERTS="$folder/ca.pem" timeout 50 \
    node tests/client/flow.js "$address" || code=$?
if [ "$code" -ne 0 ]; then
    echo "--- the sandbox's output"
    tail -n 40 "$folder/sandbox.log"
fi
exit "$code"

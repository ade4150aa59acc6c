#!/bin/bash
# The contract from outside: schemathesis and requests by hand on the manifest endpoints, a validating proxy between
# the uplink and the sandbox. See tests/contract/check.py. Everything runs on the loopback interface.
# Prints SKIP with the reason and ends with 77 where a tool is missing or Python packages cannot be fetched.
. "$(dirname "$0")/support/script.sh"
need python3 mosquitto mosquitto_pub mosquitto_sub

packages=(schemathesis==4.32.5 jsonschema==4.26.0 PyYAML==6.0.3)
venv=target/contract-venv
# The folder says what is in it, once all of it is.
if [ "$(cat "$venv/packages" 2>/dev/null)" != "${packages[*]}" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv" 2>/dev/null || skip "python3 cannot make a virtual environment (python3-venv)"
    timeout 300 "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}" >target/contract-pip.log 2>&1 ||
        skip "the Python packages cannot be fetched: $(tail -n 1 target/contract-pip.log)"
    echo "${packages[*]}" >"$venv/packages"
fi

cargo build --locked --quiet
folder=$(mktemp -d)
code=0
timeout 400 "$venv/bin/python" tests/contract/check.py target/debug/pipepost "$folder" || code=$?
if [ "$code" -ne 0 ]; then
    mkdir -p target/contract-logs
    cp "$folder"/*.log target/contract-logs/ || true
    echo "logs: target/contract-logs"
fi
rm -rf "$folder"
exit "$code"

# What the scripts in tests/ begin with; they source it, and are then in the project's folder.
#
#   . "$(dirname "$0")/support/script.sh"
#   need python3 mosquitto
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# Debian keeps brokers and file system tools away from a user's path.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
# For the scripts in Python: what they share, and no files beside it.
export PYTHONPATH=$PWD/tests/support PYTHONDONTWRITEBYTECODE=1

# Ends the script as one that cannot run here, with the reason.
skip() {
    echo "SKIP: $*"
    exit 77
}

# Skips unless all these commands are there.
need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || skip "$tool is not installed"
    done
}

# Builds these programs (`--bin NAME`, `--example NAME`) in the profile PIPEPOST_PROFILE, e2e or dev, and sets $built to
# the folder they are in.
build() {
    local profile=${PIPEPOST_PROFILE:-e2e}
    cargo build --quiet --locked --profile "$profile" "$@"
    built=${CARGO_TARGET_DIR:-target}/$([ "$profile" = dev ] && echo debug || echo "$profile")
}

# Builds the trials of the store, unless PIPEPOST_TRIAL names a built one, and sets $trial to the program.
build_trial() {
    trial=${PIPEPOST_TRIAL:-}
    if [ -z "$trial" ]; then
        build --example store_trial
        trial=$built/examples/store_trial
    fi
}

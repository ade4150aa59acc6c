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

#!/bin/bash
# The shipped unit under a real systemd: boots one with systemd-nspawn on an overlay of this machine's own files and
# lets it start, kill, hang, reload, misconfigure and stop the gateway. Nothing of this machine is changed.
# Prints SKIP with the reason and ends with 77 where that is not possible.
. "$(dirname "$0")/support/script.sh"

[ "$(id -u)" -eq 0 ] || skip "only root can boot a systemd"
need systemd-nspawn mosquitto mosquitto_pub unshare

# The program that cargo has just tested, or the one that is named.
if [ -z "${PIPEPOST:-}" ]; then
    cargo build --locked --quiet
    PIPEPOST=${CARGO_TARGET_DIR:-target}/debug/pipepost
fi
program=$(realpath "$PIPEPOST")

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/out" "$folder/layers"
cp tests/systemd/inside.sh "$folder/out/"

# In a mount namespace of its own, so that nothing stays mounted whatever happens.
boot() {
    local layers=$1 out=$2 program=$3
    mount -t tmpfs -o size=512m tmpfs "$layers"
    mkdir "$layers/upper" "$layers/work" "$layers/root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$layers/upper,workdir=$layers/work" "$layers/root"
    local root=$layers/root

    # What this machine starts is none of the test's business.
    rm -rf "$root"/etc/systemd/system/* "$root"/etc/mosquitto/conf.d/* "$root"/etc/pipepost "$root"/var/log/journal
    ln -s /dev/null "$root/etc/systemd/system/systemd-timesyncd.service"
    ln -s /dev/null "$root/etc/systemd/system/dbus.service"
    ln -s /dev/null "$root/etc/systemd/system/dbus.socket"
    : >"$root/etc/machine-id"
    : >"$root/etc/fstab"

    # What the package installs.
    touch "$root/usr/bin/pipepost"
    cp systemd/pipepost.service "$root/etc/systemd/system/"
    mkdir -p "$root/usr/lib/sysusers.d" "$root/usr/lib/tmpfiles.d"
    cp systemd/pipepost.sysusers "$root/usr/lib/sysusers.d/pipepost.conf"
    cp systemd/pipepost.tmpfiles "$root/usr/lib/tmpfiles.d/pipepost.conf"
    cp config/mosquitto/pipepost.conf "$root/etc/mosquitto/conf.d/"

    printf '[Unit]\nRequires=test.service\n' >"$root/etc/systemd/system/test.target"
    cat >"$root/etc/systemd/system/test.service" <<'UNIT'
[Unit]
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/bash /run/test-out/inside.sh
StandardOutput=append:/run/test-out/result
StandardError=inherit
UNIT
    exec systemd-nspawn --quiet --register=no --keep-unit --private-network --machine=pipepost-test \
        --bind="$out:/run/test-out" --bind-ro="$program:/usr/bin/pipepost" --directory="$root" \
        --boot -- --unit=test.target </dev/null
}
export -f boot

code=0
timeout --kill-after=5 55 unshare --mount --propagation private \
    bash -ec 'boot "$@"' boot "$folder/layers" "$folder/out" "$program" >"$folder/console" 2>&1 || code=$?

if [ ! -s "$folder/out/result" ]; then
    tail -n 20 "$folder/console"
    skip "no systemd boots here (systemd-nspawn ended with $code)"
fi
cat "$folder/out/result"
if ! grep -q '^DONE$' "$folder/out/result"; then
    echo "FAIL: the booted system did not get to its end (systemd-nspawn ended with $code):"
    tail -n 20 "$folder/console"
    exit 1
fi
! grep -q '^FAIL' "$folder/out/result"

#!/bin/bash
# A disk that runs full: the store refuses before the database runs into it, opens again when it is full to the
# last byte, and goes on by itself when there is room. Also while the database is written anew.
set -u
cd "$(dirname "$0")/.." || exit 1
skip() { echo "SKIP: diskfull: $1"; exit 77; }
[ "$(id -u)" = 0 ] || skip "needs root"

profile=${PIPEPOST_PROFILE:-e2e}
if [ -n "${PIPEPOST_TRIAL:-}" ]; then
    trial=$PIPEPOST_TRIAL
else
    cargo build --quiet --locked --profile "$profile" --example store_trial || exit 1
    target=${CARGO_TARGET_DIR:-target}
    trial=$target/$([ "$profile" = dev ] && echo debug || echo "$profile")/examples/store_trial
fi
work=$(mktemp -d) || exit 1
trap 'umount -l "$work" 2>/dev/null; rm -rf "$work"' EXIT
mount -t tmpfs -o size=40m tmpfs "$work" || skip "cannot mount a tmpfs"
fallocate -l 16M "$work/ballast" || skip "no fallocate on tmpfs"
"$trial" fill "$work" || exit 1
rm -rf "${work:?}"/*
"$trial" full-copy "$work"

#!/bin/bash
# A disk that runs full: the store refuses before the database runs into it, opens again when it is full to the
# last byte, and goes on by itself when there is room. Also while the database is written anew.
#
#   tests/diskfull.sh       PIPEPOST_PROFILE=e2e|dev
. "$(dirname "$0")/support/script.sh"
[ "$(id -u)" = 0 ] || skip "needs root"
build_trial
work=$(mktemp -d)
trap 'umount -l "$work" 2>/dev/null; rm -rf "$work"' EXIT
mount -t tmpfs -o size=40m tmpfs "$work" || skip "cannot mount a tmpfs"
fallocate -l 16M "$work/ballast" || skip "no fallocate on tmpfs"
unharmed() {
    if compgen -G "$work/store-damaged-*" >/dev/null; then
        echo "a full disk was taken for damage"
        exit 1
    fi
}
"$trial" fill "$work"
unharmed
rm -rf "${work:?}"/*
"$trial" full-copy "$work"
unharmed

#!/bin/bash
# Power cuts in a guest: a small Linux in QEMU writes to a store on ext4, QEMU is killed at a random moment, what the
# guest had not flushed from its disk's cache is kept, dropped or torn (benches/guest.py), and the guest boots again.
# The store must open and have everything that was acknowledged over a channel to the host.
#
#   tests/guest-cuts.sh [CUTS]      default 3; PIPEPOST_TRIAL=PROGRAM, PIPEPOST_PROFILE=e2e|dev
#
# A control does the same with the database's own flush alone and must lose something. Debian's kernel is fetched with
# apt; without KVM the processor is emulated. Prints SKIP with the reason and ends with 77 where something is missing.
. "$(dirname "$0")/support/script.sh"
need qemu-system-x86_64 busybox mkfs.ext4 python3
[ "$(uname -m)" = x86_64 ] || skip "the guest is one for x86-64"

profile=${PIPEPOST_PROFILE:-e2e}
if [ -n "${PIPEPOST_TRIAL:-}" ]; then
    trial=$PIPEPOST_TRIAL
else
    cargo build --quiet --locked --profile "$profile" --example store_trial
    target=${CARGO_TARGET_DIR:-target}
    trial=$target/$([ "$profile" = dev ] && echo debug || echo "$profile")/examples/store_trial
fi
exec python3 tests/guest/cuts.py "$trial" --cuts "${1:-3}"

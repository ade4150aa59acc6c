#!/bin/bash
# Simulated power cuts: ext4 on a loop device, a writer stopped while it works, the file system shut down without
# writing its log, mounted again. Everything that was acknowledged must be there, also what was packed into the archive
# meanwhile, and reports that came for it afterwards; the database is written anew all the time. None of them may be
# taken for damage.
#
#   tests/powercut.sh [CUTS]      default 30; PIPEPOST_PROFILE=e2e|dev
#
# A control does the same with the database's own flush alone and must lose something.
. "$(dirname "$0")/support/script.sh"
cuts=${1:-30}
[ "$(id -u)" = 0 ] || skip "needs root"
need losetup mkfs.ext4 python3
losetup -f >/dev/null 2>&1 || skip "no loop device"
build_trial
# From here on a failure is counted.
set +e

work=$(mktemp -d) || exit 1
writer=
cleanup() {
    [ -n "$writer" ] && kill -9 "$writer" 2>/dev/null
    umount -l "$work/mnt" 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT
mkdir "$work/mnt"

fresh() {
    umount "$work/mnt" 2>/dev/null
    rm -f "$work/disk"
    truncate -s 512M "$work/disk"
    mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$work/disk" || return 1
    mount -o loop "$work/disk" "$work/mnt" || skip "cannot mount a loop device"
    : >"$work/promised"
}

# EXT4_IOC_SHUTDOWN = _IOR('X', 125, u32); 2 = without flushing the log.
shutdown_fs() {
    python3 -c 'import fcntl,os,struct,sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(fd, 0x8004587D, struct.pack("I", 2))' "$work/mnt"
}

# one WRITE-MODE CHECK-MODE SECONDS: one cut; the checker's words are left in $work/said
one() {
    "$trial" "$1" "$work/mnt/state" >>"$work/promised" 2>"$work/writer.err" &
    writer=$!
    sleep "$3"
    kill -STOP "$writer" || { cat "$work/writer.err"; return 2; }
    shutdown_fs || skip "this kernel cannot shut a file system down"
    kill -9 "$writer"
    wait "$writer" 2>/dev/null
    writer=
    umount "$work/mnt" || return 2
    mount -o loop "$work/disk" "$work/mnt" || return 2
    "$trial" "$2" "$work/mnt/state" <"$work/promised" >"$work/said" 2>&1 || return
    if compgen -G "$work/mnt/state/store-damaged-*" >/dev/null; then
        cat "$work"/mnt/state/store-damaged-*/report.txt >>"$work/said"
        return 1
    fi
}

begun=$SECONDS
failed=0
promised=0
renewed=0
count() {
    [ -f "$work/promised" ] || return
    renewed=$((renewed + $(grep -c renewed "$work/promised")))
    promised=$((promised + $(grep -vc renewed "$work/promised")))
}
for cut in $(seq "$cuts"); do
    # Every fifth begins with an empty disk, so that cuts during creation are among them.
    if [ $((cut % 5)) = 1 ]; then
        count
        fresh || exit 1
    fi
    one write check "0.$((RANDOM % 8))$((RANDOM % 10))"
    if [ $? != 0 ]; then
        failed=$((failed + 1))
        echo "cut $cut:"
        tail -5 "$work/said"
    fi
done
count
echo "$cuts power cuts in $((SECONDS - begun)) s: $promised acknowledged, $failed stores with losses or alarms;" \
    "the database was written anew $renewed times"

lost=0
for cut in 1 2 3 4 5 6; do
    fresh || exit 1
    one control-write control-check 0.5 || lost=$((lost + 1))
done
echo "control, the database's own flush alone: $lost of 6 stores with losses"
if [ "$failed" != 0 ] || [ "$promised" = 0 ] || [ "$renewed" = 0 ]; then exit 1; fi
if [ "$lost" = 0 ]; then echo "the control lost nothing: this trial proves nothing here"; exit 1; fi

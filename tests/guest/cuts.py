#!/usr/bin/env python3
"""Power cuts in a guest: see tests/guest-cuts.sh."""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benches"))
from guest import FATES, Disk, Guest, Skip, choose_accelerator, initramfs  # noqa: E402

# So many cuts, then an empty disk: some fall into the creation of a store.
CUTS_PER_DISK = 5
CONTROL_CUTS = 5
BOOT_LIMIT, BOOT_ATTEMPTS = 240, 4
# First what was promised, on the second disk, is looked for; then it writes until the power is gone.
WORK = """if grep -q check-it /proc/cmdline; then
        {program} {check} /mnt/state </dev/vdb >&3 2>&1
        echo "checked $?" >&3
    fi
    if grep -q write-it /proc/cmdline; then
        echo writing >&3
        {program} {write} /mnt/state >&3 2>&1
        echo "ended $?" >&3
    fi"""


class Trial:
    """A store in a guest whose power is cut again and again."""

    def __init__(self, folder, program, write, check):
        self.folder, self.initial = folder, folder / f"{write}.cpio"
        initramfs(self.initial, WORK.format(program=program.name, write=write, check=check), [program])
        self.cuts = self.early = self.acknowledged = self.renewed = self.unflushed = self.flushes = 0
        self.open_seconds, self.fate = 3.0, "nothing yet"
        self.fresh()

    def fresh(self):
        self.disk, self.promised = Disk(self.folder), []

    def boot(self, words):
        """A guest that has come up. Emulated on a busy machine, a kernel may give up before it has seen any disk."""
        for _ in range(BOOT_ATTEMPTS):
            guest = self.begin(words)
            if guest.wait(lambda said: "up" in said, BOOT_LIMIT):
                return guest
            guest.kill()
        raise SystemExit(f"no guest comes up: {guest.console.read_text(errors='replace')[-2000:]}")

    def begin(self, words):
        promises = self.folder / "promises"
        text = "".join(f"{line}\n" for line in self.promised)
        # A disk has whole sectors; empty lines are no promises.
        promises.write_bytes(text.encode().ljust(-(-max(len(text), 1) // 512) * 512, b"\n"))
        return Guest(self.folder, self.disk, self.initial, promises, words)

    def checked(self, guest):
        """What is wrong with the store, from what the guest has said; empty when nothing is."""
        said = guest.said()
        if "checked 0" in said:
            return []
        return [*said[-6:], *guest.console.read_text(errors="replace").splitlines()[-10:]]

    def cut(self):
        """One boot that ends with a cut; what was found wrong before it."""
        words = "check-it write-it" if self.promised else "write-it"
        guest = self.boot(words)
        # One in eight meets the guest while it repairs its file system, opens the store or looks.
        if self.promised and random.randrange(8) == 0:
            time.sleep(random.uniform(0, 1) * self.open_seconds)
            guest.kill()
            self.early += 1
        else:
            begun = time.monotonic()
            writes = guest.wait(lambda said: "writing" in said, BOOT_LIMIT)
            self.open_seconds = time.monotonic() - begun
            if writes:
                # Three in four once it has acknowledged something, the others maybe while it opens the store.
                if random.randrange(4):
                    guest.wait(lambda said: said[-1] != "writing", BOOT_LIMIT)
                time.sleep(random.uniform(0, 2))
            guest.kill()
            wrong = self.checked(guest) if "check-it" in words else []
            if not writes and not wrong:
                wrong = self.checked(guest)
            said = guest.said()
            new = said[said.index("writing") + 1:] if writes else []
            if any(line.startswith("ended") for line in new):
                wrong += new[-6:]
            if wrong:
                return wrong
            self.renewed += new.count("renewed")
            new = [line for line in new if line and line != "renewed"]
            self.promised += new
            self.acknowledged += len(new)
        self.cuts += 1
        self.fate = random.choice(FATES)
        unflushed, flushes = self.disk.lose_power(self.fate)
        self.unflushed += unflushed
        self.flushes += flushes
        return []

    def look(self):
        """A boot that only checks; what is wrong."""
        if not self.promised:
            return []
        guest = self.boot("check-it")
        guest.wait(lambda said: any(line.startswith("checked") for line in said), BOOT_LIMIT)
        guest.kill()
        return self.checked(guest)


def control(folder, program):
    """The database's own flush alone: after how many cuts something is gone; `None` when it never is."""
    trial = Trial(folder, program, "control-write", "control-check")
    for cut in range(1, CONTROL_CUTS + 1):
        trial.fresh()
        for _ in range(CONTROL_CUTS):
            if not trial.promised:
                trial.cut()
        if trial.look():
            return cut
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path)
    parser.add_argument("--cuts", type=int, default=3)
    arguments = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="guest-cuts-") as name:
        folder = Path(name)
        try:
            trial = Trial(folder, arguments.program, "write", "check")
            choose_accelerator(lambda: trial.begin("nothing"))
        except Skip as reason:
            print(f"SKIP: {reason}")
            return 77
        failed = 0
        while trial.cuts < arguments.cuts:
            wrong = trial.cut()
            if not wrong and (trial.cuts % CUTS_PER_DISK == 0 or trial.cuts == arguments.cuts):
                wrong = trial.look()
                trial.fresh()
            if wrong:
                failed += 1
                trial.cuts += 1
                print(f"cut {trial.cuts}; of what was not flushed before, {trial.fate} was kept:", *wrong, sep="\n  ", flush=True)
                trial.fresh()
            elif trial.cuts % 5 == 0:
                print(f"{trial.cuts} cuts, {trial.acknowledged} acknowledged, {failed} failed, "
                      f"{time.monotonic() - begun:.0f} s", flush=True)
        print(f"{trial.cuts} power cuts in a guest ({Guest.accelerator}) in {time.monotonic() - begun:.0f} s, "
              f"{trial.early} of them before it wrote: {trial.acknowledged} acknowledged, {failed} stores with losses; "
              f"the database was written anew {trial.renewed} times; {trial.flushes} flushes, "
              f"{trial.unflushed / 2:.0f} kB written after the last of them", flush=True)
        lost = control(folder, arguments.program)
        print(f"control, the database's own flush alone: it lost something at cut {lost} of at most {CONTROL_CUTS}")
    if failed or not trial.acknowledged or not trial.flushes:
        return 1
    if lost is None:
        print("the control lost nothing: this trial proves nothing here")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

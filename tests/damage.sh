#!/bin/bash
# A damaged disk: bytes of the database are flipped, overwritten, zeroed or cut off, by turns anywhere and in the newest
# 256 KiB of its log; then the real daemon is started as systemd does, again and again, and everything is read
# through it. It must be up after a few starts, and who the gateway is must stay the same. Nothing may be lost unnoticed,
# and never more messages than the report says. Every ninth database is left as it is, and must not be taken for damaged.
#
#   tests/damage.sh [TRIALS]      default 27; PIPEPOST_PROFILE=e2e|dev; SEED=1
#
# A control does the same at the end without the watermark, and must lose something unnoticed.
. "$(dirname "$0")/support/script.sh"
need python3
build --bin pipepost --example store_trial

exec python3 - "$built" "${1:-27}" "${SEED:-1}" <<'PYTHON'
import collections, json, os, pathlib, random, re, shutil, subprocess, sys, tempfile, time

target, trials, seed = pathlib.Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3])
random.seed(seed)
work = pathlib.Path(tempfile.mkdtemp(prefix="damage-"))
LIMIT, STARTS, END, SEGMENT = 60, 6, 256 << 10, 512 << 10
KINDS = ["flip", "block", "zero", "cut"]


def make():
    """A store that was ended in the middle of its work, and what it has promised."""
    with (work / "promised").open("wb") as out:
        writer = subprocess.Popen([target / "examples/store_trial", "write", work / "sound"], stdout=out)
        time.sleep(4)
        writer.kill()
        writer.wait()
    return sum(1 for _ in (work / "promised").open())


def damage(path, kind, at_end):
    content = path.read_bytes()
    start, size = 0, len(content.rstrip(b"\0"))
    if at_end:
        # The log's newest segment lies anywhere in the file; each begins with a checksum and its place, as sled writes it.
        number = lambda at: int.from_bytes(content[at + 4 : at + 12], "little") ^ (2**63 - 1)
        newest = max((at for at in range(0, size, SEGMENT) if number(at) < 2**48), key=number)
        size = newest + len(content[newest : newest + SEGMENT].rstrip(b"\0"))
        start = max(newest, size - END)
    place = lambda: random.randrange(start, size)
    at = place()
    with path.open("r+b") as file:
        if kind == "flip":
            for at in [at] if at_end else [place() for _ in range(5)]:
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ 0xFF]))
        elif kind == "cut":
            file.truncate(at)
        else:
            file.seek(at // 4096 * 4096)
            file.write(os.urandom(4096) if kind == "block" else bytes(65536))


def command(*words):
    done = subprocess.run(
        [target / "pipepost", "--config", work / "pipepost.toml", "--json", *words], capture_output=True, text=True
    )
    return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else None


def read_everything(daemon):
    """True when all was read and the daemon lives."""
    rows = command("conversations", "list", "--limit", "100000")
    read = [command("conversations", "show", row["id"], "--limit", "100000") for row in rows or []]
    read += [rows, command("queue", "--limit", "100000")]
    return None not in read and daemon.poll() is None


def start():
    """Whether it came up and everything was read."""
    # systemd makes the folder of the socket anew. With one that an end by SIGABRT left, `pipepost status` would read the
    # store itself, and there would be none of the daemon that could mend it.
    (work / "control").unlink(missing_ok=True)
    with (work / "log").open("ab") as log:
        daemon = subprocess.Popen([target / "pipepost", "--config", work / "pipepost.toml", "run"], stdout=log, stderr=log)
    try:
        end = time.monotonic() + LIMIT
        while time.monotonic() < end and daemon.poll() is None:
            if (work / "control").exists() and command("status"):
                return read_everything(daemon)
            time.sleep(0.05)
        return False
    finally:
        if daemon.poll() is None:
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def first_line(path):
    return path.read_text().split("\n")[0] if path.exists() else None


def trial(kind, at_end, watched=True):
    """What became of a damaged copy."""
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(work / "sound", state, symlinks=True)
    database = (state / "store" / "db").resolve()
    if not watched:
        database.with_name("watermark").unlink()
    if kind:
        damage(database, kind, at_end)
    (work / "log").write_bytes(b"")
    starts = 1
    while not start() and starts < STARTS:
        starts += 1
    reports = [path.read_text() for path in state.glob("store-damaged-*/report.txt")]
    check = subprocess.run(
        [target / "examples/store_trial", "check", state], stdin=(work / "promised").open(), capture_output=True, text=True
    )
    # Several promises are about one message.
    lost = {line.split(":")[0] for line in check.stdout.split("\n") if line.endswith((": lost", ": unreadable"))}
    older = {line.split(" ")[0] for line in check.stdout.split("\n") if " was " in line}
    most = re.findall(r"Lost: at most (\d+) ", "".join(reports))
    known = first_line(state / "identity") == first_line(work / "sound" / "identity")
    done = check.stdout.rstrip().endswith("bytes in the archive")
    return {
        "starts": starts,
        "lost": len(lost),
        "older": len(older - lost),
        "noticed": bool(reports),
        "reported": sum(map(int, most)) if most else None,
        "usable": starts < STARTS and known and done and not (reports and ": unreadable" in check.stdout),
        "words": f"{check.stdout[-2000:]}\n{check.stderr[-2000:]}\n{(work / 'log').read_text()[-3000:]}",
    }


promises = make()
state = work / "state"
(work / "pipepost.toml").write_text(
    f"""[gateway]
state_dir = "{state}"
control_socket = "{work}/control"
clock_wait = "0s"
[listener]
bind = "127.0.0.1:0"
[store]
disk_reserve = "4MiB"
[[broker]]
name = "nowhere"
url = "mqtt://127.0.0.1:9"
[[device]]
name = "trial"
broker = "nowhere"
[[device.in]]
topic = "trial/in"
from = "/from"
text = "/text"
[[channel]]
id = "trial"
name = "Trial"
kind = "mqtt"
device = "trial"
"""
)
bad, sums = 0, collections.Counter()
for number in range(trials):
    kind = None if number % 9 == 8 else KINDS[number % 9 % 4]
    at_end = number % 9 >= 4
    of = trial(kind, at_end)
    unnoticed = 0 if of["noticed"] else of["lost"] + of["older"]
    too_few = of["reported"] is not None and of["lost"] > of["reported"]
    false_alarm = kind is None and of["noticed"]
    sums.update(unnoticed=unnoticed, lost=of["lost"], reported=of["reported"] or 0, rescued=of["noticed"])
    good = of["usable"] and not unnoticed and not too_few and not false_alarm
    bad += not good
    print(
        f"{'ok ' if good else 'BAD'} {number:3} {kind or 'none':5} {'end' if at_end else 'any'} {of['starts']} starts;"
        f" {of['lost']} lost, {of['reported']} reported, {of['older']} with an older state",
        flush=True,
    )
    if not good:
        print(of["words"])
missed = 0
for number in range(max(4, trials // 4)):
    of = trial(KINDS[number % 4], True, watched=False)
    missed += 0 if of["noticed"] else of["lost"] + of["older"]
print(
    f"{sums['unnoticed']} unnoticed losses in {trials} damaged databases with {promises} promises each: {sums['rescued']}"
    f" rescued, {sums['lost']} messages lost, {sums['reported']} reported as lost at most; {bad} bad"
)
print(f"control, without the watermark: {missed} unnoticed losses")
if not missed:
    print("the control lost nothing unnoticed: this trial proves nothing here")
shutil.rmtree(work)
sys.exit(1 if bad or not missed else 0)
PYTHON

#!/bin/bash
# A damaged disk: bytes of the database are flipped, overwritten, zeroed or cut off at random; then the real daemon is
# started as systemd does, again and again, and everything is read through it. It must be up after a few starts, who the
# gateway is must stay the same, and what is lost must be named.
#
#   tests/damage.sh [TRIALS]      default 20; PIPEPOST_PROFILE=e2e|dev; SEED=1
set -u
trials=${1:-20}
cd "$(dirname "$0")/.." || exit 1

profile=${PIPEPOST_PROFILE:-e2e}
cargo build --quiet --locked --profile "$profile" --bin pipepost --example store_trial || exit 1
target=${CARGO_TARGET_DIR:-target}
target=$target/$([ "$profile" = dev ] && echo debug || echo "$profile")

exec python3 - "$target" "$trials" "${SEED:-1}" <<'PYTHON'
import collections, json, os, pathlib, random, shutil, subprocess, sys, tempfile, time

target, trials, seed = pathlib.Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3])
random.seed(seed)
work = pathlib.Path(tempfile.mkdtemp(prefix="damage-"))
LIMIT, STARTS = 60, 6


def make():
    """A store that was ended in the middle of its work, and what it has promised."""
    with (work / "promised").open("wb") as out:
        writer = subprocess.Popen([target / "examples/store_trial", "write", work / "sound"], stdout=out)
        time.sleep(4)
        writer.kill()
        writer.wait()
    return sum(1 for _ in (work / "promised").open())


def damage(path, kind):
    size = path.stat().st_size
    at = random.randrange(size)
    with path.open("r+b") as file:
        if kind == "flip":
            for _ in range(5):
                at = random.randrange(size)
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
    """As long as the daemon lives. True when all was read."""
    rows = command("conversations", "list", "--limit", "100000")
    for row in rows or []:
        command("conversations", "show", row["id"], "--limit", "100000")
    command("queue", "--limit", "100000")
    return rows is not None and daemon.poll() is None


def start():
    """Whether it came up and everything was read."""
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
bad, outcomes = 0, collections.Counter()
for trial in range(trials):
    kind = ["flip", "block", "zero", "cut"][trial % 4]
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(work / "sound", state, symlinks=True)
    damage((state / "store" / "db").resolve(), kind)
    (work / "log").write_bytes(b"")
    starts = 1
    while not start() and starts < STARTS:
        starts += 1
    up = starts < STARTS
    report = next(iter(state.glob("store-damaged-*/report.txt")), None)
    words = " ".join(report.read_text().split("\n")[1:3]) if report else "nothing was noticed"
    check = subprocess.run(
        [target / "examples/store_trial", "check", state], stdin=(work / "promised").open(), capture_output=True, text=True
    )
    said = (check.stdout.strip().split("\n") or [""])[-1]
    unreadable = "unreadable" in check.stdout or "panicked" in check.stderr
    known = (state / "identity").exists() and (state / "identity").read_text().split("\n")[0] == \
        (work / "sound" / "identity").read_text().split("\n")[0]
    outcomes["rescued" if report else "not noticed"] += 1
    good = up and known and not (report and unreadable)
    bad += not good
    print(f"{'ok ' if good else 'BAD'} {trial:3} {kind:5} {starts} starts; {said}; {words}", flush=True)
    if not good:
        print((work / "log").read_text()[-3000:], check.stderr[-500:])
print(f"{trials} trials with {promises} promises each, {bad} bad; {dict(outcomes)}")
shutil.rmtree(work)
sys.exit(1 if bad else 0)
PYTHON

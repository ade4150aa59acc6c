"""What every peer of benches/peers/run has: its processes, its limits, and how it is measured."""

import collections
import http.client
import inspect
import json
import os
import shutil
import signal
import statistics
import subprocess
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
IDLE_SECONDS = 3
DOWN_SECONDS = 3
# What systemd does: Restart=always, RestartSec=1.
RESTART_SECONDS = 1
# After a fault: so long without a POST, and nothing more is expected.
QUIET_SECONDS = 6
LIMIT_SECONDS = 60
# The burst in which something goes wrong, at most.
BURST = 500
CONNECT_SECONDS = 45
TICKS = os.sysconf("SC_CLK_TCK")


class Skip(Exception):
    """Why a peer cannot be measured here."""


class TooSlow(Exception):
    """What did not happen in time."""


def need(**commands):
    """command=package of Debian; installed when root."""
    path = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"
    packages = sorted({package for command, package in commands.items() if not shutil.which(command, path=path)})
    if not packages:
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        done = subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
                              env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, capture_output=True)
        if done.returncode == 0:
            return
    raise Skip(f"needs {', '.join(packages)} (Debian)")


class Sandbox:
    """The sandbox's counters over one kept connection, so that looking at them costs little."""

    def __init__(self, site):
        self.site = site
        self.connection = http.client.HTTPSConnection("localhost", site.api_port, context=site.tls)

    def ask(self, path):
        for attempt in (1, 2):
            try:
                self.connection.request("GET", f"/sandbox/{path}")
                return json.load(self.connection.getresponse())
            except (OSError, http.client.HTTPException):
                # The connection may have been idle for too long.
                self.connection.close()
                if attempt == 2:
                    raise

    def posts(self):
        return self.ask("counters")["counters"]["posts"]

    def texts(self, mark):
        """Of each text that begins with `mark`: how many messages in Pipedrive have it."""
        found = collections.Counter()
        for conversation in self.ask("state")["conversations"]:
            for message in conversation["messages"]:
                if not message["outgoing"] and message["text"].startswith(mark):
                    found[message["text"]] += 1
        return found


class Tree:
    """A peer's processes. They have a session of their own, so that all of them are found, whoever started them."""

    def __init__(self, site, command, environment):
        self.site = site
        self.child = site.start(*command, env=environment, start_new_session=True)

    def fields(self):
        """/proc/PID/stat of each living one, from the state on."""
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.child.pid and fields[0] != "Z":
                yield int(stat.parent.name), fields

    def cpu_seconds(self):
        """User and system time of all, with the children that they have waited for."""
        return sum(int(ticks) for _, fields in self.fields() for ticks in fields[11:15]) / TICKS

    def memory_mb(self):
        """VmRSS of all: a page that several of them share counts for each."""
        kib = 0
        for pid, _ in self.fields():
            try:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            except OSError:
                continue
            kib += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        return kib / 1024

    def alive(self):
        return self.child.poll() is None

    def signal(self, what):
        for pid, _ in self.fields():
            try:
                os.kill(pid, what)
            except ProcessLookupError:
                pass

    def kill(self):
        """All of them at once, as by a power cut."""
        while True:
            self.signal(signal.SIGKILL)
            if not any(self.fields()):
                break
        self.gone()

    def end(self):
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while any(self.fields()) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.kill()

    def gone(self):
        self.child.wait()
        if self.child in self.site.children:
            self.site.children.remove(self.child)


class Peer:
    """One way to do the work. The first paragraph of a subclass's docstring is its set-up."""

    name = ""
    # Messages at most: for those that need long for each.
    most = 1_000_000
    has_answers = False

    def __init__(self, ground, count):
        """`ground`: the site and what comes from its side."""
        self.ground, self.site = ground, ground.site
        self.count = min(count, self.most)
        self.sandbox = ground.sandbox
        self.tree = None
        # Until when all of this must be over.
        self.deadline = float("inf")
        # One wait at most, so that a slow one leaves time for the others.
        self.patience = LIMIT_SECONDS
        self.restarts, self.cpu_at_start, self.peak = 0, 0.0, 0.0
        self.figures = {"name": self.name, "setup": self.setup(), "side": ground.side}
        for key in ("msg_per_s", "rss_idle_mb", "rss_load_mb", "cpu_s_per_1000", "killed_lost", "killed_twice",
                    "http_down_lost", "http_down_twice", "sent_per_s"):
            self.figures[key] = None
        self.notes = []
        self.rates, self.costs = [], []

    @classmethod
    def setup(cls):
        return " ".join(inspect.getdoc(cls).split("\n\n")[0].split())

    @classmethod
    def install(cls):
        """Raises Skip when this is not possible here."""

    def command(self):
        raise NotImplementedError

    def environment(self):
        return dict(os.environ)

    def start(self):
        self.tree = Tree(self.site, self.command(), self.environment())

    def end(self):
        if self.tree:
            self.tree.end()
            self.tree = None

    def limit(self, seconds=LIMIT_SECONDS):
        """When to give up, at least 10 s from now."""
        now = time.monotonic()
        return min(now + min(seconds, self.patience), max(now + 10, self.deadline))

    def until(self, what, condition, limit=LIMIT_SECONDS, pause=0.02, supervised=False):
        """Waits for a condition; at the end of the limit, and when the peer ends by itself, gives up."""
        began, deadline = time.monotonic(), self.limit(limit)
        while True:
            value = condition()
            if value:
                return value
            if not self.tree.alive():
                if not supervised:
                    raise TooSlow(f"ended by itself while it should bring {what}")
                self.restart()
            if time.monotonic() > deadline:
                raise TooSlow(f"{what}: not within {time.monotonic() - began:.0f} s")
            time.sleep(pause)

    def restart(self):
        """What systemd does with all of them."""
        self.tree.kill()
        time.sleep(RESTART_SECONDS)
        self.restarts += 1
        self.start()

    def connect(self, mark):
        """Texts until one arrives: from then on it is known to work."""
        before, said = self.sandbox.posts(), [0.0]

        def arrived():
            if time.monotonic() - said[0] > 1:
                said[0] = time.monotonic()
                self.ground.write(self, 1, f"{self.name} {mark}")
            return self.sandbox.posts() > before

        self.until("its first message", arrived, CONNECT_SECONDS, supervised=True)
        self.quiet(1)

    def quiet(self, seconds, enough=lambda: False):
        """Waits until nothing has come for some time."""
        seen, since, deadline = self.sandbox.posts(), time.monotonic(), self.limit()
        while time.monotonic() - since < seconds and time.monotonic() < deadline and not enough():
            time.sleep(0.1)
            if not self.tree.alive():
                self.restart()
            posts = self.sandbox.posts()
            if posts != seen:
                seen, since = posts, time.monotonic()

    def idle(self):
        """Memory of an idle one, and what a start costs."""
        self.ground.fresh()
        self.start()
        self.connect("hello")
        time.sleep(IDLE_SECONDS)
        self.figures["rss_idle_mb"] = round(self.tree.memory_mb(), 1)
        self.cpu_at_start = self.tree.cpu_seconds()
        self.end()

    def rate(self, number):
        """A backlog that waits when it starts: from its first POST to its last."""
        self.ground.fresh()
        self.ground.write(self, self.count, f"{self.name} rate {number}")
        before = self.sandbox.posts()
        self.start()
        first, at_first, looked, empty = None, before, 0.0, time.monotonic()
        began, deadline = time.monotonic(), self.limit()
        while True:
            posts, now = self.sandbox.posts(), time.monotonic()
            if first is None and posts > before:
                # All at the first look: counted from the look before it, when there was nothing.
                first, at_first = (now, posts) if posts < before + self.count else (empty, before)
            empty = now
            if now - looked > 0.2:
                self.peak, looked = max(self.peak, self.tree.memory_mb()), now
            if posts >= before + self.count:
                break
            if now > deadline or not self.tree.alive():
                raise TooSlow(f"only {posts - before} of {self.count} in {now - began:.0f} s")
            time.sleep(0.01)
        self.peak = max(self.peak, self.tree.memory_mb())
        self.rates.append((posts - at_first) / (now - first))
        self.costs.append(max(0.0, self.tree.cpu_seconds() - self.cpu_at_start) * 1000 / self.count)
        self.figures["msg_per_s"] = round(statistics.median(self.rates), 1)
        self.figures["cpu_s_per_1000"] = round(statistics.median(self.costs), 3)
        self.figures["rss_load_mb"] = round(self.peak, 1)
        self.end()

    def under_load(self, what, fault):
        """A burst at a running one, with `fault` after a third; lost and twice in the end. It goes on running."""
        count = min(self.count, BURST)
        if self.tree is None:
            self.ground.fresh()
            self.start()
        self.connect(f"before {what}")
        mark = f"{self.name} {what}"
        before, self.restarts = self.sandbox.posts(), 0
        burst = threading.Thread(target=self.ground.write, args=(self, count, mark))
        burst.start()
        try:
            self.until("a third of the burst", lambda: self.sandbox.posts() >= before + count // 3, pause=0.001,
                       supervised=True)
            done = fault()
        finally:
            burst.join()
        self.notes.append(f"{done} after {self.met - before} of {count}")
        # What comes after it must get through as well.
        expected = {self.ground.text(mark, n) for n in range(count)}
        try:
            self.connect(f"after {what}")
        except TooSlow as error:
            self.notes.append(f"after it {error}")
        arrived = collections.Counter()

        def all_there():
            nonlocal arrived
            if self.sandbox.posts() < before + count:
                return False
            arrived = self.sandbox.texts(f"{mark} ")
            return not expected - arrived.keys()

        deadline = self.limit()
        self.quiet(QUIET_SECONDS, enough=all_there)
        # A slow one may need longer than that for what the modem still has.
        while self.ground.waiting(self) and time.monotonic() < deadline:
            self.quiet(2)
        self.quiet(1)
        arrived = self.sandbox.texts(f"{mark} ")
        waiting = self.ground.waiting(self)
        if waiting:
            self.notes.append(f"{waiting} still in the modem")
        lost = max(0, len(expected - arrived.keys()) - waiting)
        return lost, sum(1 for number in arrived.values() if number > 1)

    def killed(self):
        def kill():
            self.met = self.sandbox.posts()
            self.tree.kill()
            self.restart()
            return "killed"

        lost, twice = self.under_load("kill", kill)
        self.figures |= {"killed_lost": lost, "killed_twice": twice}

    def http_down(self):
        def down():
            self.site.tell("faults", {"drop_before": 1.0})
            self.met = self.sandbox.posts()
            deadline = time.monotonic() + DOWN_SECONDS
            while time.monotonic() < deadline:
                if not self.tree.alive():
                    self.restart()
                time.sleep(0.05)
            self.site.tell("faults", {"drop_before": 0.0})
            return "HTTP down"

        try:
            lost, twice = self.under_load("down", down)
        finally:
            self.site.tell("faults", {"drop_before": 0.0})
        if self.restarts:
            self.notes.append(f"ended {self.restarts} times while HTTP was down and was started again")
        self.figures |= {"http_down_lost": lost, "http_down_twice": twice}

    def sends(self):
        """Answers to the device, where there is one (`has_answers`)."""

    def result(self):
        return self.figures | {"note": "; ".join(self.notes)}

"""What a gateway takes while nothing happens, and what messages leave behind: memory, processor, disk."""

import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

from bench_site import NUMBERS, Site, memory_mb, wait_for
from report import said
from trial import Disk, Skip

from . import section

SAMPLE_S = 0.2
# What a start leaves to do.
SETTLED_S = 5
# What a message leaves to do: spent tokens are noted within a minute, and the kernel holds back the times of files for
# half a minute more. Maintenance's first look, half a minute after the start, is over by then.
RESTED_S = 100
SECTOR = 512
QUIET_S = 6


class Samples(threading.Thread):
    """Resident memory of a process: [seconds, VmRSS, RssAnon] in MB."""

    def __init__(self, pid):
        super().__init__()
        self.pid, self.ended, self.values = pid, threading.Event(), []
        self.began = time.monotonic()
        self.start()

    def run(self):
        while not self.ended.wait(SAMPLE_S):
            resident, own = memory_mb(self.pid)
            self.values.append([round(time.monotonic() - self.began, 1), round(resident, 2), round(own, 2)])

    def stop(self):
        self.ended.set()
        self.join()


@section("memory", "resident memory before, during and after a burst")
def memory(bench):
    count, later = bench.either(3000, 15000), bench.either(15, 60)
    with Site(bench.program) as site:
        gateway = site.gateway(bench.program)
        time.sleep(SETTLED_S)
        samples = Samples(gateway.pid)
        try:
            time.sleep(1)
            idle = memory_mb(gateway.pid)
            wait_for("the first message", lambda: site.publish(1, "hello") or site.posts() > 0)
            before = site.posts()
            began = time.monotonic() - samples.began
            site.publish(count, "burst")
            wait_for("the burst at the sandbox", lambda: site.posts() >= before + count, 300)
            ended = time.monotonic() - samples.began
            after = memory_mb(gateway.pid)
            time.sleep(later)
            rested = memory_mb(gateway.pid)
        finally:
            samples.stop()
    bench.series["memory: seconds, VmRSS, RssAnon in MB"] = samples.values
    during = [one[1:] for one in samples.values if began <= one[0] <= ended] or [after]
    peak = [max(one[kind] for one in during) for kind in (0, 1)]
    for what, (resident, own) in (("idle", idle), (f"peak during a burst of {count}", peak), ("right after it", after),
                                  (f"{later} s later", rested)):
        bench.row(f"resident (VmRSS), {what}", resident, "MB",
                  yardstick=[{"what": "of it its own (RssAnon)", "value": own, "unit": "MB"}])


class Counters:
    """What reached a loop device on which nothing else writes, from its /sys/block/…/stat."""

    def __init__(self, disk):
        self.disk = disk
        self.file = Path("/sys/block") / disk.device() / "stat"

    def settle(self):
        """Brings out what the kernel holds back, and waits until nothing comes any more."""
        said("sync", "-f", self.disk.at)
        wait_for("a quiet device", self.quiet())

    def quiet(self):
        """Whether nothing was written for longer than ext4 holds back its log, which is 5 s."""
        last = [self.read(), time.monotonic()]

        def asked():
            now = self.read()
            if now != last[0]:
                last[:] = [now, time.monotonic()]
            return time.monotonic() - last[1] > QUIET_S

        return asked

    def read(self):
        """Bytes written, and flushes."""
        fields = [int(field) for field in self.file.read_text().split()]
        return fields[6] * SECTOR, fields[15]


def processor_ns(pid):
    """Of each thread that is alive."""
    times = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            times[thread.name] = int((thread / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            pass
    return times


@section("idle", "processor and disk while nothing happens")
def idle(bench):
    seconds = bench.either(20, 60)
    with ExitStack() as stack:
        try:
            disk, why = stack.enter_context(closing(Disk("1G"))), None
        except Skip as reason:
            disk, why = None, reason
        site = stack.enter_context(Site(bench.program, state=disk and disk.state))
        gateway = site.gateway(bench.program)
        wait_for("the first message", lambda: site.publish(1, "hello") or site.posts() > 0)
        time.sleep(RESTED_S)
        counters = Counters(disk) if disk else None
        if counters:
            counters.settle()
        before = counters.read() if counters else None
        spent, known, began = 0, processor_ns(gateway.pid), time.monotonic()
        while time.monotonic() < began + seconds:
            # Each second, so that a thread that ends takes less than that of its time with it.
            time.sleep(1)
            now = processor_ns(gateway.pid)
            spent += sum(time_ns - known.get(thread, 0) for thread, time_ns in now.items())
            known = now
        share = spent / 1e9 / (time.monotonic() - began) * 100
        after = counters.read() if counters else None
    bench.row(f"processor while idle for {seconds} s", share, "%", limit=0.1, sense="most")
    for number, (what, unit) in enumerate((("written while idle", "B"), ("flushes of the disk while idle", ""))):
        if disk:
            bench.row(what, after[number] - before[number], unit, limit=0, sense="most")
        else:
            bench.missing(what, why)


@section("written", "what a message writes to the device, with the file system's own log")
def written(bench):
    seconds, burst = bench.either(15, 60), bench.either(2000, 10000)
    with closing(Disk("1G")) as disk, Site(bench.program, state=disk.state) as site:
        site.gateway(bench.program)
        wait_for("the first message", lambda: site.publish(1, "hello") or site.posts() > 0)
        site.publish(NUMBERS, "hello")
        counters = Counters(disk)
        for what, rounds, each, pause, limit in (
            ("one a second", seconds, 1, 1, 16_000),
            (f"a burst of {burst}", 1, burst, 0, 3_000),
        ):
            bytes_each, flushes_each = cost(site, counters, rounds, each, pause)
            bench.row(f"written per message, {what}", bytes_each, "B", limit=limit, sense="most",
                      yardstick=[{"what": "flushes per message", "value": flushes_each, "unit": ""}])


def cost(site, counters, rounds, each, pause):
    """Bytes and flushes per message, with what follows when the message is delivered."""
    counters.settle()
    before, wanted = counters.read(), site.posts() + rounds * each
    for number in range(rounds):
        site.publish(each, f"round {number}")
        time.sleep(pause)
    wait_for("the messages at the sandbox", lambda: site.posts() >= wanted, 300)
    wait_for("a quiet device", counters.quiet())
    return [(after - first) / (rounds * each) for first, after in zip(before, counters.read(), strict=True)]

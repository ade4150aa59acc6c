"""The store: durable writes, and what many stored messages cost a start, a page and the memory."""

import base64
import http.client
import json
import shutil
import ssl
import subprocess
import time
from contextlib import closing
from pathlib import Path

from bench_site import ROOT, Site, memory_mb
from report import median
from trial import Disk

from . import Missing, section

GROWTH = 1.5
PAGES = 200
# A store of a million messages and a copy of it.
ROOM = 4 << 30


@section("durable", "durable writes beside raw ones, at a loop device")
def durable(bench):
    with closing(Disk("2G")) as disk:
        found = figures(bench.rust("store", bench.either(10_000, 50_000), "--dir", disk.state,
                                   "--device", disk.device()))
    raw = {"what": "raw append + fdatasync", "value": found["raw"]["number"], "unit": "/s"}
    inside = {"what": "inside a file", "value": found["inside"]["number"], "unit": "/s"}
    one, wide = found["one"], found["64"]
    bench.row("stored durably, one at a time", one["number"], "/s", limit=0.6, sense="least", held=one["against"],
              held_unit="× raw", yardstick=[raw, inside])
    bench.row("stored durably, 64 writers", wide["number"], "/s", limit=7, sense="least", held=wide["against"],
              held_unit="× one at a time", yardstick=[raw])
    bench.row("written per message by the store, one at a time", found["bytes one"]["number"], "B", limit=16_000,
              sense="most")
    bench.row("written per message by the store, 64 writers", found["bytes 64"]["number"], "B", limit=3_000,
              sense="most")


# By the beginning of benches/store.rs's lines.
LINES = {"raw append": "raw", "raw write": "inside", "durable, one": "one", "durable, 64": "64",
         "device bytes per message, one": "bytes one",
         "device bytes per message, 64": "bytes 64"}


def figures(done):
    return {name: row for row in done["rows"] for begin, name in LINES.items() if row["what"].startswith(begin)}


def stores(bench):
    """Folders with stores of several sizes by their number of messages, made once in a run: in memory where there is
    room, since a million durable writes are not what is measured here."""
    if bench.kept_stores is None:
        memory = Path("/dev/shm")
        roomy = memory.is_dir() and shutil.disk_usage(memory).free > ROOM
        place = bench.folder(memory if roomy else ROOT / "target")
        bench.kept_stores = bench.rust("store", bench.either(20_000, 1_000_000), "--dir", place, "--keep")
    folder = Path(bench.kept_stores["folder"])
    sizes = bench.either((1000, 20_000), (1000, 100_000, 1_000_000))
    return {size: folder / f"state-{size}" for size in sizes}


@section("pages", "pages of stored conversations, as the store reads them")
def pages(bench):
    sizes, found, size = list(stores(bench)), {}, None
    for row in bench.kept_stores["rows"]:
        if row["what"].endswith("messages, delivered and packed"):
            size = int(row["what"].split()[0])
        elif size is not None and row["number"] is not None:
            found[size, row["what"].strip()] = row["number"]
    for what in ("getConversations, 10 × 10 messages", "getConversationById, 50 messages"):
        growth(bench, f"{what}, in the store", "µs", {size: found[size, what] for size in sizes})
    for (size, what), value in found.items():
        if size == sizes[-1] and what.startswith("resident"):
            bench.row(f"store alone with {size:,}, {what}", value, "MB", limit=40, sense="most")


def growth(bench, what, unit, by_size):
    first = next(iter(by_size))
    beside = [{"what": f"with {size:,}", "value": value, "unit": unit} for size, value in by_size.items()]
    largest = list(by_size)[-1]
    bench.row(f"{what}, p50 with {largest:,} messages", by_size[largest], unit, limit=GROWTH, sense="most",
              held=by_size[largest] / by_size[first], held_unit=f"× that with {first:,}", yardstick=beside[:-1])


class Reader:
    """Reads pages as Pipedrive does, over one kept TLS connection."""

    def __init__(self, site, program):
        said = subprocess.run([program, "--config", site.config, "status", "--json"], capture_output=True, text=True,
                              check=True).stdout
        self.channel = f"{json.loads(said)['gateway_id']}-bench"
        # What the gateway made for itself; whether it is trusted is not what is measured.
        anyone = ssl.create_default_context()
        anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
        self.connection = http.client.HTTPSConnection("127.0.0.1", site.listener_port, context=anyone)
        word = base64.b64encode(b"sandbox-client:sandbox-secret").decode()
        self.headers = {"Authorization": f"Basic {word}"}

    def get(self, path):
        """The answer and the milliseconds until it was there."""
        began = time.monotonic()
        self.connection.request("GET", f"/api/channels/{self.channel}/conversations{path}", headers=self.headers)
        answer = self.connection.getresponse()
        body = answer.read()
        took = (time.monotonic() - began) * 1000
        if answer.status != 200:
            raise Missing(f"the listener answers {path} with {answer.status}")
        return json.loads(body), took

    def list(self, conversations, messages, after):
        page, took = self.get(
            f"?conversations_limit={conversations}&messages_limit={messages}&after={after}")
        return page["data"], page["additional_data"]["after"], took

    def conversation(self, id, messages, after=""):
        page, took = self.get(f"/{id}?messages_limit={messages}&after={after}")
        return page["data"], page["data"]["next_messages_cursor"], took


def timed_pages(reader):
    """p50 of both pages in milliseconds. Pages that are not full would make small stores look quick."""
    lists, singles, ids, after = [], [], [], ""
    for _ in range(PAGES):
        page, after, took = reader.list(10, 10, after)
        if len(page) == 10 and all(len(one["messages"]) == 10 for one in page):
            lists.append(took)
        ids += [one["id"] for one in page]
    for id in ids:
        one, _, took = reader.conversation(id, 50)
        if len(one["messages"]) == 50:
            singles.append(took)
    if not lists or not singles:
        raise Missing("no page was full")
    return median(lists), median(singles)


def read_everything(reader, say):
    """Pages through all messages; how many there were."""
    read, after, began = 0, "", time.monotonic()
    while True:
        page, after, _ = reader.list(30, 50, after)
        for one in page:
            read += len(one["messages"])
            further = one["next_messages_cursor"]
            while further:
                rest, further, _ = reader.conversation(one["id"], 50, further)
                read += len(rest["messages"])
        if time.monotonic() - began > 15:
            say(f"{read:,} messages read")
            began = time.monotonic()
        if not after:
            return read


@section("start", "start to READY with stored messages, their pages at the listener, memory after reading all")
def start(bench):
    times = bench.either(3, 5)
    with Site(bench.program) as site:
        began, later = started(bench, site, times)
    bench.row("start to READY, first ever", began, "ms")
    bench.row("start to READY, empty store", later, "ms", limit=50, sense="most")
    lists, singles = {}, {}
    for size, folder in stores(bench).items():
        with Site(bench.program, state=folder) as site:
            # The stores have names of their own; and a sandbox that got to know the channel would read it all.
            config = site.config.read_text().replace('id = "gw-bench"', "").replace('id = "sms"', 'id = "bench"')
            site.config.write_text(config.replace("access_token_file", "#access_token_file"))
            first, later = started(bench, site, times)
            # The first one reads what was written since the store was opened last.
            bench.row(f"start to READY, {size:,} messages", max(first, later), "ms", limit=1000, sense="most",
                      yardstick=[{"what": f"the next {times}", "value": later, "unit": "ms"}])
            gateway = site.gateway(bench.program)
            fresh = memory_mb(gateway.pid)[0]
            reader = Reader(site, bench.program)
            lists[size], singles[size] = timed_pages(reader)
            if size == max(stores(bench)):
                read = read_everything(reader, bench.say)
                resident, own = memory_mb(gateway.pid)
                bench.row(f"resident after paging through {read:,}", resident, "MB", limit=40, sense="most", yardstick=[
                    {"what": "of it its own (RssAnon)", "value": own, "unit": "MB"},
                    {"what": "before", "value": fresh, "unit": "MB"}])
    growth(bench, "getConversations, 10 × 10, at the listener", "ms", lists)
    growth(bench, "getConversationById, 50, at the listener", "ms", singles)


def started(bench, site, times):
    """Milliseconds to READY of the first start, and the median of those after it."""
    took = []
    for _ in range(times + 1):
        child, seconds = site.ready(bench.program)
        took.append(seconds * 1000)
        site.stop(child)
    return took[0], median(took[1:])

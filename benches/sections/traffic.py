"""Messages on their way: how many, how soon, and how fast a backlog drains."""

import datetime
import http.client
import json
import re
import subprocess
import threading
import time

import bench_site
from bench_site import Site, sync_times_ms, wait_for
from report import median, percentiles

from . import Missing, section

TRICKLE_PER_S, ANSWERS_PER_S, TEXTS_PER_S = 20, 5, 2
# Of a simulated modem: from a message to the network's answer.
MODEM_SENDS_MS = 300
BURST, WINDOW_S, LATENCY_MS = 80, 2, 100
OUTAGE_S = 5
SETTLE_S = 60


@section("throughput", "a backlog from MQTT to the Channels API, durable")
def throughput(bench):
    done = bench.script("end-to-end", "--messages", bench.either(3000, 10000), "--rounds", bench.either(1, 3),
                        "--program", bench.program)

    def middle(key):
        values = [one[key] for one in done["rounds"] if one[key] is not None]
        return median(values) if values else None

    beside = [{"what": name, "value": middle(key), "unit": "/s"} for name, key in (
        ("paho + requests", "loop_per_s"),
        ("wrk on 1 connection", "bare_1_per_s"),
        ("wrk on 8", "bare_8_per_s"),
    ) if middle(key) is not None]
    bench.row("end to end, MQTT to the Channels API", middle("per_s"), "/s", limit=4, sense="least",
              held=middle("ratio"), held_unit="× paho + requests", yardstick=beside)
    bench.row("processor time per 1,000 messages", middle("cpu_s_per_1000"), "s", limit=0.25, sense="most",
              yardstick=[{"what": "paho + requests", "value": middle("loop_cpu_s_per_1000"), "unit": "s"}])


class Receipts:
    """When the sandbox received what it was sent, from its log of calls; that keeps the last 400."""

    def __init__(self, site):
        self.site = site
        calls = site.ask("calls")["calls"]
        self.last = calls[-1]["number"] if calls else 0
        # By text.
        self.messages, self.answers = {}, {}

    def collect(self):
        for call in self.site.ask(f"calls?after={self.last}")["calls"]:
            self.last = call["number"]
            # The log has the end of a call and how long it took.
            began = datetime.datetime.fromisoformat(call["at"]).timestamp() - call["milliseconds"] / 1000
            if call["request"].endswith("/messages/receive"):
                self.messages.setdefault(json.loads(call["sent"])["message"], began)
            elif text := re.search(r"answer \d+", call["sent"]):
                self.answers.setdefault(text[0], began)


def round_trips_ms(site, count=200):
    """What a POST takes over a kept connection when nobody is behind it: a message that the sandbox has, again."""
    call = next(call for call in reversed(site.ask("calls")["calls"]) if call["request"].endswith("/messages/receive"))
    connection = http.client.HTTPSConnection("localhost", site.api_port, context=site.tls)
    headers = {"Authorization": "Bearer sandbox-token", "Content-Type": "application/json"}
    times = []
    for _ in range(count):
        began = time.monotonic()
        connection.request("POST", "/api/v1/channels/messages/receive", call["sent"], headers)
        answer = connection.getresponse()
        answer.read()
        times.append((time.monotonic() - began) * 1000)
        if answer.status != 200:
            raise Missing(f"the sandbox answers a repeated message with {answer.status}")
    connection.close()
    return times


def paced(count, per_second, work):
    """Does something at a steady pace, with the number of the time."""
    began = time.monotonic()
    for number in range(count):
        time.sleep(max(0, began + number / per_second - time.monotonic()))
        work(number)


def incoming(site, per_second, seconds, send):
    """Sends texts at a steady pace; by text when it was sent, and when the sandbox received it."""
    receipts, sent = Receipts(site), {}

    def one(number):
        text = f"trickle {number}"
        sent[text] = time.time()
        send(number, text)
        if number % 100 == 99:
            receipts.collect()

    paced(int(per_second * seconds), per_second, one)
    wait_for("the last texts", lambda: receipts.collect() or sent.keys() <= receipts.messages.keys(), SETTLE_S)
    return [(receipts.messages[text] - at) * 1000 for text, at in sent.items()]


def outgoing(site, per_second, seconds, arrived):
    """Answers at a steady pace; from the beginning of each postMessage until `arrived` has it, by text."""
    receipts = Receipts(site)
    conversation = site.ask("summary")["list"][0]
    count = int(per_second * seconds)
    paced(count, per_second, lambda number: site.tell("reply", {
        "channel": conversation["channel"], "conversation": conversation["id"], "text": f"answer {number}"}))
    wait_for("the last answers", lambda: len(arrived) >= count, SETTLE_S)
    receipts.collect()
    return [(at - receipts.answers[text]) * 1000 for text, at in arrived.items() if text in receipts.answers]


def latency_rows(bench, what, times, yardstick):
    bench.series[f"{what}, ms"] = [round(one, 2) for one in times]
    for share, value in percentiles(times).items():
        bench.row(f"{what}, p{share}", value, "ms", yardstick=yardstick if share == 50 else [])


def mqtt_client(site, **callbacks):
    import paho.mqtt.client as mqtt

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    for name, callback in callbacks.items():
        setattr(client, name, callback)
    client.connect("127.0.0.1", site.broker_port)
    client.loop_start()
    return client


def limits_of(site):
    """What no gateway can be quicker than: a sync and a request."""
    return [
        {"what": "write + fdatasync p50", "value": median(sync_times_ms(site.state)), "unit": "ms"},
        {"what": "round trip to the sandbox p50", "value": median(round_trips_ms(site)), "unit": "ms"},
    ]


@section("latency", "from PUBLISH at the broker to the sandbox, and from postMessage to the device")
def latency(bench):
    seconds = bench.either(10, 20)
    with Site(bench.program) as site:
        site.gateway(bench.program)
        wait_for("the first message", lambda: site.publish(1, "hello") or site.posts() > 0)
        arrived = {}
        device = mqtt_client(
            site,
            on_connect=lambda client, *_: client.subscribe("sms2mqtt/send", 1),
            on_message=lambda _, __, message: arrived.setdefault(json.loads(message.payload)["text"], time.time()),
        )
        wait_for("the device", device.is_connected)

        def send(number, text):
            device.publish("sms2mqtt/received", json.dumps({
                "datetime": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
                "number": f"+1555010{number % bench_site.NUMBERS:04}", "text": text}), qos=1)

        times = incoming(site, TRICKLE_PER_S, seconds, send)
        answers = outgoing(site, ANSWERS_PER_S, seconds, arrived)
        device.disconnect()
        device.loop_stop()
        beside = limits_of(site)
    latency_rows(bench, f"customer's message to Pipedrive, {TRICKLE_PER_S}/s", times, beside)
    latency_rows(bench, f"agent's answer to the device, {ANSWERS_PER_S}/s", answers, beside[:1])


@section("modem", "the same through a simulated modem")
def modem(bench):
    seconds = bench.either(10, 20)
    with Site(bench.program) as site:
        stick = site.modem(bench.program, stdout=subprocess.PIPE, bufsize=0)
        arrived = {}

        def listen():
            for line in stick.stdout:
                if text := re.search(r"^sent to .*(answer \d+)", line.decode(errors="replace")):
                    arrived.setdefault(text[1], time.time())

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()

        def send(number, text):
            stick.stdin.write(f"text +49155{number % bench_site.NUMBERS:06} {text}\n".encode())
            stick.stdin.flush()

        site.gateway(bench.program)
        send(0, "hello")
        wait_for("the first text", lambda: site.posts() > 0)
        times = incoming(site, TEXTS_PER_S, seconds, send)
        answers = outgoing(site, TEXTS_PER_S, seconds, arrived)
        beside = limits_of(site)
    latency_rows(bench, f"text from the modem to Pipedrive, {TEXTS_PER_S}/s", times, beside)
    latency_rows(bench, f"agent's answer out of the modem, {TEXTS_PER_S}/s", answers,
                 [{"what": "of it the network's answer", "value": MODEM_SENDS_MS, "unit": "ms"}])


@section("drain", "a backlog after an outage, under Pipedrive's burst limit")
def drain(bench):
    count = bench.either(400, 1500)
    with Site(bench.program) as site:
        site.gateway(bench.program)
        wait_for("the first message", lambda: site.publish(1, "hello") or site.posts() > 0)
        site.publish(bench_site.NUMBERS, "hello")
        wait_for("every conversation", lambda: site.ask("counters")["conversations"] == bench_site.NUMBERS)
        wait_for("all of the first messages", quiet(site), SETTLE_S)
        site.tell("faults", {"drop_before": 1.0})
        site.publish(count, "backlog")
        time.sleep(OUTAGE_S)
        before = site.ask("counters")["counters"]
        site.tell("limits", {"burst": BURST})
        site.tell("faults", {"drop_before": 0.0, "latency_ms": LATENCY_MS})
        began = time.monotonic()
        marks = {}

        def counted():
            posts, now = site.posts() - before["posts"], time.monotonic()
            for wanted in (1, BURST, count):
                if posts >= wanted:
                    marks.setdefault(wanted, (now, posts))
            return count in marks

        wait_for("the backlog to drain", counted, 3 * count * WINDOW_S / BURST + 2 * SETTLE_S)
        refused = site.ask("counters")["counters"]["limited"] - before["limited"]
    # Behind the first burst, which a window that was empty lets through at once.
    (first, at_first), (last, at_last) = marks[BURST], marks[count]
    rate, allowed = (at_last - at_first) / (last - first), BURST / WINDOW_S
    bench.row(f"backlog of {count} drains at", rate, "/s", limit=95, sense="least", held=100 * rate / allowed,
              held_unit="% of the allowed rate", yardstick=[
                  {"what": "allowed", "value": allowed, "unit": "/s"},
                  {"what": "server's latency", "value": LATENCY_MS, "unit": "ms"}])
    bench.row("calls refused with 429 meanwhile", refused, limit=0, sense="most")
    bench.row(f"first message after {OUTAGE_S} s of outage", marks[1][0] - began, "s")


def quiet(site):
    """Whether nothing has come for a second."""
    last = [site.posts(), time.monotonic()]

    def asked():
        posts = site.posts()
        if posts != last[0]:
            last[:] = [posts, time.monotonic()]
        return time.monotonic() - last[1] > 1

    return asked

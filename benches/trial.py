"""A gateway under load on which something is done: what benches/faults and benches/soak share."""

import collections
import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import bench_site
from bench_site import ROOT, Site, listens, wait_for

# The program with the sandbox and the modem in it.
SIMULATORS = ROOT / "target" / "e2e" / "pipepost"
RATE = 50
CUSTOMERS = 40
RECOVER_WITHIN = 120
# The broker keeps what nobody has fetched, also over its own restart.
LASTING_BROKER = bench_site.BROKER.replace("persistence false", "persistence true\npersistence_location {dir}/\nuser root")
# _IOR('X', 125, u32), with 2: without writing the log.
EXT4_IOC_SHUTDOWN = 0x8004587D


class Skip(Exception):
    """Why a fault cannot be tried here."""


def faketime():
    """The library that changes a program's clock."""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    if library is None:
        raise Skip("needs faketime")
    return str(library)


class Clock:
    """A clock of the gateway's own that can jump."""

    def __init__(self, file, begins="+0", jumps=True):
        """`jumps`: only the time of day does, not what measures how long something takes."""
        self.file = file
        self.jump(begins)
        self.environment = {"LD_PRELOAD": faketime(), "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1"}
        if jumps:
            self.environment["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"

    def jump(self, to):
        """A shift and a speed, as libfaketime writes them. The gateway reads it at any moment: never half of it."""
        written = self.file.with_suffix(".new")
        written.write_text(f"{to}\n")
        written.replace(self.file)

    def forth_and_back(self, seconds):
        for to in ("+365d", "+0", "-365d", "+0"):
            self.jump(to)
            time.sleep(seconds / 4)


class Disk:
    """An ext4 of its own on a loop device, which can break without harm."""

    def __init__(self, size="256M", options="errors=remount-ro"):
        if os.geteuid() != 0:
            raise Skip("needs root")
        if not shutil.which("mkfs.ext4") or subprocess.run(["losetup", "-f"], capture_output=True).returncode:
            raise Skip("needs mkfs.ext4 and a loop device")
        self.options = options
        self.folder = Path(tempfile.mkdtemp(prefix="faults-"))
        self.image, self.at = self.folder / "disk", self.folder / "at"
        self.at.mkdir()
        subprocess.run(["truncate", "-s", size, self.image], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image], check=True)
        self.mount()
        self.state = self.at / "state"
        self.state.mkdir()

    def mount(self):
        subprocess.run(["mount", "-o", f"loop,{self.options}", self.image, self.at], check=True)

    @contextlib.contextmanager
    def full(self, left=8 << 20):
        """Others have filled the disk but for `left` bytes."""
        ballast = self.at / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(self.at).free - left)
        try:
            yield
        finally:
            ballast.unlink()

    def unmount(self):
        wait_for("the disk to be free", lambda: subprocess.run(["umount", self.at], capture_output=True).returncode == 0)

    def shut_down(self):
        """From now on every write fails with EIO, and what is not on the disk yet is gone."""
        descriptor = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", 2))
        finally:
            os.close(descriptor)

    def device(self):
        line = subprocess.run(["findmnt", "-no", "SOURCE", self.at], check=True, capture_output=True, text=True)
        return Path(line.stdout.strip()).name

    def close(self):
        subprocess.run(["umount", "-l", self.at], capture_output=True)
        shutil.rmtree(self.folder)


class Trial(Site):
    """A site whose customers write and whose agents answer in the background."""

    def __init__(self, program, environment=None, clock=None, rate=RATE, **options):
        """`environment`: the gateway's and the sandbox's; `clock`: the gateway's; `rate`: texts a second."""
        super().__init__(SIMULATORS, environment=environment, **options)
        self.program, self.rate = program, rate
        self.sent, self.accepted, self.at_device = 0, {}, collections.Counter()
        self.writing, self.agents_away = threading.Event(), threading.Event()
        self.done = threading.Event()
        self.supervised = True
        self.starts = 0
        self.environment = {**(environment or os.environ), **(clock.environment if clock else {})}
        self.closed = False
        self.prepare()
        self.start_gateway()
        self.threads = [threading.Thread(target=self.look_after)]

    def prepare(self):
        """Before the gateway starts."""

    def start_gateway(self):
        self.started = time.monotonic()
        self.child = self.start(self.program, "--config", self.config, "run", env=self.environment)
        self.starts += 1

    def begin(self):
        """Traffic from here on."""
        wait_for("the gateway", lambda: listens(self.listener_port))
        # A broker has nothing for a session that it does not know yet.
        wait_for("its subscription", self.probe)
        self.traffic()
        self.writing.set()
        for thread in self.threads:
            thread.start()
        wait_for("the first message", lambda: self.posts() > 0)

    def traffic(self):
        self.threads += [threading.Thread(target=self.customers), threading.Thread(target=self.agents)]

    def client(self, name):
        import paho.mqtt.client as mqtt

        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, clean_session=False)
        client.reconnect_delay_set(1, 1)
        return client

    def customers(self):
        """One text after the other; counted when the broker has it."""
        client = self.client("customers")
        client.on_connect = lambda client, *_: client.subscribe("sms2mqtt/send", 1)
        client.on_message = lambda _, __, message: self.arrived(json.loads(message.payload), message.dup)
        acknowledged = set()
        client.on_publish = lambda _, __, number, *rest: acknowledged.add(number)
        client.connect("127.0.0.1", self.broker_port)
        client.loop_start()
        while not self.done.is_set():
            if not self.writing.wait(0.1):
                continue
            message = client.publish("sms2mqtt/received", json.dumps({
                "datetime": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
                "number": f"+3161200{self.sent % CUSTOMERS:04}", "text": f"text {self.sent}"}), qos=1)
            while not self.done.is_set() and message.mid not in acknowledged:
                time.sleep(0.002)
            if message.mid in acknowledged:
                acknowledged.remove(message.mid)
                self.sent += 1
            time.sleep(1 / self.rate)
        # What is still on its way to the device may come.
        wait_for("the device's answers", lambda: self.answers_arrived() or self.closed, RECOVER_WITHIN)
        client.disconnect()
        client.loop_stop()

    def arrived(self, sms, again):
        """`again`: the broker gives it to the device once more, since it has not heard that it arrived (QoS 1); when the
        gateway had sent it twice, the second one would not say so."""
        if not (again and self.at_device[sms["text"]]):
            self.at_device[sms["text"]] += 1

    def agents(self):
        """An answer now and then; it counts when postMessage took it."""
        number = 0
        while not self.done.is_set():
            time.sleep(0.2)
            if not self.writing.is_set() or self.agents_away.is_set():
                continue
            try:
                known = self.ask("summary")["list"]
                if known:
                    chosen = random.choice(known)
                    said = self.tell("reply", {"channel": chosen["channel"], "conversation": chosen["id"],
                                               "text": f"answer {number}"})
                    self.accepted[f"answer {number}"] = said["id"]
            except OSError:
                # Refused or not reached: the agent sees that.
                pass
            number += 1

    def look_after(self):
        """What systemd does: Restart=always, RestartSec=1."""
        while not self.done.is_set():
            if self.supervised and self.child.poll() is not None:
                self.children.remove(self.child)
                time.sleep(1)
                if not self.done.is_set():
                    self.start_gateway()
            time.sleep(0.05)

    def kill(self):
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def texts(self):
        """Of each text how often it is in Pipedrive, and each answer's status."""
        incoming, answers = collections.Counter(), {}
        for conversation in self.ask("state")["conversations"]:
            for message in conversation["messages"]:
                if message["outgoing"]:
                    answers[message["id"]] = message["status"]
                else:
                    incoming[message["text"]] += 1
        return incoming, answers

    def out_of_order(self):
        """Texts that stand before an earlier one of the same customer."""
        found = []
        for conversation in self.ask("state")["conversations"]:
            texts = [message["text"] for message in conversation["messages"] if not message["outgoing"]]
            numbers = [int(text[5:]) for text in texts if text.startswith("text ")]
            found += [f"text {one}" for one, next in zip(numbers, numbers[1:]) if one > next]
        return found

    def missing(self):
        incoming, _ = self.texts()
        return [f"text {n}" for n in range(self.sent) if not incoming[f"text {n}"]]

    def unanswered(self):
        """Answers that are neither at the device nor shown as failed."""
        statuses = self.texts()[1]
        return [text for text, id in self.accepted.items()
                if not self.at_device[text] and statuses.get(id) != "failed"]

    def answers_arrived(self):
        return not self.unanswered()

    def settle(self, within=RECOVER_WITHIN):
        """Ends the writing and waits until nothing is missing; seconds that took, lost and doubled."""
        began = time.monotonic()
        # Also what is written after the fault must get through.
        before = self.sent
        wait_for("more texts", lambda: self.sent > before, RECOVER_WITHIN)
        self.writing.clear()
        deadline = began + within
        while time.monotonic() < deadline and (self.missing() or not self.answers_arrived()):
            time.sleep(0.1)
        took = time.monotonic() - began
        incoming, statuses = self.texts()
        lost = self.missing() + self.unanswered()
        doubled = [text for text, count in incoming.items() if count > 1 and not text.startswith("probe")]
        doubled += [text for text, count in self.at_device.items()
                    if count > 1 and statuses.get(self.accepted.get(text)) != "failed"]
        return took, lost, doubled

    def status(self):
        said = subprocess.run([self.program, "--config", self.config, "status"], capture_output=True, text=True)
        return said.stdout + said.stderr

    def probe(self):
        """Whether a text to the broker arrives: texts of its own, which are not counted."""
        before = self.posts()
        self.publish(1, "probe")
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            if self.posts() > before:
                return True
            time.sleep(0.05)
        return False

    def restart_broker(self, forget=False):
        """`forget`: without what it keeps over a restart."""
        self.stop(self.broker)
        if forget:
            (self.dir / "mosquitto.db").unlink(missing_ok=True)
        time.sleep(1)
        self.broker = self.start_broker()

    def broker_amnesia(self):
        """The broker forgets its sessions. What it holds dies with it; so it holds nothing."""
        self.writing.clear()
        time.sleep(0.2)
        wait_for("an empty broker", lambda: not self.missing() and self.answers_arrived(), 60)
        self.restart_broker(forget=True)
        wait_for("the gateway at the broker", lambda: "connected" in self.status(), 60)
        wait_for("its subscription", self.probe, 60)
        self.writing.set()

    def slow_loris(self, seconds):
        """200 connections that never finish a request."""
        tool = shutil.which("slowhttptest")
        if not tool:
            raise Skip("needs slowhttptest")
        attack = subprocess.Popen([tool, "-H", "-c", "200", "-r", "100", "-i", "2", "-l", str(seconds),
                                   "-u", f"https://127.0.0.1:{self.listener_port}/"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = len(self.accepted)
        attack.wait()
        if len(self.accepted) == before:
            raise AssertionError("no agent got an answer through during the attack")

    def close(self):
        self.closed = True
        self.done.set()
        for thread in self.threads:
            if thread.ident:
                thread.join()
        super().close()


class ModemTrial(Trial):
    """The same over a simulated modem, whose network hands texts over and takes answers."""

    def prepare(self):
        self.stick = self.modem(SIMULATORS)

    def say(self, command):
        self.stick.stdin.write(f"{command}\n".encode())
        self.stick.stdin.flush()

    def customers(self):
        while not self.done.is_set():
            if self.writing.wait(0.1):
                self.say(f"text +3161200{self.sent % CUSTOMERS:04} text {self.sent}")
                self.sent += 1
                # A modem is slower than a broker.
                time.sleep(0.2)

    def probe(self):
        return True

    def unanswered(self):
        statuses = self.texts()[1]
        return [text for text, id in self.accepted.items()
                if statuses.get(id) not in ("sent", "delivered", "failed")]

"""Slow peers of three kinds, and a client that behaves among them.

Usage: slow.py PROGRAM FOLDER

What must hold while 200 strangers are slow with heads, with bodies or with reading, and while a peer that has the
credentials is slow with bodies on nearly all places:
- the good client is answered within GOOD seconds whenever it comes, and never refused;
- the daemon holds no more connections than there are places, and one that waits for a place;
- memory grows by no more than MEMORY;
- the daemon closes every slow connection after the timeout of its kind at the latest, plus the wait for a place
  (who has made nothing of a place for a second has to leave it to the next) and MARGIN.
"""

import statistics
import subprocess
import sys
import threading
import time

from gateway import BASIC, BODY_TIMEOUT, CHANNEL, HEADER_TIMEOUT, IDLE_TIMEOUT, PLACES, Gateway, request
from waiting import wait

CONNECTIONS = 200
GOOD = 4
MARGIN = 3
MEMORY = 8 << 20
WAIT = CONNECTIONS / PLACES
URL = "https://127.0.0.1:{port}/api/channels/" + CHANNEL
# A slow reader has one timeout between its requests, one in which it takes nothing, and one for the goodbye.
ATTACKS = [
    ("slow heads", HEADER_TIMEOUT, ["-H", "-u", URL + "/conversations", "-i", "1"]),
    ("slow bodies", BODY_TIMEOUT, ["-B", "-u", URL + "/messages", "-i", "1", "-s", "8192", "-x", "10"]),
    ("slow reading", 3 * IDLE_TIMEOUT, ["-X", "-u", URL + "/conversations", "-k", "3", "-n", "1", "-w", "1", "-y", "1",
                                        "-z", "1"]),
]


class Slowhttptest:
    """The attacker that everybody has."""

    def __init__(self, gateway, arguments):
        command = ["slowhttptest", "-c", str(CONNECTIONS), "-r", str(CONNECTIONS), "-l", "60", "-p", "5", "-v", "0"]
        command += [argument.format(port=gateway.port) for argument in arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def is_over(self):
        return self.process.poll() is not None

    def end(self):
        if not self.is_over():
            self.process.kill()
        self.process.wait()


class SlowCaller:
    """Somebody with the right credentials whose forms never end."""

    def __init__(self, gateway, count):
        head = request("POST", f"/api/channels/{CHANNEL}/messages", {
            "Authorization": BASIC, "Content-Type": "multipart/form-data; boundary=x", "Content-Length": "100000",
        })
        self.streams = [gateway.connect() for _ in range(count)]
        self.ending = threading.Event()
        for stream in self.streams:
            stream.sendall(head + b'--x\r\nContent-Disposition: form-data; name="message"\r\n\r\n')
        self.thread = threading.Thread(target=self._drip)
        self.thread.start()

    def _drip(self):
        open_streams = list(self.streams)
        while open_streams and not self.ending.wait(0.5):
            for stream in list(open_streams):
                try:
                    stream.sendall(b"x")
                except OSError:
                    open_streams.remove(stream)

    def is_over(self):
        return not self.thread.is_alive()

    def end(self):
        self.ending.set()
        self.thread.join()
        for stream in self.streams:
            stream.close()


def attack(gateway, name, timeout, attacker):
    wait("no connections", lambda: gateway.connections() == 0)
    before = gateway.resident()
    began = time.monotonic()
    attacker = attacker()
    seconds, held, most = [], 0, before
    refused = 0
    wait("the attack to begin", lambda: gateway.connections() >= 10)
    # slowhttptest sees a close only once it has read what came before, so the daemon's own view counts.
    lasted = 0
    try:
        while not attacker.is_over() and time.monotonic() - began < lasted + 2:
            if gateway.connections(of_others=True) > 0:
                lasted = time.monotonic() - began
            try:
                seconds.append(gateway.get_conversations())
            except (OSError, AssertionError):
                refused += 1
            now = gateway.connections()
            if now > PLACES + 1:
                # Counted while connections came and went.
                now = min(now, gateway.connections())
            held = max(held, now)
            most = max(most, gateway.resident())
            assert time.monotonic() - began < 60, "the attack does not end"
    finally:
        attacker.end()
    wait("all connections to be closed", lambda: gateway.connections() == 0)
    slowest = max(seconds, default=60)
    seconds = seconds or [60]
    print(f"{name}: lasted {lasted:.1f} s; {len(seconds)} good requests, slowest {slowest:.2f} s, "
          f"median {statistics.median(seconds) * 1000:.0f} ms, {refused} refused; at most {held} connections; "
          f"memory +{(most - before) >> 10} KiB", flush=True)
    wrong = []
    if refused or slowest > GOOD:
        wrong.append(f"the good client: slowest {slowest:.2f} s, {refused} refused")
    if held > PLACES + 1:
        wrong.append(f"{held} connections at a time")
    if most - before > MEMORY:
        wrong.append(f"memory grew by {(most - before) >> 10} KiB")
    if lasted > timeout + WAIT + MARGIN:
        wrong.append(f"slow connections lasted {lasted:.1f} s")
    return [f"{name}: {what}" for what in wrong]


def main():
    program, folder = sys.argv[1:]
    gateway = Gateway(program, folder)
    try:
        # The first handshake and the first page touch memory that stays.
        for _ in range(20):
            gateway.get_conversations()
        wrong = []
        for name, timeout, arguments in ATTACKS:
            wrong += attack(gateway, name, timeout, lambda arguments=arguments: Slowhttptest(gateway, arguments))
        caller = lambda: SlowCaller(gateway, PLACES - 4)
        wrong += attack(gateway, "slow bodies of a caller", BODY_TIMEOUT, caller)
        assert not wrong, wrong
    finally:
        gateway.stop()


if __name__ == "__main__":
    main()

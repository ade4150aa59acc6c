"""100,000 broken requests, and the daemon's memory before and after.

Usage: flood.py PROGRAM FOLDER

What must hold: nothing panics, the daemon answers as before, its memory has grown by no more than GROWTH and its file
descriptors are as many as before. The order is the same in each run.
"""

import random
import socket
import ssl
import struct
import sys
import threading
import time

from gateway import BASIC, CHANNEL, Gateway, request
from waiting import wait

TOTAL = 100_000
# Connections at a time, well below the number of places.
WORKERS = 12
# Wrong credentials, by more guessers than the daemon lets wait: most are told at once to slow down.
GUESSES = 10_000
GUESSERS = 24
# Requests sent ahead on one connection.
AHEAD = 60
GROWTH = 4 << 20
CALLS = f"/api/channels/{CHANNEL}"
WRONG = "Basic Y2xpZW50Ondyb25n"


def noise(dice):
    return dice.randbytes(dice.randint(1, 600))


def text(dice, length):
    return "".join(dice.choice("abcXYZ019%&=;:,.[]{}\"'<>\\ ~") for _ in range(length))


def cursor(dice):
    words = ["", "%00", "-1", "9" * 30, "m_" + "A" * 40, "%ff%fe", "c" * 3000, text(dice, 20).replace(" ", "")]
    value = dice.choice(words)
    after = f"conversations_limit={value}&messages_limit={dice.choice(words)}&after={value}"
    path = dice.choice([f"{CALLS}/conversations?{after}", f"{CALLS}/conversations/{value}?{after}",
                        f"{CALLS}/conversations/x/messages/{value}", f"{CALLS}/senders/{value}",
                        f"/media/{value}", f"/api/channels/{value}/templates"])
    return request("GET", path.replace(" ", "%20").replace("#", ""), {"Authorization": BASIC})


def wrong_credentials(dice):
    value = dice.choice([WRONG, "Basic", "Basic " + "A" * 4000, "Bearer x", "", "Basic \xff\xfe"])
    return request("GET", f"{CALLS}/conversations", {"Authorization": value})


def deep(dice):
    depth = dice.randint(100, 5000)
    body = (b"[" * depth) if dice.random() < 0.5 else b'{"a":' * depth
    path = dice.choice(["/oauth/callback", f"{CALLS}/messages", CALLS])
    return request(dice.choice(["POST", "DELETE"]), path, {"Authorization": BASIC, "Content-Type": "application/json"},
                   body)


def form(dice):
    """A multipart form that is broken in one of many ways, whole as HTTP."""
    field = b'--x\r\nContent-Disposition: form-data; name="message"\r\n\r\nhi\r\n'
    file = (b'--x\r\nContent-Disposition: form-data; name="files"; filename="../a\x00.txt"\r\n'
            b"Content-Type: text/plain\r\n\r\n" + dice.randbytes(dice.randint(0, 3000)) + b"\r\n")
    body = dice.choice([
        b"", b"--", b"--x", b"--x--", field, field + file, field * 70 + b"--x--", field + file + b"--x--",
        b"--x\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"--x\r\n\r\nno name\r\n--x--", b"--x\r\n" + b"y" * 5000,
        field.replace(b"name=", b"name*=utf-8''"), field.replace(b"hi", b"\xff\xfe" * 100) + b"--x--",
        noise(dice),
    ])
    kind = dice.choice(["multipart/form-data; boundary=x"] * 6 + [
        "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "y" * 300,
        "text/plain", "multipart/mixed; boundary=x",
    ])
    return request("POST", f"{CALLS}/messages", {"Authorization": BASIC, "Content-Type": kind,
                                                 "Content-Length": str(len(body))}, body)


def odd(dice):
    method = dice.choice(["PUT", "PATCH", "TRACE", "CONNECT", "BREW", "DELETE"])
    return request(method, dice.choice(["/", "*", "/api", "/healthz", "//", "/..", "/media/x"]), {})


# Whole requests: many on one connection, and each has its answer.
WHOLE = [cursor] * 9 + [deep, form, form, odd]


def large_head(dice):
    return request("GET", "/healthz", {f"X-{n}": text(dice, 60) for n in range(dice.choice([70, 300, 1500]))})


def broken_head(dice):
    return dice.choice([
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
        b"GET /" + b"x" * 70_000, b"\x00" * 300, b"GET /healthz HTTP/9.9\r\n\r\n", noise(dice) + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: \x00\r\n\r\n",
    ])


def cut_form(dice):
    whole = form(dice)
    return whole[: dice.randint(1, len(whole))]


# One to a connection, which ends with it.
LAST = [large_head, broken_head, cut_form]


def read_answers(stream, count):
    """Reads that many answers, or until the other side closes; gives how many came."""
    buffer, seen = b"", 0
    while seen < count:
        head, found, rest = buffer.partition(b"\r\n\r\n")
        if found:
            assert head.startswith(b"HTTP/1.1 "), head
            status = int(head[9:12])
            assert 200 <= status < 500, head
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(rest) >= length:
                buffer, seen = rest[length:], seen + 1
                continue
        chunk = stream.recv(65536)
        if not chunk:
            break
        buffer += chunk
    return seen


def without_tls(gateway, dice):
    """Noise, a truncated handshake, or nothing at all, closed in good order or by a reset."""
    hello = bytes.fromhex("16030100f8010000f40303") + dice.randbytes(240)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as plain:
        if dice.random() < 0.5:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        choice = dice.random()
        if choice < 0.4:
            plain.sendall(noise(dice))
        elif choice < 0.8:
            plain.sendall(hello[: dice.randint(1, len(hello))])
        elif choice < 0.9:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


class Flood:
    """The workers and what they have in common."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.lock = threading.Lock()
        self.left = TOTAL - GUESSES
        self.guesses = GUESSES
        self.counts = {"guesses": 0, "without TLS": 0, "last on a connection": 0, "whole": 0, "answers": 0, "connections": 0}
        self.failures = []

    def take(self, wanted):
        with self.lock:
            count = min(wanted, self.left)
            self.left -= count
            return count

    def count(self, **more):
        with self.lock:
            for name, value in more.items():
                self.counts[name.replace("_", " ")] += value

    def work(self, seed):
        dice = random.Random(seed)
        try:
            while True:
                # Each round: one connection of TLS, and some that never get there.
                bad = self.take(5)
                for _ in range(bad):
                    try:
                        without_tls(self.gateway, dice)
                    except OSError:
                        pass
                self.count(without_TLS=bad, connections=bad)
                whole = self.take(AHEAD)
                if whole == 0:
                    return
                self.talk(dice, whole)
        except BaseException as error:  # Shown by the main thread.
            self.failures.append(f"{type(error).__name__}: {error}")

    def guess(self, seed):
        dice = random.Random(seed)
        try:
            while True:
                with self.lock:
                    count = min(20, self.guesses)
                    self.guesses -= count
                if count == 0:
                    return
                done = 0
                with self.gateway.connect() as stream:
                    try:
                        while done < count:
                            stream.sendall(wrong_credentials(dice))
                            # On a busy machine the time between two requests may be up.
                            if read_answers(stream, 1) == 0:
                                break
                            done += 1
                    except ConnectionError:
                        pass
                with self.lock:
                    self.guesses += count - done
                self.count(guesses=done, answers=done, connections=1)
        except BaseException as error:  # Shown by the main thread.
            self.failures.append(f"{type(error).__name__}: {error}")

    def talk(self, dice, whole):
        answers = sent = 0
        last = self.take(1)
        with self.gateway.connect() as stream:
            try:
                # A few at a time: what is refused with its body unread ends the connection.
                while sent < whole:
                    ahead = min(5, whole - sent)
                    stream.sendall(b"".join(dice.choice(WHOLE)(dice) for _ in range(ahead)))
                    sent += ahead
                    seen = read_answers(stream, ahead)
                    answers += seen
                    if seen < ahead:
                        break
                else:
                    if last:
                        stream.sendall(dice.choice(LAST)(dice))
                    if dice.random() < 0.5:
                        stream.unwrap()
            except (ConnectionError, ssl.SSLError):
                pass
        # What was sent behind the request that ended the connection was read by nobody: it does not count.
        done = min(whole, answers + 1)
        with self.lock:
            self.left += whole - done
        self.count(whole=done, last_on_a_connection=last, answers=answers, connections=1)


def settled(gateway):
    """Memory and descriptors when all connections are gone."""
    for _ in range(30):
        gateway.get_conversations()
    wait("all connections to be closed", lambda: gateway.connections() == 0)
    return gateway.resident(), gateway.descriptors()


def main():
    program, folder = sys.argv[1:]
    gateway = Gateway(program, folder)
    try:
        memory, descriptors = settled(gateway)
        began = time.monotonic()
        flood = Flood(gateway)
        workers = [threading.Thread(target=flood.work, args=(seed,), daemon=True) for seed in range(WORKERS)]
        workers += [threading.Thread(target=flood.guess, args=(1000 + seed,), daemon=True) for seed in range(GUESSERS)]
        for worker in workers:
            worker.start()
        most = memory
        while any(worker.is_alive() for worker in workers):
            assert time.monotonic() - began < 100, f"it takes too long: {flood.counts}, {flood.failures}"
            most = max(most, gateway.resident())
            time.sleep(0.1)
        lasted = time.monotonic() - began
        assert not flood.failures, flood.failures
        busy = gateway.processor_seconds()
        after, descriptors_after = settled(gateway)
        answered = gateway.get_conversations()
        print(f"{TOTAL} hostile requests in {lasted:.0f} s ({busy:.0f} s of the daemon's processor time): {flood.counts}; memory {memory >> 10} KiB before, "
              f"{most >> 10} KiB at most, {after >> 10} KiB after; descriptors {descriptors} before, "
              f"{descriptors_after} after; a good request then takes {answered * 1000:.0f} ms", flush=True)
        assert after - memory <= GROWTH, f"memory grew by {(after - memory) >> 10} KiB"
        assert descriptors_after <= descriptors, f"{descriptors_after - descriptors} descriptors more"
        sent = sum(flood.counts[name] for name in ("guesses", "without TLS", "last on a connection", "whole"))
        assert sent == TOTAL, sent
        assert flood.counts["answers"] > TOTAL // 3, "too few were answered"
    finally:
        gateway.stop()


if __name__ == "__main__":
    main()

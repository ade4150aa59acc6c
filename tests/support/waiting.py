"""What the tests in Python have in common."""

import socket
import time

# Limit for anything that should happen soon; long, because machines are busy.
SOON = 30


def wait(what, condition, limit=SOON):
    """What the condition comes to once that is something."""
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {limit} s for: {what}"
        time.sleep(0.05)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False

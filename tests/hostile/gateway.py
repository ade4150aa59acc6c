"""A real daemon with a listener, and a client that behaves."""

import base64
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import time

from waiting import free_port

CHANNEL = "gw-hostile-sms"
HEADER_TIMEOUT = 2
BODY_TIMEOUT = 4
IDLE_TIMEOUT = 2
PLACES = 64
BASIC = "Basic " + base64.b64encode(b"client:secret").decode()


class Gateway:
    """One daemon, which has neither a broker nor Pipedrive to talk to."""

    def __init__(self, program, folder):
        folder = pathlib.Path(folder)
        (folder / "state").mkdir(exist_ok=True)
        secret = folder / "secret"
        secret.write_text("secret\n", encoding="utf-8")
        secret.chmod(0o600)
        self.port = free_port()
        config = folder / "pipepost.toml"
        config.write_text(
            f"""
[gateway]
id = "gw-hostile"
state_dir = "{folder}/state"
control_socket = "{folder}/control.sock"
clock_wait = "1s"
[pipedrive]
api_url = "https://127.0.0.1:{free_port()}/api/v1"
client_id = "client"
client_secret_file = "{secret}"
public_url = "https://localhost:{self.port}"
[listener]
bind = "127.0.0.1:{self.port}"
max_connections = {PLACES}
header_timeout = "{HEADER_TIMEOUT}s"
body_timeout = "{BODY_TIMEOUT}s"
idle_timeout = "{IDLE_TIMEOUT}s"
max_upload = "1 MiB"
[[broker]]
name = "none"
url = "mqtt://127.0.0.1:{free_port()}"
[[device]]
name = "sms-office"
preset = "sms2mqtt"
[[channel]]
id = "sms"
name = "Office SMS"
kind = "mqtt"
device = "sms-office"
""",
            encoding="utf-8",
        )
        config.chmod(0o600)
        self.log = folder / "daemon.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [program, "--config", config, "run"], stdout=subprocess.DEVNULL, stderr=log
            )
        self.last_good = 0
        self.trust = ssl.create_default_context()
        self.trust.check_hostname = False
        self.trust.verify_mode = ssl.CERT_NONE
        deadline = time.monotonic() + 30
        while "Gateway ready" not in self.text():
            assert self.process.poll() is None and time.monotonic() < deadline, self.text()
            time.sleep(0.05)

    def text(self):
        return self.log.read_text(encoding="utf-8", errors="replace")

    def connect(self, limit=30):
        """A TLS connection."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=limit)
        try:
            return self.trust.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise

    def get_conversations(self, limit=30):
        """What Pipedrive asks, on a connection of its own: seconds until the answer."""
        began = time.monotonic()
        with self.connect(limit) as stream:
            self.last_good = stream.getsockname()[1]
            stream.sendall(request("GET", f"/api/channels/{CHANNEL}/conversations", {"Authorization": BASIC}))
            answer = stream.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        return time.monotonic() - began

    def resident(self):
        """Resident memory in bytes."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def processor_seconds(self):
        """Time on the processor so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def connections(self, of_others=False):
        """Established connections to the listener that the daemon holds; without the last one that
        `get_conversations` made, on request: the daemon may not have noticed its end yet."""
        inodes = set()
        for name in os.listdir(f"/proc/{self.process.pid}/fd"):
            try:
                inodes.add(os.readlink(f"/proc/{self.process.pid}/fd/{name}"))
            except FileNotFoundError:
                pass
        count = 0
        local = f"0100007F:{self.port:04X}"
        for line in pathlib.Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]:
            fields = line.split()
            if of_others and fields[2] == f"0100007F:{self.last_good:04X}":
                continue
            count += fields[1] == local and fields[3] != "0A" and f"socket:[{fields[9]}]" in inodes
        return count

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        assert code == 0, f"the daemon ended with {code}"
        assert "panicked" not in self.text(), "a task panicked"


def request(method, path, headers, body=b""):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body and "Content-Length" not in headers and "Transfer-Encoding" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

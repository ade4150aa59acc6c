"""What the benches share: a broker, a sandbox, a gateway and their figures."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "support"))

from waiting import free_port, listens  # noqa: E402 (the benches import them from here)

VENV = ROOT / "target" / "bench-venv"
NUMBERS = 50
READY_WITHIN = 120
# In memory, nothing dropped, no limit of messages on the way: the broker shall not be what is measured.
BROKER = """listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_queued_messages 0
max_inflight_messages 0
"""

# What systemd sets for the gateway.
UNIT = dict(re.findall(r"^Environment=(\w+)=(.*)$", (ROOT / "systemd" / "pipepost.service").read_text(), re.MULTILINE))


def in_venv():
    """Goes on under a Python that has paho-mqtt and requests."""
    python = VENV / "bin" / "python"
    if Path(sys.prefix) == VENV:
        return
    if not (VENV / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "paho-mqtt>=2", "requests"], check=True)
        (VENV / "installed").touch()
    os.execv(python, [str(python), *sys.argv])


def cargo(*arguments):
    subprocess.run(["cargo", "build", "-q", *arguments], cwd=ROOT, check=True)


def wait_for(what, condition, limit=120):
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise SystemExit(f"waited {limit} s for {what}")


def cpu_seconds(pid):
    """User and system time of a process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid):
    """VmRSS and RssAnon of a process."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return tuple(int(lines[key].split()[0]) / 1024 for key in ("VmRSS", "RssAnon"))


def sync_times_ms(folder, count=200):
    """What one write of 300 bytes and its fdatasync take, inside a file that is there already."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(bytes(1 << 20))
        os.fsync(file.fileno())
        times = []
        for number in range(count):
            began = time.monotonic()
            os.pwrite(file.fileno(), bytes(300), number * 300)
            os.fdatasync(file.fileno())
            times.append((time.monotonic() - began) * 1000)
        return times


class Site:
    """A mosquitto, a Pipedrive sandbox over TLS and a gateway's configuration, in a folder on the project's disk."""

    def __init__(self, sandbox_program, state=None, broker=BROKER, environment=None):
        """`state`: the gateway's folder, elsewhere than beside the rest; `environment`: the sandbox's."""
        self.dir = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "target"))
        self.children = []
        try:
            self.set_up(sandbox_program, state, broker, environment)
        except BaseException:
            # Of this class: what a subclass closes does not exist yet.
            Site.close(self)
            raise

    def set_up(self, sandbox_program, state, broker, environment):
        self.broker_port, self.api_port, self.listener_port = free_port(), free_port(), free_port()
        (self.dir / "mosquitto.conf").write_text(broker.format(port=self.broker_port, dir=self.dir))
        self.broker = self.start_broker()
        self.state = state or self.dir / "state"
        self.state.mkdir(exist_ok=True)
        self.ca = self.dir / "sandbox.pem"
        self.url = f"https://localhost:{self.api_port}"
        self.secret("token", "sandbox-token")
        self.secret("secret", "sandbox-secret")
        self.config = self.dir / "pipepost.toml"
        self.config.write_text(f"""
[gateway]
id = "gw-bench"
state_dir = "{self.state}"
control_socket = "{self.dir}/control.sock"
clock_wait = "0s"
[pipedrive]
api_url = "{self.url}/api/v1"
ca_file = "{self.ca}"
access_token_file = "{self.dir}/token"
client_id = "sandbox-client"
client_secret_file = "{self.dir}/secret"
public_url = "https://localhost:{self.listener_port}"
[listener]
bind = "127.0.0.1:{self.listener_port}"
[log]
level = "warn"
[[broker]]
name = "bench"
url = "mqtt://127.0.0.1:{self.broker_port}"
[[device]]
name = "modem"
preset = "sms2mqtt"
[[channel]]
id = "sms"
name = "Bench"
kind = "mqtt"
device = "modem"
""")
        self.start(sandbox_program, "sim", "pipedrive", "--bind", f"127.0.0.1:{self.api_port}",
                   "--ca-out", self.ca, "--gateway-url", f"https://localhost:{self.listener_port}",
                   "--gateway-ca", self.state / "tls" / "self-signed.pem", env=environment)
        wait_for("the broker", lambda: listens(self.broker_port))
        wait_for("the sandbox", lambda: self.ca.exists() and listens(self.api_port))
        self.tls = ssl.create_default_context(cafile=str(self.ca))

    def start_broker(self):
        mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        if not mosquitto:
            raise SystemExit("SKIP: mosquitto is not installed")
        return self.start(mosquitto, "-c", self.dir / "mosquitto.conf")

    def modem(self, program, *options, profile="sim7600", **pipes):
        """Puts a simulated modem in the broker's place; returns it, its commands go to its stdin."""
        link = self.dir / "modem"
        head = self.config.read_text().split("[[broker]]")[0]
        self.config.write_text(f"""{head}
[[modem]]
name = "bench"
port = "{link}"
home_country = "DE"
pacing = "0s"
[[channel]]
id = "sms"
name = "Bench"
kind = "sms"
modem = "bench"
""")
        modem = self.start(program, "sim", "modem", "--profile", profile, "--text-interval", 5,
                           "--link", link, *options, stdin=subprocess.PIPE, **pipes)
        wait_for("the modem", link.is_symlink)
        return modem

    def secret(self, name, text):
        path = self.dir / name
        path.touch(mode=0o600)
        path.write_text(text + "\n")

    def start(self, *command, **options):
        if command[-1] == "run":
            options["env"] = {**options.get("env", os.environ), **UNIT}
        with (self.dir / "log").open("ab") as log:
            options = {"stdout": log, "stderr": log} | options
            child = subprocess.Popen([str(part) for part in command], **options)
        self.children.append(child)
        return child

    def stop(self, child, how=signal.SIGTERM):
        child.send_signal(how)
        child.wait()
        self.children.remove(child)

    def gateway(self, program, **options):
        """Starts the gateway and waits until it answers."""
        child = self.start(program, "--config", self.config, "run", **options)
        wait_for("the gateway", lambda: child.poll() is None and listens(self.listener_port))
        return child

    def ready(self, program):
        """Starts the gateway; it and the seconds until it says READY=1, as it does to systemd."""
        path = self.dir / "notify"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(path))
            notify.settimeout(1)
            began = time.monotonic()
            child = self.start(program, "--config", self.config, "run", env=os.environ | {"NOTIFY_SOCKET": str(path)})
            while time.monotonic() < began + READY_WITHIN and child.poll() is None:
                try:
                    if "READY=1" in notify.recv(4096).decode().splitlines():
                        return child, time.monotonic() - began
                except TimeoutError:
                    pass
        raise SystemExit(f"the gateway was not ready within {READY_WITHIN} s: {(self.dir / 'log').read_text()[-300:]}")

    def ask(self, path):
        with urllib.request.urlopen(f"{self.url}/sandbox/{path}", context=self.tls) as answer:
            return json.load(answer)

    def tell(self, path, value):
        """Changes something at the sandbox."""
        request = urllib.request.Request(f"{self.url}/sandbox/{path}", json.dumps(value).encode(), method="POST")
        with urllib.request.urlopen(request, context=self.tls) as answer:
            return json.load(answer)

    def posts(self):
        """How many messages the sandbox has accepted."""
        return self.ask("counters")["counters"]["posts"]

    def known(self):
        """By the customer's number: conversation and sender, as the gateway made them known."""
        found = {}
        for conversation in self.ask("state")["conversations"]:
            customer = next(one for one in conversation["participants"] if one["role"] == "end_user")
            # Shown in groups.
            number = "+" + "".join(digit for digit in customer["name"] if digit.isdigit())
            found[number] = (conversation["id"], customer["id"])
        return found

    def publish(self, count, mark, topic="sms2mqtt/received"):
        """Publishes what a modem would, QoS 1, and waits until the broker has it all."""
        import paho.mqtt.client as mqtt

        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        client.max_inflight_messages_set(0)
        client.connect("127.0.0.1", self.broker_port)
        client.loop_start()
        last = [client.publish(topic, json.dumps({
            "datetime": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
            "number": f"+1555010{number % NUMBERS:04}",
            "text": f"{mark} {number}: could somebody look at the roof tomorrow, please? It leaks again.",
        }), qos=1) for number in range(count)]
        for message in last:
            message.wait_for_publish()
        client.disconnect()
        client.loop_stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for child in reversed(self.children[:]):
            self.stop(child)
        shutil.rmtree(self.dir)

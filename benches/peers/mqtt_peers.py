"""From a broker to Pipedrive: pipepost, Node-RED, paho-mqtt with requests, mosquitto_sub with curl.

The same mosquitto, the same bodies and the same sandbox (TLS) for all; QoS 1, a persistent session and a fixed client
id for each, no debug logging. The channel and the conversations have been made before by the gateway.
"""

import json
import os
import shutil
import subprocess
import sys
import time

from bench_site import NUMBERS, ROOT, Site, free_port, listens, wait_for
from peer import HERE, Peer, Sandbox, Skip, need

NODE_RED = ROOT / "target" / "bench-peers"


class Ground:
    """A broker and a sandbox that knows every conversation."""

    side = "mqtt"

    def __init__(self, simulators, program):
        self.program = program
        self.site = Site(simulators)
        self.sandbox = Sandbox(self.site)
        try:
            self.make_known()
        except BaseException:
            self.site.close()
            raise

    def make_known(self):
        """The channel and the conversations, by the gateway; a file of them for the others."""
        gateway = self.site.gateway(self.program)
        wait_for("the first message", lambda: self.site.publish(1, "hello") or self.sandbox.posts() > 0)
        self.site.publish(NUMBERS, "hello")
        wait_for("every conversation", lambda: len(self.site.known()) == NUMBERS)
        self.site.stop(gateway)
        self.known = self.site.dir / "known.json"
        self.known.write_text(json.dumps(self.site.known()))
        self.headers = self.site.dir / "headers"
        self.headers.write_text("Authorization: Bearer sandbox-token\nContent-Type: application/json\n")

    def environment(self):
        return os.environ | {
            "BENCH_BROKER_PORT": str(self.site.broker_port), "BENCH_URL": self.site.url, "BENCH_CA": str(self.site.ca),
            "BENCH_KNOWN": str(self.known), "BENCH_HEADERS": str(self.headers)}

    def write(self, peer, count, mark):
        """So many texts of customers; returns when the broker has acknowledged them."""
        self.site.publish(count, mark, peer.topic)

    def text(self, mark, number):
        return f"{mark} {number}: could somebody look at the roof tomorrow, please? It leaks again."

    def waiting(self, peer):
        return 0

    def fresh(self):
        """A broker has nothing of the one before."""

    def close(self):
        self.site.close()


class Mqtt(Peer):
    @property
    def topic(self):
        return f"{self.name}/received"

    def environment(self):
        return self.ground.environment() | {"BENCH_TOPIC": self.topic}


class Pipepost(Mqtt):
    """The daemon as it is (profile e2e unless --program names another), preset sms2mqtt: acknowledged after its
    store's fdatasync, delivered by up to 8 requests at a time, each conversation in its order."""

    name = "pipepost"
    topic = "sms2mqtt/received"

    def command(self):
        return self.ground.program, "--config", self.site.config, "run"


class NodeRed(Mqtt):
    """Node-RED 4 from npm without its editor: mqtt in (QoS 1, clean session off, fixed client id) → function → http
    request with keep-alive (benches/peers/node-red-flow.json); nothing tries again."""

    name = "node-red"

    @classmethod
    def install(cls):
        need(node="nodejs", npm="npm")
        if (NODE_RED / "installed").exists():
            return
        NODE_RED.mkdir(parents=True, exist_ok=True)
        try:
            done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", NODE_RED, "node-red@4"],
                                  capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired as late:
            raise Skip("npm has not installed node-red in 300 s") from late
        if done.returncode:
            raise Skip("npm cannot install node-red: " + (done.stderr.strip().splitlines() or ["no reason"])[-1])
        (NODE_RED / "installed").touch()

    def __init__(self, ground, count):
        super().__init__(ground, count)
        self.user = self.site.dir / "node-red"
        self.user.mkdir()
        shutil.copy(HERE / "node-red-settings.js", self.user / "settings.js")

    def command(self):
        return ("node", NODE_RED / "node_modules" / "node-red" / "red.js", "--userDir", self.user,
                "--settings", self.user / "settings.js")

    def environment(self):
        # Its own file: Node-RED writes beside it.
        flow = self.user / "flow.json"
        shutil.copy(HERE / "node-red-flow.json", flow)
        return super().environment() | {"BENCH_FLOW": str(flow), "BENCH_UI_PORT": str(free_port()),
                                        "NODE_EXTRA_CA_CERTS": str(self.site.ca)}


class PahoRequests(Mqtt):
    """A Python loop, paho-mqtt 2 and requests from PyPI: persistent session, one message after the other over one
    kept connection, acknowledged by hand after the POST; a POST that fails ends it, and it is started again after 1 s
    (benches/peers/paho_requests.py, which benches/end-to-end measures as well)."""

    name = "paho-requests"

    def command(self):
        return (sys.executable, HERE / "paho_requests.py", self.site.broker_port, self.site.url, self.site.ca,
                self.ground.known, "bench-paho", self.topic, 0)


class MosquittoCurl(Mqtt):
    """mosquitto_sub -c -i ID -q 1 | jq | a shell loop with one curl --fail --retry 10 --retry-all-errors for each
    message (benches/peers/mosquitto-curl)."""

    name = "mosquitto-curl"
    most = 200

    @classmethod
    def install(cls):
        need(mosquitto_sub="mosquitto-clients", jq="jq", curl="curl")

    def command(self):
        return (HERE / "mosquitto-curl",)


PEERS = [Pipepost, NodeRed, PahoRequests, MosquittoCurl]

"""From a modem to Pipedrive and back: pipepost, gammu-smsd, smstools.

One simulated modem on a pseudo-terminal (`pipepost sim modem`: SIM800, 20 places for texts, 50 ms for each text that
it sends) and the same sandbox (TLS) for all; the channel and the conversations have been made before by the gateway. None
writes a debug log. Both daemons tell benches/peers/on-sms of each text, which posts it with curl.
"""

import json
import os
import subprocess
import threading
import time

from bench_site import Site, wait_for
from peer import HERE, Peer, Sandbox, TooSlow, need

CUSTOMERS = 10
# Answers handed over at a time.
AGENTS = 4
FOLDERS = ("inbox", "outbox", "sent", "error", "checked", "report")


class Ground:
    """A modem and a sandbox that knows every conversation."""

    side = "sms"

    def __init__(self, simulators, program):
        self.program = program
        self.site = Site(simulators)
        self.sandbox = Sandbox(self.site)
        try:
            self.make_known(simulators)
        except BaseException:
            self.site.close()
            raise

    def make_known(self, simulators):
        """A modem; the channel and the conversations, by the gateway; a file of them for the others."""
        # Its full memory goes without a word: gammu-smsd takes the SIM7600's "+SMS FULL" for an answer and waits 20 s.
        self.stick = self.site.modem(simulators, "--send-time", 50, "--report-after", 200, profile="sim800")
        self.log = self.site.dir / "log"
        gateway = self.site.gateway(self.program)
        for number in range(CUSTOMERS):
            self.say(f"text {self.number(number)} hello")
        wait_for("every conversation", lambda: len(self.site.known()) == CUSTOMERS)
        self.site.stop(gateway)
        known = self.site.known()
        self.conversations = [conversation for conversation, _ in known.values()]
        self.known = self.site.dir / "known.json"
        self.known.write_text(json.dumps({number[1:]: at for number, at in known.items()}))
        self.headers = self.site.dir / "headers"
        self.headers.write_text("Authorization: Bearer sandbox-token\nContent-Type: application/json\n")

    def number(self, customer):
        return f"+4915550{customer % CUSTOMERS:06}"

    def environment(self):
        return os.environ | {"BENCH_URL": self.site.url, "BENCH_CA": str(self.site.ca),
                             "BENCH_KNOWN": str(self.known), "BENCH_HEADERS": str(self.headers)}

    def say(self, command):
        self.stick.stdin.write(f"{command}\n".encode())
        self.stick.stdin.flush()

    def write(self, peer, count, mark):
        """So many texts of customers; the network hands them over as the modem has room."""
        for number in range(count):
            self.say(f"text {self.number(number)} {self.text(mark, number)}")

    def text(self, mark, number):
        return f"{mark} {number}: could somebody look at the roof tomorrow, please? It leaks again."

    def status(self, begins):
        """The line of the modem's status that begins so."""
        size = self.log.stat().st_size
        self.say("status")

        def said():
            with self.log.open("rb") as log:
                log.seek(size)
                # The last line may be half there.
                lines = log.read().decode(errors="replace").rpartition("\n")[0].splitlines()
            return [line for line in lines if line.startswith(begins)]

        return wait_for("the modem's status", said, 10)[0]

    def waiting(self, peer):
        """Texts that are still in the network or in the modem's memory."""
        words = dict(part.split(": ") for part in self.status("waiting in the network: ").split(", "))
        return int(words["waiting in the network"]) + int(words["stored"])

    def sent(self, mark):
        """How many texts with this mark the modem has sent."""
        return sum(1 for line in self.log.read_text(errors="replace").splitlines()
                   if line.startswith("sent to") and f"{mark} " in line)

    def fresh(self):
        """The modem as it is when it is plugged in: without the settings of the one before."""
        self.say("restart")
        wait_for("the modem's start", lambda: "ready, in the network" in self.status("at "), 10)

    def close(self):
        self.site.close()


class Modem(Peer):
    most = 30
    has_answers = True

    def __init__(self, ground, count):
        super().__init__(ground, count)
        self.folder = self.site.dir / self.name
        for folder in FOLDERS:
            (self.folder / folder).mkdir(parents=True)
        self.file = self.folder / "conf"
        self.configure()

    def configure(self):
        """Before it starts."""

    def environment(self):
        return self.ground.environment()

    def answers(self, mark):
        """Hands over what is to be sent, untimed where it waits in a spool: called before the start."""
        raise NotImplementedError

    def sends(self):
        mark = f"{self.name} answer"
        self.answers(mark)
        self.ground.fresh()
        self.start()
        self.handed_over(mark)
        deadline, seen, first, at_first = self.limit(), 0, None, 0
        while seen < self.count:
            seen, now = self.ground.sent(mark), time.monotonic()
            if first is None and seen:
                first, at_first = now, seen
            if now > deadline or not self.tree.alive():
                raise TooSlow(f"only {seen} of {self.count} answers in time")
            time.sleep(0.01)
        self.figures["sent_per_s"] = round((seen - at_first) / max(now - first, 0.01), 1)
        # Reports on what it has sent are not for the next one.
        self.quiet(2)
        self.end()

    def handed_over(self, mark):
        """After the start."""


class Pipepost(Modem):
    """The daemon as it is (profile e2e unless --program names another) with pacing 0: a text is deleted from the modem
    after its store's fdatasync; answers come over postMessage and ask for delivery reports."""

    name = "pipepost-modem"

    def command(self):
        return self.ground.program, "--config", self.site.config, "run"

    def answers(self, mark):
        """Only a running one takes them."""

    def handed_over(self, mark):
        self.connect("before the answers")

        def agent(share):
            for number in share:
                self.site.tell("reply", {
                    "channel": "gw-bench-sms", "text": f"{mark} {number}: we come tomorrow at nine.",
                    "conversation": self.ground.conversations[number % CUSTOMERS]})

        for first in range(AGENTS):
            threading.Thread(target=agent, args=(range(first, self.count, AGENTS),)).start()


class Gammu(Modem):
    """gammu-smsd from Debian, service FILES, ReceiveFrequency 0 (looks for texts in each round; 15 s by default), no
    checks of signal and battery; RunOnReceive is one jq and one curl --fail --retry 10 for each text
    (benches/peers/on-sms); answers by gammu-smsd-inject, which fills the spool before it starts."""

    name = "gammu-smsd"

    @classmethod
    def install(cls):
        need(**{"gammu-smsd": "gammu-smsd", "jq": "jq", "curl": "curl"})

    def configure(self):
        self.file.write_text(f"""[gammu]
device = {self.site.dir}/modem
connection = at115200
model = at
[smsd]
service = files
logfile = {self.folder}/log
debuglevel = 0
inboxpath = {self.folder}/inbox/
outboxpath = {self.folder}/outbox/
sentsmspath = {self.folder}/sent/
errorsmspath = {self.folder}/error/
receivefrequency = 0
checksecurity = 0
checkbattery = 0
checksignal = 0
runonreceive = {HERE}/on-sms
""")

    def command(self):
        return "gammu-smsd", "-c", self.file

    def answers(self, mark):
        for number in range(self.count):
            subprocess.run(["gammu-smsd-inject", "-c", self.file, "TEXT", self.ground.number(number), "-text",
                            f"{mark} {number}: we come tomorrow at nine."], check=True, capture_output=True, timeout=10)


class SmsTools(Modem):
    """smstools 3 from Debian in the foreground, delaytime 1; its eventhandler is one jq and one curl --fail --retry 10
    for each text (benches/peers/on-sms); answers as files in its spool before it starts."""

    name = "smstools3"

    @classmethod
    def install(cls):
        need(smsd="smstools", jq="jq", curl="curl")

    def configure(self):
        self.file.write_text(f"""devices = GSM1
outgoing = {self.folder}/outbox
checked = {self.folder}/checked
incoming = {self.folder}/inbox
sent = {self.folder}/sent
failed = {self.folder}/error
report = {self.folder}/report
infofile = {self.folder}/running
pidfile = {self.folder}/pid
logfile = {self.folder}/log
loglevel = 4
delaytime = 1
errorsleeptime = 1
blocktime = 5
eventhandler = {HERE}/on-sms
[GSM1]
device = {self.site.dir}/modem
incoming = yes
check_network = 0
sentsleeptime = 0
""")

    def command(self):
        return "/usr/sbin/smsd", f"-c{self.file}", "-t"

    def answers(self, mark):
        for number in range(self.count):
            (self.folder / "outbox" / f"{number:04}").write_text(
                f"To: {self.ground.number(number)[1:]}\n\n{mark} {number}: we come tomorrow at nine.\n")


PEERS = [Pipepost, Gammu, SmsTools]

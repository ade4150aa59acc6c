"""The whole life of a connection, in a real browser: from an empty store to two channels with their history; tokens that
expire every two seconds under load, a revoked token, an uninstallation, and connecting again: nothing lost, nothing twice.

Usage: connect.py PROGRAM FOLDER PICTURES SECONDS
"""

import json
import pathlib
import queue
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request

from browser import opened
from waiting import SOON, free_port, listens, wait

CHANNELS = ("east", "west")
CUSTOMERS = 4
ADA = 11

started = time.monotonic()


def say(what):
    print(f"ok {time.monotonic() - started:5.1f} s  {what}", flush=True)


class Site:
    """A broker, a sandbox with OAuth and a gateway with an empty store, none of them connected yet."""

    def __init__(self, program, folder):
        self.program, self.folder, self.children = program, folder, []
        self.mqtt, self.listener, port = free_port(), free_port(), free_port()
        self.sandbox = f"https://127.0.0.1:{port}"
        self.trusting = ssl.create_default_context()
        self.trusting.check_hostname = False
        self.trusting.verify_mode = ssl.CERT_NONE
        self.sent = {channel: [] for channel in CHANNELS}
        self.answers = []
        self.heard = queue.Queue()
        (folder / "state").mkdir()
        self.write(
            "mosquitto.conf",
            f"listener {self.mqtt} 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 10000\n",
        )
        self.start("mosquitto", ["mosquitto", "-c", folder / "mosquitto.conf"])
        wait("mosquitto", lambda: listens(self.mqtt))
        gateway = f"https://localhost:{self.listener}"
        simulator = ["sim", "pipedrive", "--oauth", "--bind", f"127.0.0.1:{port}", "--ca-out", folder / "ca.pem"]
        certificate = folder / "state/tls/self-signed.pem"
        self.start("sandbox", [program, *simulator, "--gateway-url", gateway, "--gateway-ca", certificate])
        wait("the sandbox", lambda: listens(port))
        self.write("secret", "sandbox-secret\n")
        self.write("pipepost.toml", self.configuration(gateway))
        self.start("gateway", [program, "--config", folder / "pipepost.toml", "run"])
        wait("the gateway", lambda: "broker site connected" in self.command("status", check=False))
        listening = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(self.mqtt), "-q", "1", "-t", "+/out"]
        self.listening = subprocess.Popen(listening, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self.listen, daemon=True).start()
        self.writers = {channel: self.writer(channel) for channel in CHANNELS}

    def configuration(self, gateway):
        text = f"""
[gateway]
id = "gw-test"
state_dir = "{self.folder}/state"
control_socket = "{self.folder}/control.sock"
clock_wait = "1s"
[pipedrive]
oauth_url = "{self.sandbox}"
ca_file = "{self.folder}/ca.pem"
client_id = "sandbox-client"
client_secret_file = "{self.folder}/secret"
public_url = "{gateway}"
[listener]
bind = "127.0.0.1:{self.listener}"
[[broker]]
name = "site"
url = "mqtt://127.0.0.1:{self.mqtt}"
"""
        for channel in CHANNELS:
            text += f"""
[[device]]
name = "{channel}"
[device.in]
topic = "{channel}/in"
from = "/from"
text = "/text"
[device.out]
topic = "{channel}/out"
payload = '{{"to":{{{{to}}}},"text":{{{{text}}}}}}'
[[channel]]
id = "{channel}"
name = "The {channel} line"
kind = "mqtt"
device = "{channel}"
"""
        return text

    def write(self, name, text):
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")

    def start(self, name, command):
        with open(self.folder / f"{name}.log", "wb") as log:
            self.children.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))

    def writer(self, channel):
        """One device's connection to the broker: a line is a message."""
        command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(self.mqtt), "-q", "1", "-t", f"{channel}/in", "-l"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, text=True)

    def listen(self):
        for line in self.listening.stdout:
            self.heard.put(json.loads(line)["text"])

    def command(self, *arguments, check=True):
        command = [self.program, "--config", self.folder / "pipepost.toml", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SOON, check=False)
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def switch(self, path, body=None):
        request = urllib.request.Request(f"{self.sandbox}/sandbox/{path}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("content-type", "application/json")
        with urllib.request.urlopen(request, timeout=20, context=self.trusting) as answer:
            return json.load(answer)

    def counters(self):
        return self.switch("counters")["counters"]

    def customer_writes(self, channel, customer=0):
        """One text of one customer; all of them are different."""
        text = f"{channel} {customer}: number {len(self.sent[channel])}"
        number = f"+4477009{CHANNELS.index(channel)}00{customer:02}"
        self.sent[channel].append(text)
        self.writers[channel].stdin.write(json.dumps({"from": number, "text": text}) + "\n")
        self.writers[channel].stdin.flush()
        return text

    def in_inbox(self):
        """The customers' texts in the inbox, by channel, in the order of each conversation."""
        texts = {channel: [] for channel in CHANNELS}
        for conversation in self.switch("state")["conversations"]:
            channel = conversation["channel"].removeprefix("gw-test-")
            # Of the same millisecond the ids tell which came first.
            ordered = sorted(conversation["messages"], key=lambda m: (m["created_at"], m["id"]))
            texts[channel] += [m["text"] for m in ordered if not m["outgoing"]]
        return texts

    def all_arrived(self):
        return all(sorted(texts) == sorted(self.sent[channel]) for channel, texts in self.in_inbox().items())

    def agent_answers(self, channel):
        """One answer in one of the channel's conversations."""
        state = self.switch(f"state?channel=gw-test-{channel}")
        conversation = state["conversations"][len(self.answers) % len(state["conversations"])]
        text = f"answer {len(self.answers)}"
        self.answers.append(text)
        self.switch("reply", {"channel": f"gw-test-{channel}", "conversation": conversation["id"], "text": text})

    def stop(self):
        for writer in self.writers.values():
            writer.stdin.close()
            writer.wait(SOON)
        self.listening.terminate()
        self.listening.wait(SOON)
        codes = []
        for child in reversed(self.children):
            child.send_signal(signal.SIGTERM)
            try:
                codes.append(child.wait(SOON))
            except subprocess.TimeoutExpired:
                child.kill()
                codes.append(child.wait())
        return codes


class Connect:
    """`pipepost connect`, waiting."""

    def __init__(self, site):
        command = [site.program, "--config", site.folder / "pipepost.toml", "connect"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.seen = []
        while True:
            line = self.process.stdout.readline()
            assert line, f"connect ended: {self.seen}"
            self.seen.append(line)
            found = re.search(r"https://\S+/oauth/authorize\?\S+", line)
            if found:
                self.url = found[0]
                return

    def ends(self):
        """Its code and everything that it printed."""
        rest, _ = self.process.communicate(timeout=SOON)
        return self.process.returncode, "".join(self.seen) + rest


def press(browser, selector):
    """Opens what a button or a link leads to, by keyboard."""
    browser.evaluate(f"document.querySelector('{selector}').focus()")
    browser.press("Enter")


def connect_in_browser(site, browser, picture, pictures):
    """What a person does: open the address, look who asks for what, allow it."""
    connect = Connect(site)
    browser.open(connect.url)
    browser.wait("the question", "document.querySelector('button[value=allow]')")
    words = browser.evaluate("document.body.textContent")
    assert "pipepost" in words and "messages in your inbox" in words, words
    browser.picture(pictures / f"{picture}-asked.png")
    press(browser, "button[value=allow]")
    at_gateway = f"location.href.startsWith('https://localhost:{site.listener}/oauth/callback') && document.readyState === 'complete'"
    browser.wait("the gateway's page", at_gateway)
    words = browser.evaluate("document.body.innerText")
    browser.picture(pictures / f"{picture}-connected.png")
    code, output = connect.ends()
    assert code == 0, output
    assert "Ada Brooks" in words and "Acme Heating" in words, words
    for channel in CHANNELS:
        assert f"The {channel} line" in words, words
    return output


def somebody_cancels(site, browser, pictures):
    connect = Connect(site)
    browser.open(connect.url)
    browser.wait("the question", "document.querySelector('button[value=deny]')")
    press(browser, "button[value=deny]")
    browser.wait("the gateway's page", "location.href.includes('error=user_denied') && document.readyState === 'complete'")
    words = browser.evaluate("document.body.innerText")
    assert "did not allow" in words, words
    browser.picture(pictures / "cancelled.png")
    code, output = connect.ends()
    assert code != 0 and "user_denied" in output, output


def history_appears(site, browser, pictures):
    browser.open(site.sandbox + "/")
    browser.wait("the page to be live", "document.querySelector('#live.on')", SOON)
    rows = "[...document.querySelectorAll('#conversations button')]"
    browser.wait("both channels' conversations", f"{rows}.length === {2 * len(CHANNELS)}", SOON)
    for channel in CHANNELS:
        wanted = f"{rows}.find(b => b.title.startsWith('The {channel} line'))"
        browser.evaluate(f"{wanted}.click()")
        texts = "[...document.querySelectorAll('#messages .bubble')].map(b => b.textContent)"
        browser.wait("the history", f"{texts}.length === 2 && {texts}.every(t => t.startsWith('{channel} '))")
    browser.picture(pictures / "history.png")


def a_text_goes_in_and_an_answer_out(site, browser, pictures):
    text = site.customer_writes("east")
    rows = "[...document.querySelectorAll('#conversations button')]"
    browser.wait("the text in the list", f"{rows}.some(b => b.textContent.includes('{text}'))")
    browser.evaluate(f"{rows}.find(b => b.textContent.includes('{text}')).click()")
    browser.wait("the text", f"document.querySelector('#messages').textContent.includes('{text}')")
    browser.evaluate("document.querySelector('#text').focus()")
    browser.write("Yes, on Tuesday.")
    browser.press("Enter")
    assert site.heard.get(timeout=SOON) == "Yes, on Tuesday."
    browser.wait("the answer", "document.querySelector('#messages .message.mine')")
    browser.picture(pictures / "answered.png")


def tokens_expire_under_load(site, seconds):
    site.switch("oauth", {"access_seconds": 2})
    # The token at hand is from before and would live for an hour.
    site.switch("oauth/end-access", {})
    before = site.counters()
    end = time.monotonic() + seconds
    revoke_at = time.monotonic() + seconds / 2
    turn = 0
    while time.monotonic() < end:
        for channel in CHANNELS:
            site.customer_writes(channel, turn % CUSTOMERS)
        if turn % 10 == 0:
            site.agent_answers(CHANNELS[turn // 10 % 2])
        if revoke_at and time.monotonic() > revoke_at:
            revoke_at = None
            assert site.switch("oauth/end-access", {})["ended"] > 0
        turn += 1
        time.sleep(0.1)
    wait("everything in the inbox", site.all_arrived, 2 * SOON)
    after = site.counters()
    refreshed = after["token_calls"] - before["token_calls"]
    assert refreshed >= seconds / 4, f"{refreshed} refreshes in {seconds} s"
    assert after["token_refusals"] == before["token_refusals"], "a refresh token was used twice"
    count = sum(len(texts) for texts in site.sent.values())
    say(f"{seconds:.0f} s of tokens that live 2 s: {refreshed} refreshes, none refused, {count} texts so far")


def a_message_waits(site, words):
    """With nobody connected: kept, shown, and Pipedrive is left in peace."""
    for channel in CHANNELS:
        site.customer_writes(channel)
    wait(f"{words!r} in the status", lambda: words in site.command("status", check=False).lower())
    before = site.counters()
    # How often something does not happen takes its time to see.
    time.sleep(3)
    after = site.counters()
    made = after["calls"] - before["calls"] + after["token_calls"] - before["token_calls"]
    assert made <= 4, f"{made} calls in 3 s although nobody is connected"


def a_revoked_token_needs_a_person(site, browser, pictures):
    site.switch("oauth/end-access", {})
    site.switch("oauth/end-refresh", {})
    a_message_waits(site, "reconnect")
    connect_in_browser(site, browser, "again", pictures)
    wait("everything after the new connection", site.all_arrived, 2 * SOON)


def an_uninstallation_is_survived(site, browser, pictures):
    browser.open(site.sandbox + "/")
    leave = f"document.querySelector('[data-key=leave-{ADA}]')"
    browser.wait("the page to be live", "document.querySelector('#live.on')", SOON)
    browser.evaluate("document.querySelector('#tab-app').click()")
    browser.wait("the button", leave)
    browser.picture(pictures / "app.png")
    browser.evaluate(f"{leave}.click()")
    browser.wait("it to be gone", f"!{leave}")
    assert browser.evaluate("document.querySelector('#app-problem').hidden")
    assert site.switch("state")["channels"] == []
    a_message_waits(site, "disconnected")
    connect_in_browser(site, browser, "after-uninstall", pictures)
    wait("everything after the uninstallation", site.all_arrived, 2 * SOON)


def nothing_is_lost_or_twice(site, browser):
    inbox = site.in_inbox()
    for channel, sent in site.sent.items():
        assert sorted(inbox[channel]) == sorted(sent), f"{channel}: {len(inbox[channel])} of {len(sent)}"
        for customer in range(CUSTOMERS):
            mine = [text for text in inbox[channel] if text.startswith(f"{channel} {customer}:")]
            assert mine == [text for text in sent if text.startswith(f"{channel} {customer}:")], f"order of {mine}"
    heard = []
    while len(heard) < len(site.answers):
        heard.append(site.heard.get(timeout=SOON))
    assert sorted(heard) == sorted(site.answers), "answers lost or sent twice"
    assert site.heard.empty(), "an answer was sent twice"
    assert site.switch("violations")["violations"] == []
    assert not browser.complaints, browser.complaints
    log = (site.folder / "gateway.log").read_text(encoding="utf-8", errors="replace")
    assert "v1u:" not in log, "an access token in the log"
    return sum(map(len, site.sent.values())), len(heard)


def main():
    program, folder, pictures = (pathlib.Path(argument) for argument in sys.argv[1:4])
    seconds = float(sys.argv[4])
    pictures.mkdir(parents=True, exist_ok=True)
    site = Site(program, folder)
    try:
        with opened(folder, pictures, ["--ignore-certificate-errors"]) as browser:
            for channel in CHANNELS:
                for customer in (0, 0, 1, 1):
                    site.customer_writes(channel, customer)
            somebody_cancels(site, browser, pictures)
            say("who cancels reads what that means, and nothing is connected")
            # The refused page is no mistake of the page.
            browser.complaints.clear()
            connect_in_browser(site, browser, "first", pictures)
            history_appears(site, browser, pictures)
            say("connected in the browser: two channels with what was written before")
            a_text_goes_in_and_an_answer_out(site, browser, pictures)
            say("a text goes in and an answer out")
            tokens_expire_under_load(site, seconds)
            a_revoked_token_needs_a_person(site, browser, pictures)
            say("revoked: kept and shown until somebody connected again")
            an_uninstallation_is_survived(site, browser, pictures)
            say("uninstalled and connected again")
            texts, answers = nothing_is_lost_or_twice(site, browser)
            say(f"{texts} texts and {answers} answers: nothing lost, nothing twice, in order, no violation")
    finally:
        codes = site.stop()
    assert codes[0] == 0, f"the gateway ended with {codes[0]}"


if __name__ == "__main__":
    main()

"""Drives a running gateway from outside and holds it against the two documents beside this file.

    check.py PROGRAM FOLDER

1. The uplink: everything it sends goes through a validating proxy to the sandbox.
2. By hand: requests that are odd but allowed, and some that are not.
3. schemathesis on the manifest endpoints: any ids, ids that exist, and broken requests.

Everything is on the loopback interface and ends with this process.
"""

import base64
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from proxy import Contract, Proxy
from waiting import SOON, free_port, listens, wait

HERE = Path(__file__).parent
CHANNEL = "gw-test-sms"
USER = ("sandbox-client", "sandbox-secret")
BASIC = "Basic " + base64.b64encode(":".join(USER).encode()).decode()

failures = []


def note(text):
    print(text, flush=True)


def fail(text):
    failures.append(text)
    note(f"FAIL {text}")


class Site:
    """A broker, a sandbox behind the proxy, and the gateway."""

    def __init__(self, program, folder):
        self.program, self.folder, self.children = program, folder, []
        self.state = folder / "state"
        self.state.mkdir()
        self.certificate = self.state / "tls/self-signed.pem"
        self.mqtt, self.listener, sandbox = free_port(), free_port(), free_port()
        self.sandbox = f"http://127.0.0.1:{sandbox}"
        self.write(
            "mosquitto.conf",
            f"listener {self.mqtt} 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 10000\n",
        )
        self.start("mosquitto", ["mosquitto", "-c", folder / "mosquitto.conf"])
        wait("mosquitto", lambda: listens(self.mqtt))
        self.proxy = Proxy(HERE / "channels.openapi.yaml", sandbox)
        self.write("token", "sandbox-token\n")
        self.write("secret", "sandbox-secret\n")
        self.write(
            "pipepost.toml",
            f"""
[gateway]
id = "gw-test"
state_dir = "{self.state}"
control_socket = "{folder}/control.sock"
clock_wait = "1s"
[pipedrive]
api_url = "http://127.0.0.1:{self.proxy.port}/api/v1"
access_token_file = "{folder}/token"
client_id = "{USER[0]}"
client_secret_file = "{folder}/secret"
public_url = "https://localhost:{self.listener}"
[listener]
bind = "127.0.0.1:{self.listener}"
[[broker]]
name = "site"
url = "mqtt://127.0.0.1:{self.mqtt}"
[[device]]
name = "sms-office"
preset = "sms2mqtt"
[[channel]]
id = "sms"
name = "Office SMS"
kind = "mqtt"
device = "sms-office"
""",
        )
        gateway = f"https://localhost:{self.listener}"
        simulator = ["sim", "pipedrive", "--plain-http", "--bind", f"127.0.0.1:{sandbox}", "--gateway-url", gateway]
        self.start("sandbox", [program, *simulator, "--gateway-ca", self.certificate])
        wait("the sandbox", lambda: listens(sandbox))
        self.start("gateway", [program, "--config", folder / "pipepost.toml", "run"])
        wait("the gateway", lambda: "broker site connected" in self.command("status", check=False))

    def write(self, name, text):
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")

    def start(self, name, command):
        with open(self.folder / f"{name}.log", "wb") as log:
            self.children.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))

    def stop(self):
        for child in reversed(self.children):
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(SOON)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def command(self, *arguments, check=True):
        command = [self.program, "--config", self.folder / "pipepost.toml", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise SystemExit(f"FAIL pipepost {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def publish(self, topic, *payloads):
        lines = "".join(json.dumps(payload) + "\n" for payload in payloads)
        command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(self.mqtt), "-q", "1", "-t", topic, "-l"]
        subprocess.run(command, input=lines, text=True, check=True, timeout=60)

    def api(self, path, data=None, headers=None, method=None):
        url = f"https://localhost:{self.listener}/api/channels/{CHANNEL}{path}"
        request = urllib.request.Request(url, data, {"Authorization": BASIC, **(headers or {})}, method=method)
        context = ssl.create_default_context(cafile=self.certificate)
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return json.load(answer)

    def sandbox_says(self, what):
        with urllib.request.urlopen(f"{self.sandbox}/sandbox/{what}", timeout=30) as answer:
            return json.load(answer)

    def seen(self, operation):
        with self.proxy.lock:
            return [call for call in self.proxy.seen if call["operation"] == operation]

    def conversations(self):
        return self.api("/conversations")["data"]


def form(fields, files=()):
    """A multipart body and its content type."""
    boundary, parts = "----contract", []
    for name, value in fields:
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    for name, kind, content in files:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        parts.append(f"{head}Content-Type: {kind}\r\n\r\n".encode() + content + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def customer(conversation):
    return next(one["id"] for one in conversation["participants"] if one["role"] == "end_user")


def uplink(site):
    wait("the registration", lambda: site.seen("addChannel"))
    texts = ["Hello", "Grüße \U0001f600", "  ", "x" * 3000, 'a "quoted"\ttext', "null"]
    texts += [f"text {index}" for index in range(144)]
    numbers = ["+4915112345671", "+4915112345672", "+4915112345673"]
    for number in numbers:
        wanted = texts if number == numbers[0] else texts[:6]
        messages = [{"datetime": "2021-01-23 13:30:00", "number": number, "text": text} for text in wanted]
        site.publish("sms2mqtt/received", *messages)
    posted = lambda: {call["sent"]["id"] for call in site.seen("receiveMessage") if call["status"] == 200}
    expected = len(texts) + 12
    wait("the new messages", lambda: len(posted()) >= expected)

    # A session that the broker keeps: subscribed first, read once the answers are there.
    device = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(site.mqtt), "-c", "-i", "device", "-q", "1", "-t", "sms2mqtt/send"]
    subprocess.run([*device, "-E"], check=True, timeout=30)
    first = site.conversations()[0]
    files = [("roof.jpg", "image/jpeg", b"\xff\xd8picture"), ("plan ü.pdf", "application/pdf", b"%PDF-")]
    fields = [("message", "See the files"), ("senderId", CHANNEL), ("conversationId", first["id"])]
    body, kind = form([*fields, ("recipientIds[]", customer(first))], files)
    answer = site.api("/messages", body, {"Content-Type": kind})["data"]["id"]
    site.command("send", "--channel", "sms", "--to", numbers[1], "From the counter")
    sent = subprocess.run([*device, "-C", "2", "-W", "30"], check=True, capture_output=True, text=True, timeout=40)
    for line in sent.stdout.splitlines():
        site.publish("sms2mqtt/sent", {"result": "error : no credit", "datetime": "2021-01-23 13:30:00", **json.loads(line)})
    calls = lambda: [call["sent"] for call in site.seen("receiveMessage") if call["sent"]]
    updated = lambda: [call for call in calls() if call["id"] == answer and call["attachments"]]
    wait("the update of the message with files", updated)
    wait("the message from the counter", lambda: any(call["message"] == "From the counter" for call in calls()))
    if updated()[-1]["status"] != "failed" or len(updated()[-1]["attachments"]) != 2:
        fail(f"uplink: the update of the message with files is {updated()[-1]}")

    # As text: Pipedrive is told only of what it knows.
    gone = site.conversations()[-1]["id"]
    site.command("conversations", "delete", gone)
    wait("the deletion of a conversation", lambda: site.seen("deleteConversation"))
    site.command("channels", "delete", "sms")
    wait("the deletion of the channel", lambda: site.seen("deleteChannel"))
    site.command("channels", "register", "sms")
    wait("the second registration", lambda: len(site.seen("addChannel")) > 1)

    counts = {}
    for call in site.proxy.seen:
        key = f"{call['operation']} {call['status']}"
        counts[key] = counts.get(key, 0) + 1
    note(f"uplink: {counts}")


def raw(site, data, wait_for=None):
    """Sends bytes as they are; the answers as [(status, headers, body)]."""
    context = ssl.create_default_context(cafile=site.certificate)
    with socket.create_connection(("localhost", site.listener), 15) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as stream:
            stream.settimeout(15)
            stream.sendall(data)
            got = b""
            if wait_for:
                while b"\r\n\r\n" not in got:
                    got += stream.recv(65536)
                interim, got = got.split(b"\r\n\r\n", 1)
                if not interim.startswith(b"HTTP/1.1 100"):
                    return parse(interim + b"\r\n\r\n" + got)
                stream.sendall(wait_for)
            while True:
                try:
                    chunk = stream.recv(65536)
                except (TimeoutError, ssl.SSLEOFError):
                    break
                if not chunk:
                    break
                got += chunk
    return parse(got)


def parse(got):
    head, _, body = got.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    status = int(lines[0].split(" ")[1]) if lines[0].startswith("HTTP/") else 0
    return status, headers, body


def by_hand(site):
    contract = Contract(HERE / "manifest.openapi.yaml")
    failure = contract.document["components"]["schemas"]["failure"]
    conversation = next(c for c in site.conversations() if len(c["messages"]) > 5)
    cid, mid = conversation["id"], conversation["messages"][0]["id"]
    base = f"/api/channels/{CHANNEL}"
    answer = [("message", "by hand"), ("senderId", CHANNEL), ("conversationId", cid)]
    full = [*answer, ("recipientIds[]", customer(conversation))]
    count = 0

    def request(method, path, headers="", body=b"", version="1.1", auth=f"Authorization: {BASIC}\r\n", length=True):
        size = f"Content-Length: {len(body)}\r\n" if length and (body or method == "POST") else ""
        head = f"{method} {path} HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n{auth}{size}{headers}\r\n"
        return head.encode() + body

    def expect(what, wanted, got, code=None):
        nonlocal count
        count += 1
        status, headers, body = got
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        if status not in wanted:
            return fail(f"by hand: {what}: {status} instead of {wanted}: {body[:200]!r}")
        if what.startswith("HEAD"):
            return None if not body else fail(f"by hand: {what}: has a body")
        if not headers.get("content-type", "").startswith("application/json"):
            return fail(f"by hand: {what}: content type {headers.get('content-type')!r}")
        try:
            value = json.loads(body)
        except ValueError:
            return fail(f"by hand: {what}: no JSON: {body[:100]!r}")
        if status >= 400:
            for problem in contract.problems(failure, value):
                fail(f"by hand: {what}: {problem}")
            if code and value["data"]["code"] != code:
                fail(f"by hand: {what}: {value['data']['code']} instead of {code}")
        if status == 405 and not headers.get("allow"):
            fail(f"by hand: {what}: no Allow header")
        return value

    def post(what, wanted, fields, files=(), code=None, kind=None):
        body, own = form(fields, files)
        expect(what, wanted, raw(site, request("POST", f"{base}/messages", f"Content-Type: {kind or own}\r\n", body)), code)

    get = lambda path, **more: raw(site, request("GET", path, **more))
    body, kind = form(full)
    kind = f"Content-Type: {kind}\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i : i + 7]), body[i : i + 7]) for i in range(0, len(body), 7))
    coding = f"{kind}Transfer-Encoding: chunked\r\n"
    chunked = request("POST", f"{base}/messages", coding, chunks + b"0\r\n\r\n", length=False)
    expect("chunks", 200, raw(site, chunked))
    trailer = chunks + b"0\r\nX-Trailer: 1\r\n\r\n"
    expect("chunks with a trailer", 200, raw(site, request("POST", f"{base}/messages", coding, trailer, length=False)))
    head = request("POST", f"{base}/messages", f"{kind}Expect: 100-continue\r\nContent-Length: {len(body)}\r\n", length=False)
    expect("Expect: 100-continue", 200, raw(site, head, wait_for=body))
    wrong = head.replace(BASIC.encode(), b"Basic eDp5")
    expect("Expect without credentials", 401, raw(site, wrong), "UNAUTHORIZED")
    escaped = "".join(f"%{ord(c):02x}" for c in cid)
    expect("an escaped conversation", 200, get(f"{base}/conversations/{escaped}"))
    expect("an escaped message", 200, get(f"{base}/messages/{''.join(f'%{ord(c):02X}' for c in mid)}"))
    expect("a broken escape", 404, get(f"{base}/conversations/%zz"), "NOT_FOUND")
    expect("an escaped zero byte", 404, get(f"{base}/conversations/%00"), "NOT_FOUND")
    for query, length in [
        ("conversations_limit=abc", 2),
        ("conversations_limit=1&conversations_limit=30", 1),
        ("conversations_limit=-1", 2),
        ("conversations_limit=1e9&messages_limit=%00", 2),
        ("&&&=&conversations_limit", 2),
        ("conversations_limit=99999999999999999999", 2),
    ]:
        page = expect(query, 200, get(f"{base}/conversations?{query}"))
        if page and len(page["data"]) != length:
            fail(f"by hand: {query}: {len(page['data'])} conversations instead of {length}")
    expect("an unreadable cursor", 404, get(f"{base}/conversations?after=%F0%9F"), "NOT_FOUND")
    expect("an empty cursor", 200, get(f"{base}/conversations?after="))
    for method in ["HEAD", "OPTIONS", "PUT", "PATCH", "TRACE", "POST", "PROPFIND"]:
        expect(method, 405, raw(site, request(method, f"{base}/conversations")), "METHOD_NOT_ALLOWED")
    expect("HEAD of a message", 405, raw(site, request("HEAD", f"{base}/messages/{mid}")))
    expect("GET of the post path", 405, get(f"{base}/messages"), "METHOD_NOT_ALLOWED")
    expect("GET of the channel", 405, get(base), "METHOD_NOT_ALLOWED")
    for path in ["/", "/conversations/", f"/conversations/{cid}/", "/messages/", "/templates/"]:
        expect(f"a slash at the end of {path}", 404, get(base + path), "NOT_FOUND")
    expect("two slashes", 404, get(f"/api//channels/{CHANNEL}/conversations"), "NOT_FOUND")
    expect("a long path", 404, get(f"{base}/conversations/{'a' * 3500}"), "NOT_FOUND")
    expect("a longer path", 414, get(f"{base}/conversations/{'a' * 5000}"))
    # Beyond hyper's own limit, which is answered without a body.
    status, _, _ = get(f"{base}/conversations/{'a' * 100_000}")
    if status not in (414, 431):
        fail(f"by hand: a very long path: {status}")
    for scheme in ["basic", "BASIC", "bAsIc"]:
        expect(scheme, 200, get(f"{base}/templates", auth=f"Authorization: {scheme} {BASIC[6:]}\r\n"))
    expect("two spaces", 200, get(f"{base}/templates", auth=f"authorization: Basic  {BASIC[6:]}\r\n"))
    expect("bearer", 401, get(f"{base}/templates", auth=f"Authorization: Bearer {BASIC[6:]}\r\n"), "UNAUTHORIZED")
    expect("no credentials", 401, get(f"{base}/templates", auth=""), "UNAUTHORIZED")
    expect("no credentials, nowhere", 401, get("/api/none", auth=""), "UNAUTHORIZED")
    expect("HTTP/1.0", 200, get(f"{base}/conversations", version="1.0"))
    old = f"GET {base}/templates HTTP/1.0\r\nAuthorization: {BASIC}\r\n\r\n".encode()
    expect("HTTP/1.0 without Host", 200, raw(site, old))
    absolute = f"https://localhost:{site.listener}{base}/templates"
    expect("an absolute URL", 200, get(absolute))
    expect("GET with a body", 200, raw(site, request("GET", f"{base}/templates", body=b"{}")))
    data = json.dumps(dict(answer)).encode()
    sent = lambda kind, data: raw(site, request("POST", f"{base}/messages", kind, data))
    expect("a JSON body", 415, sent("Content-Type: application/json\r\n", data), "UNSUPPORTED_MEDIA_TYPE")
    urlencoded = "Content-Type: application/x-www-form-urlencoded\r\n"
    expect("a urlencoded body", 415, sent(urlencoded, b"message=a"), "UNSUPPORTED_MEDIA_TYPE")
    expect("no content type", 415, sent("", body), "UNSUPPORTED_MEDIA_TYPE")
    expect("no boundary", 400, sent("Content-Type: multipart/form-data\r\n", body), "INVALID_BODY")
    expect("no body", 400, sent(kind, b""), "INVALID_BODY")
    expect("half a body", 400, sent(kind, body[:150]), "INVALID_BODY")
    upper = kind.replace("multipart/form-data; boundary", "Multipart/Form-Data; charset=utf-8; Boundary")
    expect("an upper-case content type", 200, sent(upper, body))
    expect("a quoted boundary", 200, sent(kind.replace("----contract", '"----contract"'), body))
    expect("lines before and after", 200, sent(kind, b"before\r\n" + body + b"after"))
    post("an empty form", 400, [], code="INVALID_BODY")
    post("only files", 200, full[1:], [("a.txt", "text/plain", b"a")])
    post("an empty file", 200, full[1:], [("a.txt", "text/plain", b"")])
    post("only files, no conversation", 400, [], [("a.txt", "text/plain", b"a")], code="INVALID_BODY")
    post("no recipients", 200, answer)
    post("comma-joined recipients", 200, [*answer, ("recipientIds", customer(conversation))])
    post("numbered recipients", 200, [*answer, ("recipientIds[0]", customer(conversation))])
    post("a stranger as recipient", 400, [*answer, ("recipientIds[]", "nobody")], code="INVALID_BODY")
    post("an unknown conversation", 404, [*answer[:2], ("conversationId", "nowhere")], code="NOT_FOUND")
    post("white space", 400, [("message", " \n"), *answer[1:]], code="INVALID_BODY")
    post("a field twice", 400, [*answer, answer[0]], code="INVALID_BODY")
    post("fields with odd names", 200, [*answer, ("", "1"), ("ü", "2"), ("recipientIds[x]", "3"), ("a b", "4")])
    post("a null character", 200, [("message", "a\0b"), *answer[1:]])
    post("a long message", (200, 413), [("message", "ü" * 30_000), *answer[1:]])
    post("a longer message", 413, [("message", "x" * 70_000), *answer[1:]], code="PAYLOAD_TOO_LARGE")
    two = request("GET", f"{base}/templates").replace(b"Connection: close\r\n", b"") + request("GET", f"{base}/templates")
    status, _, rest = raw(site, two)
    if status != 200 or b"HTTP/1.1 200" not in rest:
        fail("by hand: two requests at once on a connection do not have two answers")
    # Whatever was taken must be shown within the contract.
    schema = contract.document["paths"]["/channels/{providerChannelId}/conversations"]["get"]["responses"]["200"]
    page = site.api("/conversations?messages_limit=100")
    for problem in contract.problems(schema["content"]["application/json"]["schema"], page):
        fail(f"by hand: getConversations afterwards: {problem}")
    note(f"by hand: {count} requests")


def ids(site):
    """What exists, read as Pipedrive would: through getConversations."""
    pages = site.conversations()
    return {
        "channel": CHANNEL,
        "conversations": [[c["id"], customer(c)] for c in pages],
        "senders": [CHANNEL, *(customer(c) for c in pages)],
        "messages": [[c["id"], m["id"]] for c in pages for m in c["messages"][:20]],
    }


def schemathesis(site, name, arguments, environment=None, config=""):
    settings = site.folder / f"{name}.toml"
    settings.write_text(config, encoding="utf-8")
    command = [Path(sys.executable).parent / "schemathesis", "--config-file", settings, "run"]
    command += [HERE / "manifest.openapi.yaml", "--url", f"https://localhost:{site.listener}/api"]
    command += ["--auth", ":".join(USER), "--tls-verify", site.certificate, "--no-color"]
    command += ["--generation-deterministic", "--no-shrink", "--continue-on-failure", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "SCHEMATHESIS_HOOKS": "hooks", **(environment or {})}
    log = site.folder / f"{name}.log"
    began = time.monotonic()
    with open(log, "wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=site.folder, timeout=300)
    text = log.read_text(encoding="utf-8", errors="replace")
    if done.returncode:
        note(text[-12000:])
        fail(f"schemathesis, {name}: ended with {done.returncode}")
    summary = [line.strip() for line in text.splitlines() if " generated, " in line]
    note(f"schemathesis, {name}: {'; '.join(summary) or 'no summary'} ({time.monotonic() - began:.0f} s)")
    return text


def main():
    program, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    stages = sys.argv[3:] or ["uplink", "hand", "any", "real", "broken"]
    site = Site(program, folder)
    try:
        uplink(site)
        if "hand" in stages:
            by_hand(site)
        if "any" in stages:
            schemathesis(site, "any", ["--phases", "examples,coverage,fuzzing", "--max-examples", "15"])
        if "real" in stages:
            real = {"CONTRACT_IDS": json.dumps(ids(site))}
            arguments = ["--mode", "positive", "--phases", "coverage,fuzzing,stateful", "--max-examples", "20"]
            # It takes its own lists of files for wrong ones.
            arguments += ["--exclude-checks", "negative_data_rejection"]
            schemathesis(site, "real", arguments, real)
        if "broken" in stages:
            # Limits are read leniently (see the document), and every wrong password costs a second.
            config = f'''[parameters]
"path.providerChannelId" = "{CHANNEL}"
[[operations]]
include-operation-id = ["getConversations", "getConversationById"]
checks.negative_data_rejection.enabled = false
'''
            arguments = ["--mode", "negative", "--phases", "coverage,fuzzing", "--max-examples", "20"]
            arguments += ["--generation-with-security-parameters", "false"]
            schemathesis(site, "broken", arguments, config=config)
        for violation in site.proxy.violations:
            fail(f"uplink: {violation}")
        for violation in site.sandbox_says("violations")["violations"]:
            fail(f"the sandbox: {violation}")
    finally:
        site.stop()
    if failures:
        raise SystemExit(f"{len(failures)} findings")


main()

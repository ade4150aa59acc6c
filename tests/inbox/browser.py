"""A headless Chromium over the DevTools protocol's pipe: JSON ended by NUL on two file descriptors, so that neither a
port nor a package beyond Python's own is needed."""

import base64
import contextlib
import json
import os
import selectors
import subprocess
import time

# Key: (code, virtual key code, text that it types).
KEYS = {
    "Tab": ("Tab", 9, None),
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, None),
    "End": ("End", 35, None),
    "Home": ("Home", 36, None),
    "ArrowLeft": ("ArrowLeft", 37, None),
    "ArrowUp": ("ArrowUp", 38, None),
    "ArrowRight": ("ArrowRight", 39, None),
    "ArrowDown": ("ArrowDown", 40, None),
    " ": ("Space", 32, " "),
}
SHIFT = 8


class Browser:
    """One Chromium with one page."""

    def __init__(self, profile, log, extra=()):
        arguments = [
            "chromium",
            "--headless=new",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            "--disable-gpu",
            "--disable-quic",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--no-default-browser-check",
            "--no-proxy-server",
            "--hide-scrollbars",
            "--mute-audio",
            *extra,
        ]
        if os.geteuid() == 0:
            # Chromium's sandbox does not work for root.
            arguments.append("--no-sandbox")
        commands, to_browser = os.pipe()
        from_browser, answers = os.pipe()

        def place():
            # It reads from 3 and writes to 4. Copies first: the pipes may have these numbers themselves.
            reading, writing = os.dup(commands), os.dup(answers)
            os.dup2(reading, 3)
            os.dup2(writing, 4)

        self.process = subprocess.Popen(
            arguments, preexec_fn=place, close_fds=False, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        os.close(commands)
        os.close(answers)
        self.to_browser = to_browser
        self.from_browser = from_browser
        self.selector = selectors.DefaultSelector()
        self.selector.register(from_browser, selectors.EVENT_READ)
        self.buffer = b""
        self.number = 0
        self.session = None
        self.complaints = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(domain + ".enable")
        # Without transitions the page is at once what it will be.
        features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def call(self, method, limit=30, **parameters):
        """Sends one command and waits for its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to_browser, data) :]
        deadline = time.monotonic() + limit
        while True:
            answer = self._next(deadline, method)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def _next(self, deadline, what):
        while b"\0" not in self.buffer:
            if not self.selector.select(max(0, deadline - time.monotonic())):
                raise AssertionError(f"the browser did not answer {what}")
            chunk = os.read(self.from_browser, 1 << 20)
            if not chunk:
                raise AssertionError("the browser has gone")
            self.buffer += chunk
        message, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(message)
        self._listen(message)
        return message

    def _listen(self, message):
        """Keeps what the page complained about: exceptions, forbidden loads, failed requests."""
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
        elif message.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.complaints.append(str([a.get("value", a.get("description")) for a in parameters["args"]]))

    def size(self, width, height):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def open(self, url):
        self.call("Page.navigate", url=url)

    def evaluate(self, expression):
        """The value of a JavaScript expression, which may be a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, what, expression, limit=20):
        """Waits until an expression is true; gives its value."""
        deadline = time.monotonic() + limit
        while True:
            # An element has no value of its own here.
            value = self.evaluate(f"(found => found instanceof Node ? true : found)({expression})")
            if value:
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {limit} s for: {what} ({expression})")
            time.sleep(0.02)

    def press(self, key, shift=False):
        code, number, text = KEYS[key]
        common = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": SHIFT if shift else 0}
        down = {"type": "keyDown" if text else "rawKeyDown", **common}
        if text:
            down["text"] = text
        self.call("Input.dispatchKeyEvent", **down)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def write(self, text):
        """Text into what has the focus."""
        self.call("Input.insertText", text=text)

    def choose_files(self, selector, paths):
        """What a person does in the dialogue of a file input."""
        root = self.call("DOM.getDocument", depth=0)["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def picture(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def close(self):
        try:
            self.session = None
            self.call("Browser.close", limit=5)
            self.process.wait(5)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def opened(folder, pictures, extra=()):
    """A browser of a desktop's size. When what it is used for fails, its page is left as a picture."""
    with open(folder / "chromium.log", "wb") as log:
        browser = Browser(folder / "profile", log, extra)
    try:
        browser.size(1360, 850)
        yield browser
    except BaseException:
        browser.picture(pictures / "failed.png")
        print(f"the page then: {pictures / 'failed.png'}; complaints: {browser.complaints}")
        raise
    finally:
        browser.close()

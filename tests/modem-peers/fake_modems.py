#!/usr/bin/env python3
"""The gateway's own driver on modems that we did not write: the fake modems of python-gsmmodem-new's tests.

fake_modems.py PIPEPOST SOURCE    SOURCE is that package's unpacked source

They answer what real modems answered to the package's authors (Wavecom, Huawei, Qualcomm, ZTE), oddities included. What
they leave to their tests is added here: a network, a memory for messages, and the prompt. One daemon has them all, each on
a pseudo-terminal and with a channel of its own. What it sends is read with the package's own decoder.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
import tty

LIMIT = 150
# "1234567" from +491711234567, as in the codec's tests.
TEXT = "07919471016700F0040C919471113254760000620110210000800731D98C56B3DD00"
NETWORK = {
    "AT+CREG?\r": ['+CREG: 2,1,"00C3","0F12"\r\n', "OK\r\n"],
    "AT+CSQ\r": ["+CSQ: 20,99\r\n", "OK\r\n"],
}


class Modem(threading.Thread):
    def __init__(self, fake, folder, decode):
        super().__init__(daemon=True)
        self.fake, self.name, self.decode = fake, type(fake).__name__.lower(), decode
        self.stored, self.sent, self.lock = {}, [], threading.Lock()
        self.line, self.other = os.openpty()
        tty.setraw(self.line)
        tty.setraw(self.other)
        self.path = os.path.join(folder, self.name)
        os.symlink(os.ttyname(self.other), self.path)
        self.start()

    def say(self, lines):
        with self.lock:
            os.write(self.line, "".join(lines).encode())

    def text_comes(self, pdu):
        self.stored[1] = pdu
        self.say(['\r\n+CMTI: "SM",1\r\n'])

    def run(self):
        entered, prompt = b"", False
        while True:
            for byte in os.read(self.line, 1024):
                if byte == 0x1B:
                    entered, prompt = b"", False
                elif prompt and byte == 0x1A:
                    sent = self.decode(entered.decode())
                    self.sent.append((sent["number"], sent["text"]))
                    entered, prompt = b"", False
                    self.say([f"+CMGS: {len(self.sent)}\r\n", "OK\r\n"])
                elif not prompt and byte == 0x0D:
                    command, entered = entered.decode() + "\r", b""
                    prompt = command.startswith("AT+CMGS=")
                    self.say(["\r\n> "] if prompt else self.answer(command))
                else:
                    entered += bytes([byte])

    def answer(self, command):
        if command in NETWORK:
            return NETWORK[command]
        if command == "AT+CMGL=4\r":
            lines = [f"+CMGL: {n},1,,{len(pdu) // 2 - 8}\r\n{pdu}\r\n" for n, pdu in self.stored.items()]
            return [*lines, "OK\r\n"]
        if command.startswith("AT+CMGR="):
            pdu = self.stored.get(int(command[8:]))
            return [f"+CMGR: 0,,{len(pdu) // 2 - 8}\r\n{pdu}\r\n", "OK\r\n"] if pdu else ["OK\r\n"]
        if command.startswith("AT+CMGD="):
            self.stored.pop(int(command[8:]), None)
            return ["OK\r\n"]
        return self.fake.getResponse(command)


def main():
    program, source = os.path.abspath(sys.argv[1]), sys.argv[2]
    sys.path[:0] = [source]
    from gsmmodem.pdu import decodeSmsPdu
    from test import fakemodems

    makes = ["GenericTestModem", "WavecomMultiband900E1800", "HuaweiK3715", "HuaweiE1752", "QualcommM6280", "ZteK3565Z"]
    with tempfile.TemporaryDirectory() as folder:
        modems = [Modem(getattr(fakemodems, make)(), folder, decodeSmsPdu) for make in makes]
        config = os.path.join(folder, "pipepost.toml")
        for name in ("token", "secret"):
            with open(os.path.join(folder, name), "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write("none\n")
        with open(config, "w") as file:
            # Nobody is there to deliver to: it is the modems that this is about.
            file.write(f"""
[gateway]
state_dir = "{folder}/state"
control_socket = "{folder}/control"
clock_wait = "1s"
[pipedrive]
api_url = "https://127.0.0.1:9/api/v1"
access_token_file = "{folder}/token"
client_id = "none"
client_secret_file = "{folder}/secret"
public_url = "https://localhost:9"
[listener]
bind = "127.0.0.1:0"
""")
            for modem in modems:
                file.write(f"""
[[modem]]
name = "{modem.name}"
port = "{modem.path}"
home_country = "DE"
pacing = "0s"
[[channel]]
id = "{modem.name}"
name = "{modem.name}"
kind = "sms"
modem = "{modem.name}"
""")

        def run(*arguments):
            return subprocess.run([program, "--config", config, *arguments], capture_output=True, text=True).stdout

        log = open(os.path.join(folder, "daemon.log"), "w+")
        daemon = subprocess.Popen([program, "--config", config, "run"], stdout=log, stderr=log)

        def until(what, condition):
            end = time.monotonic() + LIMIT
            while not condition():
                if time.monotonic() > end or daemon.poll() is not None:
                    log.seek(0)
                    sys.exit(f"FAIL: {what}\n{run('status')}\n{log.read()[-4000:]}")
                time.sleep(0.2)

        try:
            for modem in modems:
                until(f"{modem.name} is not connected", lambda: f"modem {modem.name} connected" in run("status"))
                modem.text_comes(TEXT)
                until(f"the text of {modem.name} is not deleted", lambda: not modem.stored)
                rows = [row for row in run("conversations", "list").splitlines() if modem.name in row]
                if not any("+491711234567" in row for row in rows):
                    sys.exit(f"FAIL: the text of {modem.name} is not stored: {rows}")
                run("send", "--channel", modem.name, "--to", "+31612345678", "Hello {€} from the gateway")
                until(f"nothing is sent on {modem.name}", lambda: modem.sent)
                if modem.sent != [("+31612345678", "Hello {€} from the gateway")]:
                    sys.exit(f"FAIL: {modem.name} sent {modem.sent}")
            print(f"ok: the driver on {len(modems)} fake modems of python-gsmmodem-new: {', '.join(makes)}")
        finally:
            daemon.terminate()
            daemon.wait()


if __name__ == "__main__":
    main()

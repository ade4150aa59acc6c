"""What a person does in the sandbox's inbox, in a real browser against `pipepost demo`.

Usage: check.py PROGRAM FOLDER PICTURES
"""

import datetime
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
import urllib.parse
import urllib.request

from browser import opened
from waiting import SOON

FILE = b"%PDF-1.4\n% an offer\n%%EOF\n"
WRITER = "+447700900555"
HOSTILE = "<img src=x onerror=\"document.title='broken'\"> & <b>not bold</b>"
LONG = "+447700900777"
# Priya Nair of the demo, who sends a picture.
PICTURES = "+447700900288"
LONG_HISTORY = 130
# One page of the sandbox's inbox.
PAGE = 50


class Demo:
    """A running `pipepost demo`; its output is read as it comes."""

    def __init__(self, program, folder):
        self.log = open(folder / "demo.log", "w", encoding="utf-8")
        self.process = subprocess.Popen(
            [program, "demo", "--no-browser", "--manual"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.page = self.wait(r"inbox page +(\S+)")[1]
        self.broker = self.wait(r"MQTT broker +127\.0\.0\.1:(\d+)")[1]
        self.wait("the gateway is ready")

    def _read(self):
        for line in self.process.stdout:
            self.log.write(line)
            self.log.flush()
            self.lines.put(line)

    def wait(self, pattern, limit=SOON):
        """The next line that the pattern is found in."""
        deadline = time.monotonic() + limit
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {pattern!r} in the demo's output within {limit} s") from None
            found = re.search(pattern, line)
            if found:
                return found

    def customer_writes(self, number, texts):
        """One message a second, the last one now."""
        now = datetime.datetime.now(datetime.timezone.utc)
        payloads = []
        for index, text in enumerate(texts):
            at = now - datetime.timedelta(seconds=len(texts) - 1 - index)
            payloads.append(json.dumps({"from": number, "text": text, "timestamp": at.isoformat()}))
        topic = "gsm2mqtt/modem/office/sms/received"
        command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", self.broker, "-q", "1", "-t", topic, "-l"]
        subprocess.run(command, input="\n".join(payloads) + "\n", text=True, check=True, timeout=SOON)

    def ask(self, path):
        with urllib.request.urlopen(f"{self.page}sandbox/{path}", timeout=10) as answer:
            return json.load(answer)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(SOON)


def row(number):
    """JavaScript for a conversation's button in the list. Numbers are shown in groups."""
    buttons = "[...document.querySelectorAll('#conversations button')]"
    return f"{buttons}.find(b => b.textContent.replaceAll(' ', '').includes('{number}'))"


FOCUS = "(document.activeElement.id || document.activeElement.getAttribute('aria-label') || document.activeElement.tagName)"


def tab_to(browser, condition, what, shift=False):
    """Presses Tab until a condition on `document.activeElement` holds."""
    for _ in range(40):
        if browser.evaluate(condition):
            return
        browser.press("Tab", shift)
        outline = browser.evaluate(
            "(() => { const e = document.activeElement; const of = e.closest('.attach') || e;"
            " return e === document.body || getComputedStyle(of).outlineStyle !== 'none'; })()"
        )
        assert outline, f"no visible focus on {browser.evaluate(FOCUS)}"
    raise AssertionError(f"Tab does not lead to {what}; it ended on {browser.evaluate(FOCUS)}")


def fits(browser, where):
    """Nothing is wider than the window, and nothing but text boxes and code scrolls sideways."""
    wide = browser.evaluate(
        "(() => { const wide = []; const room = document.documentElement.clientWidth;"
        " for (const e of document.querySelectorAll('body, body *')) {"
        "  const style = getComputedStyle(e); if (style.display === 'none' || style.visibility === 'hidden') continue;"
        "  const box = e.getBoundingClientRect(); if (!box.width) continue;"
        "  const name = e.tagName + (e.id ? '#' + e.id : '') + '.' + e.className;"
        "  if (box.right > room + 1 || box.left < -1) wide.push(name + ' ' + box.left + '-' + box.right);"
        "  if (['auto', 'scroll'].includes(style.overflowX) && e.scrollWidth > e.clientWidth + 1)"
        "   wide.push(name + ' scrolls sideways');"
        " } if (document.documentElement.scrollWidth > room) wide.push('the page'); return wide.slice(0, 5); })()"
    )
    assert not wide, f"{where}: {wide}"


def count_calls(browser, verdict):
    return browser.evaluate(f"document.querySelectorAll('#calls .verdict.{verdict}').length")


def connected_by_hand(demo, browser, pictures):
    """What `pipepost demo --manual` waits for: a look at who asks for what, and a click."""
    browser.wait("the page to be live", "document.querySelector('#live.on')")
    browser.wait("the offer", "!document.querySelector('#offer').hidden")
    offered = "document.activeElement.id === 'offer-open'"
    tab_to(browser, offered, "the link of the offer")
    fits(browser, "the offer")
    browser.picture(pictures / "offer.png")
    assert demo.ask("state")["channels"] == [], "nobody has allowed it yet"
    browser.press("Enter")
    browser.wait("the question", "document.querySelector('button[value=allow]')")
    tab_to(browser, "document.activeElement.value === 'allow'", "the button that allows it")
    browser.picture(pictures / "question.png")
    browser.size(390, 780)
    fits(browser, "the question on a phone")
    browser.picture(pictures / "phone-question.png")
    browser.size(1360, 850)
    browser.press("Enter")
    inside = "document.querySelector('iframe')?.contentDocument?.body?.innerText"
    browser.wait("the gateway's page", f"{inside}?.includes('Ada Brooks of Acme Heating')")
    demo.wait("Connected as Ada Brooks of Acme Heating")
    browser.picture(pictures / "connected.png")
    tab_to(browser, "document.activeElement.getAttribute('href') === '/'", "the way to the inbox")
    browser.press("Enter")
    browser.wait("no more offer", "document.querySelector('#offer')?.hidden")


def messages_appear_by_themselves(demo, browser):
    browser.wait("the page to be live", "document.querySelector('#live.on')")
    browser.wait("a message of the demo's customers", row("+491713920017"))
    demo.customer_writes(WRITER, ["Is anybody there?"])
    browser.wait("the new conversation", row(WRITER))
    badge = f"{row(WRITER)}.querySelector('.badge')"
    browser.wait("its unread mark", f"!{badge}.hidden && {badge}.textContent === '1'")
    demo.customer_writes(WRITER, ["I have a question.", HOSTILE])
    browser.wait("three unread messages", f"{badge}.textContent === '3'")
    assert browser.evaluate(f"{row(WRITER)}.parentElement.className") == "unread"


def an_answer_with_a_file_by_keyboard(demo, browser, folder, pictures):
    in_list = "document.activeElement.closest('#conversations') !== null"
    tab_to(browser, in_list, "the list of conversations")
    browser.press("Tab")
    browser.press("Tab", shift=True)
    # From the row that has the focus to the wanted one by arrows, whichever way it is.
    for key in ("ArrowUp", "ArrowDown"):
        for _ in range(20):
            if browser.evaluate(f"document.activeElement === {row(WRITER)}"):
                break
            browser.press(key)
    assert browser.evaluate(f"document.activeElement === {row(WRITER)}"), "arrows do not lead to the conversation"
    browser.press("Enter")
    browser.wait("the message", "document.querySelector('#messages').textContent.includes('I have a question.')")
    texts = "[...document.querySelectorAll('#messages .bubble')].map(b => b.textContent)"
    assert HOSTILE in browser.evaluate(texts), "text that looks like markup is not shown as it is"
    browser.wait("the focus in the answer's field", "document.activeElement.id === 'text'")
    browser.wait("the unread mark to go", f"{row(WRITER)}.querySelector('.badge').hidden")
    browser.wait("the sandbox to know it", "fetch('/sandbox/summary').then(a => a.json()).then(s => "
                 f"s.list.some(c => c.participants.some(p => p.name.replaceAll(' ', '').includes('{WRITER}')) && c.unread === 0))")

    browser.write("Yes: here is the offer.")
    tab_to(browser, "document.activeElement.id === 'file'", "the file input", shift=True)
    offer = folder / "offer.pdf"
    offer.write_bytes(FILE)
    extra = folder / "unwanted.txt"
    extra.write_text("no\n", encoding="utf-8")
    browser.choose_files("#file", [offer, extra])
    browser.wait("two chosen files", "document.querySelectorAll('#files li').length === 2")
    # The second one is taken back.
    unwanted = "document.activeElement.getAttribute('aria-label') === 'Remove unwanted.txt'"
    tab_to(browser, unwanted, "the button that removes a file", shift=True)
    browser.press("Enter")
    browser.wait("one file to be left", "document.querySelectorAll('#files li').length === 1")
    assert browser.evaluate("document.activeElement !== document.body"), "removing a file loses the focus"
    browser.picture(pictures / "answering.png")
    tab_to(browser, "document.activeElement.id === 'text'", "the answer's field")
    assert browser.evaluate("document.activeElement.value") == "Yes: here is the offer."
    browser.press("Enter")
    mine = "document.querySelector('#messages .message.mine:last-of-type')"
    browser.wait("the answer in the conversation", f"{mine}?.textContent.includes('here is the offer')")
    browser.wait("an empty field", "document.querySelector('#text').value === ''")
    assert browser.evaluate("document.querySelector('#problem').hidden")
    assert browser.evaluate("document.activeElement.id") == "text", "sending loses the focus"
    assert browser.evaluate(f"{mine}.querySelector('.file').textContent").startswith("offer.pdf")
    demo.wait("GSM2MQTT sends to .*here is the offer")
    link = demo.wait(r"https://\S+/media/\S+")[0]
    browser.wait("its delivery", f"{mine}.querySelector('.status.delivered') !== null")
    browser.picture(pictures / "delivered.png")
    return link


def the_link_opens(link):
    """The device cannot carry files: it got a link, and whoever has it reads the file."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    with urllib.request.urlopen(link, timeout=10, context=trusting) as answer:
        assert answer.read() == FILE
        assert answer.headers["content-type"] == "application/pdf", answer.headers["content-type"]
        assert "offer.pdf" in answer.headers["content-disposition"], answer.headers["content-disposition"]


def a_picture_is_seen(browser, pictures):
    """A customer's picture is shown, and another kind of file is offered as a download."""
    browser.wait("the customer with a picture", row(PICTURES))
    browser.evaluate(f"{row(PICTURES)}.click()")
    shown = "document.querySelector('#messages .bubble img')"
    browser.wait("the picture", f"{shown}?.complete && {shown}.naturalWidth === 320 && {shown}.alt === 'roof.png'", 30)
    card = "[...document.querySelectorAll('#messages a.file')].find(a => a.textContent.includes('Priya Nair.vcf'))"
    browser.wait("the card", card, 30)
    browser.picture(pictures / "picture.png")
    fits(browser, "a picture")


def history_is_paged(demo, browser, pictures):
    demo.customer_writes(LONG, [f"message {n} of many" for n in range(1, LONG_HISTORY + 1)])
    badge = f"{row(LONG)}?.querySelector('.badge').textContent"
    browser.wait("all messages", f"{badge} === '{LONG_HISTORY}'", 60)
    browser.evaluate(f"{row(LONG)}.click()")
    shown = "[...document.querySelectorAll('#messages .bubble')].map(b => b.textContent)"
    earlier = "document.querySelector('#messages .earlier')"
    for pages in range(1, 3):
        left = LONG_HISTORY - pages * PAGE
        browser.wait(f"{left} earlier messages", f"{earlier}?.textContent === '{left} earlier messages'")
        assert len(browser.evaluate(shown)) == pages * PAGE
        if pages == 1:
            last = browser.evaluate("document.querySelector('#messages .message:last-of-type').getBoundingClientRect()"
                                    ".bottom <= document.querySelector('#messages').getBoundingClientRect().bottom + 1")
            assert last, "the newest message is not in sight"
            browser.picture(pictures / "history.png")
        # What was looked at stays where it is while earlier ones come in above it.
        browser.evaluate("document.querySelector('#messages').scrollTop = 0")
        first = "[...document.querySelectorAll('#messages .message')].find(m => m.textContent.includes('message %d of'))" % (left + 1)
        before = browser.evaluate(f"{first}.getBoundingClientRect().top")
        browser.evaluate(f"{earlier}.focus()")
        browser.press("Enter")
        browser.wait("them", f"{shown}.length > {pages * PAGE}")
        after = browser.evaluate(f"{first}.getBoundingClientRect().top")
        assert abs(after - before) < 60, f"the view jumped by {after - before} px"
        focus = browser.evaluate("document.activeElement !== document.body")
        assert focus, "loading earlier messages loses the focus"
    browser.wait("the whole history", f"!{earlier}")
    texts = browser.evaluate(shown)
    assert texts == [f"message {n} of many" for n in range(1, LONG_HISTORY + 1)], texts


def faults_are_switched_and_survived(demo, browser, pictures):
    browser.evaluate("document.querySelector('#text').focus()")
    tab_to(browser, "document.activeElement.id === 'tab-calls'", "the panel's tabs")
    browser.press("ArrowRight")
    assert browser.evaluate("document.activeElement.id") == "tab-faults"
    assert browser.evaluate("!document.querySelector('#faults-pane').hidden")
    storm = "document.querySelector('#faults').elements.too_many"
    tab_to(browser, f"document.activeElement === {storm}", "the switch of the 429 storm")
    browser.press("End")
    browser.wait("the storm", "fetch('/sandbox/faults').then(a => a.json()).then(f => f.too_many === 1)")
    browser.wait("its mark", f"{storm}.parentElement.className === 'active'")
    browser.picture(pictures / "faults.png")
    demo.customer_writes(WRITER, ["Are you still there?"])
    browser.wait("a refused call", "[...document.querySelectorAll('#calls .verdict.fault')]"
                 ".some(v => v.textContent === '429')")
    assert not browser.evaluate(f"{row(WRITER)}.textContent.includes('still there')")
    tab_to(browser, "document.activeElement.id === 'faults-off'", "the button that ends all faults")
    browser.press("Enter")
    browser.wait("the message after the storm", f"{row(WRITER)}.textContent.includes('still there')", 60)
    browser.wait("no mark", f"{storm}.parentElement.className === '' && {storm}.value === '0'")


def calls_tell_what_happened(browser, pictures):
    browser.evaluate("document.querySelector('#tab-calls').focus()")
    browser.press("ArrowLeft")
    assert browser.evaluate("document.activeElement.id") == "tab-violations", "the tabs do not go round"
    assert browser.evaluate("!document.querySelector('#no-violations').hidden")
    browser.press("ArrowRight")
    assert browser.evaluate("document.activeElement.id") == "tab-calls"
    assert count_calls(browser, "ok") > 0
    assert count_calls(browser, "violation") == 0
    for arrow in ("→", "←"):
        both = f"[...document.querySelectorAll('#calls .toward')].some(t => t.textContent === '{arrow}')"
        assert browser.evaluate(both), f"no call with {arrow}"
    tab_to(browser, "document.activeElement.tagName === 'SUMMARY'", "a call")
    browser.press("Enter")
    browser.wait("what was sent", "document.querySelector('#calls details[open] .more') !== null")
    browser.picture(pictures / "calls.png")


def a_phone_shows_one_thing_at_a_time(demo, browser, pictures):
    browser.size(390, 780)
    browser.evaluate("document.querySelector('#conversations button').click()")
    browser.wait("the conversation", "document.querySelector('#reply').offsetParent !== null")
    assert browser.evaluate("document.querySelector('.list').offsetParent === null")
    fits(browser, "a conversation on a phone")
    browser.picture(pictures / "phone-thread.png")
    tab_to(browser, "document.activeElement.id === 'back'", "the way back")
    browser.press("Enter")
    browser.wait("the list", "document.querySelector('.list').offsetParent !== null")
    browser.wait("no open conversation", "!document.querySelector('#conversations [aria-current=true]')")
    assert browser.evaluate("document.activeElement.closest('#conversations') !== null"), "going back loses the focus"
    fits(browser, "the list on a phone")
    browser.picture(pictures / "phone-list.png")
    tab_to(browser, "document.activeElement.id === 'toggle-panel'", "the button of the panel", shift=True)
    browser.press("Enter")
    browser.wait("the panel", "document.activeElement.id === 'tab-calls'")
    in_place = "Math.abs(document.querySelector('#panel').getBoundingClientRect().right - innerWidth) < 1"
    browser.wait("the panel to be in place", in_place)
    fits(browser, "the calls on a phone")
    browser.picture(pictures / "phone-calls.png")
    browser.press("ArrowRight")
    fits(browser, "the faults on a phone")
    browser.picture(pictures / "phone-faults.png")
    browser.press("Escape")
    browser.wait("the panel to close", "document.activeElement.id === 'toggle-panel'")


def main():
    program, folder, pictures = (pathlib.Path(argument) for argument in sys.argv[1:])
    pictures.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    demo = Demo(program, folder)
    try:
        with opened(folder, pictures) as browser:
            browser.open(demo.page)
            say = lambda what: print(f"ok {time.monotonic() - started:5.1f} s  {what}", flush=True)
            connected_by_hand(demo, browser, pictures)
            say("connected by keyboard: offer, question, the gateway's answer")
            messages_appear_by_themselves(demo, browser)
            say("messages appear, with unread marks")
            link = an_answer_with_a_file_by_keyboard(demo, browser, folder, pictures)
            say("by keyboard: opened, answered with a file, delivered; the unread mark went")
            the_link_opens(link)
            say("the customer's link opens the file")
            a_picture_is_seen(browser, pictures)
            say("a customer's picture is seen, a contact card is offered")
            history_is_paged(demo, browser, pictures)
            say(f"{LONG_HISTORY} messages of history in pages, none twice, none missing")
            faults_are_switched_and_survived(demo, browser, pictures)
            say("a 429 storm switched on and off by keyboard; the message came after it")
            calls_tell_what_happened(browser, pictures)
            say("both directions in the panel of calls, no violation")
            fits(browser, "the desktop")
            a_phone_shows_one_thing_at_a_time(demo, browser, pictures)
            say("390 px: list, conversation, calls and faults without sideways scrolling")
            browser.size(900, 760)
            fits(browser, "a tablet")
            browser.picture(pictures / "tablet.png")
            assert demo.ask("violations")["violations"] == []
            assert not browser.complaints, browser.complaints
            assert browser.evaluate("document.title") == "Sandbox inbox", "a customer's text ran as a script"
    finally:
        code = demo.stop()
    assert code == 0, f"the demo ended with {code}"
    print(f"the page stood everything in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()

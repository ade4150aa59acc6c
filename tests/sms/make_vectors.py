#!/usr/bin/python3
"""Makes tests/sms/vectors with programs that have nothing in common with this one.

    apt-get install python3-gammu
    python3 -m venv --system-site-packages VENV      # of /usr/bin/python3, which sees gammu
    VENV/bin/pip install smspdudecoder==2.2.0 'bitstring<5' python-gsmmodem-new==0.13.0 \\
        gsmcodecs==1.0.0 phonenumbers==9.0.43
    TZ=UTC VENV/bin/python tests/sms/make_vectors.py

deliver.txt   gammu writes; smspdudecoder reads, and what the two do not agree about is left out (counted in the file)
submit.txt    python-gsmmodem-new writes (one tool: gammu's SUBMIT has a fixed validity)
alphabets.txt gsmcodecs: all national language tables (one tool here; the other one that was compared when the tables
              were made is lib3gpp23038 at 40f1956, see alphabets in main.rs)
numbers.txt   phonenumbers: the example number of each region, as it is written there
"""

import datetime
import importlib.metadata
import io
import json
import pathlib
import random

import gammu
import gsmcodecs  # noqa: F401, registers its codecs
import phonenumbers
from gsmmodem import pdu as gsmmodem
from smspdudecoder.fields import SMSDeliver

HERE = pathlib.Path(__file__).parent / "vectors"
RANDOM = random.Random(23040)

GSM = (
    "@£$¥èéùìòÇ\nØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡"
    "ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION = "^{}\\[~]|€"
TEXTS = [
    "Hello",
    "1234567",
    "1234567@",
    "12345678",
    "",
    "Grüße aus Köln, 5 € bitte {sofort} [jetzt]",
    "Ça va? Où êtes-vous",
    "Привет, как дела?",
    "你好，世界",
    "😀 emoji 👨‍👩‍👧 family",
    "a" * 160,
    "a" * 161,
    "é" * 306,
    "€" * 80,
    "€" * 81,
    "x" + "€" * 160,
    "ж" * 70,
    "ж" * 71,
    "😀" * 35,
    "😀" * 36,
    "x" + "😀" * 70,
    "Line one\nline two\n",
]


def version(name):
    return f"{name} {importlib.metadata.version(name)}"


def texts():
    yield from TEXTS
    for _ in range(60):
        length = RANDOM.choice([1, 7, 8, 20, 100, 155, 160, 200, 310, 400])
        yield "".join(RANDOM.choice(GSM + EXTENSION) for _ in range(length))
    for _ in range(40):
        length = RANDOM.choice([1, 20, 66, 67, 70, 71, 134, 200])
        yield "".join(RANDOM.choice("жЩя你好한글😀🚀aé ") for _ in range(length))


def fits_gsm(text):
    return all(c in GSM or c in EXTENSION for c in text)


def deliver():
    lines, left_out = [], 0
    for number, text in enumerate(texts()):
        kind = "ConcatenatedTextLong16bit" if number % 2 else "ConcatenatedTextLong"
        entry = {"ID": kind, "Buffer": text}
        parts = gammu.EncodeSMS({"Class": -1, "Unicode": not fits_gsm(text), "Entries": [entry]})
        sender = RANDOM.choice(["+491711234567", "+447700900123", "12345", "+12125550123", "+393401234567"])
        time = datetime.datetime(2026, RANDOM.randint(1, 12), RANDOM.randint(1, 28), RANDOM.randint(0, 23), 59, 7)
        made = []
        for part in parts:
            part.update(Type="Deliver", Number=sender, DateTime=time, SMSC={"Number": "+49171076000"})
            made.append(gammu.EncodePDU(part, "Deliver").hex())
        read = []
        for pdu in made:
            try:
                read.append(SMSDeliver.decode(io.StringIO(pdu.upper()))["user_data"]["data"])
            except Exception as error:  # what a foreign program throws
                read.append(f"({error!r})")
        # It does not join surrogates that gammu splits.
        if "".join(read) != text:
            left_out += 1
            continue
        stamp = int(time.replace(tzinfo=datetime.timezone.utc).timestamp())
        lines.append("\t".join([",".join(made), sender, str(stamp), json.dumps(text)]))
    head = [
        f"# gammu {gammu.Version()[2]} (python-gammu {gammu.Version()[1]}), agreed to by {version('smspdudecoder')}",
        f"# {len(lines)} messages; {left_out} left out because the two do not agree",
        "# PDUs of the parts, sender, seconds since 1970, text as JSON",
    ]
    (HERE / "deliver.txt").write_text("\n".join(head + lines) + "\n")


def submit():
    lines = []
    for number, text in enumerate(texts()):
        days = RANDOM.choice([None, 1, 3, 14])
        arguments = {"requestStatusReport": number % 2 == 0, "reference": number % 256}
        if days:
            arguments["validity"] = datetime.timedelta(days=days)
        # An empty text and a surrogate at a boundary are beyond it.
        if not text or any(ord(c) > 0xFFFF for c in text):
            continue
        try:
            made = gsmmodem.encodeSmsSubmitPdu("+447700900123", text, **arguments)
        except ValueError:
            continue
        pdus = ",".join(bytes(part.data).hex() for part in made)
        report = "report" if arguments["requestStatusReport"] else "-"
        seconds = str(days * 86400) if days else "-"
        lines.append("\t".join([pdus, "+447700900123", seconds, report, json.dumps(text)]))
    head = [f"# {version('python-gsmmodem-new')}", "# PDUs, recipient, validity in seconds, report, text as JSON"]
    (HERE / "submit.txt").write_text("\n".join(head + lines) + "\n")


def alphabets():
    lines = []
    for language in range(14):
        for kind, prefix, name in [
            ("locking", b"", f"gsm23.038-{language}-0"),
            ("single", b"\x1b", f"gsm23.038-0-{language}"),
        ]:
            units = []
            for septet in range(128):
                try:
                    character = (prefix + bytes([septet])).decode(name) if septet != 0x1B else ""
                except UnicodeError:
                    character = ""
                units.append(f"{ord(character):x}" if character else "-")
            lines.append(f"{language}\t{kind}\t{' '.join(units)}")
    head = [f"# {version('gsmcodecs')}", "# language identifier, table, characters by septet; - is none"]
    (HERE / "alphabets.txt").write_text("\n".join(head + lines) + "\n")


def numbers():
    lines = []
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        example = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
        if example is None:
            continue
        as_digits = lambda form: "".join(c for c in phonenumbers.format_number(example, form) if c.isdigit())
        national = as_digits(phonenumbers.PhoneNumberFormat.NATIONAL)
        international = as_digits(phonenumbers.PhoneNumberFormat.E164)
        lines.append(f"{region}\t{national}\t+{international}")
    head = [f"# {version('phonenumbers')}", "# region, mobile number as written there, the same as E.164"]
    (HERE / "numbers.txt").write_text("\n".join(head + lines) + "\n")


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    deliver()
    submit()
    alphabets()
    numbers()

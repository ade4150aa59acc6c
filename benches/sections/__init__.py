"""The parts of benches/run: each measures something and adds rows to the report."""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench_site import ROOT
from report import Row
from trial import Skip

BENCHES = Path(__file__).resolve().parent.parent
SECTIONS = {}
# Without a word for so long, something else says that work goes on.
SILENCE = 20


class Missing(Exception):
    """Why something cannot be measured here."""


def section(name, what):
    """`name`: what --only takes."""
    def register(function):
        SECTIONS[name] = (what, function)
        return function

    return register


class Bench:
    """What is measured with, and what was measured."""

    def __init__(self, program, device_program, quick):
        self.program, self.device_program, self.quick = program, device_program, quick
        self.rows, self.series, self.tables = [], {}, {}
        self.section = ""
        self.began = time.monotonic()
        self.last_word = self.began
        self.folders, self.kept_stores = [], None

    def either(self, quick, full):
        """How much of something the kind of run allows."""
        return quick if self.quick else full

    def say(self, text):
        """Progress; the standard output is for the tables."""
        self.last_word = time.monotonic()
        print(f"{self.last_word - self.began:7.0f} s  {self.section:<11} {text}", file=sys.stderr, flush=True)

    def row(self, what, measured, unit="", **more):
        row = Row(self.section, what, measured, unit, **more)
        self.rows.append(row)
        self.say(" | ".join(cell for cell in row.cells() if cell))

    def missing(self, what, reason):
        self.row(what, None, reason=" ".join(str(reason).split())[:300])

    def measure(self, names):
        """One after the other; one that fails leaves a row that says so."""
        for name in names:
            what, function = SECTIONS[name]
            self.section = name
            self.say(what)
            try:
                function(self)
            except KeyboardInterrupt:
                for left in names[names.index(name):]:
                    self.section = left
                    self.missing(SECTIONS[left][0], "interrupted")
                return
            except (Missing, Skip, SystemExit) as reason:
                self.missing(what, reason)
            # Whatever breaks in one section, the others are measured and the tables are printed.
            except Exception as error:
                self.missing(what, f"{type(error).__name__}: {error}")

    def folder(self, parent):
        """A folder that is there until the end."""
        self.folders.append(Path(tempfile.mkdtemp(prefix="bench-run-", dir=parent)))
        return self.folders[-1]

    def close(self):
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)

    def command(self, *command):
        """Runs something whose output is progress; gives its exit code and what it said last."""
        child = subprocess.Popen([str(part) for part in command], cwd=ROOT, text=True, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        ended = threading.Event()
        ticker = threading.Thread(target=self.tick, args=(ended,))
        ticker.start()
        last = ""
        try:
            for line in child.stdout:
                if line.strip():
                    last = line.strip()
                    self.say("  " + line.rstrip())
            return child.wait(), last
        finally:
            ended.set()
            ticker.join()
            if child.poll() is None:
                child.terminate()
                child.wait()

    def tick(self, ended):
        while not ended.wait(1):
            if time.monotonic() - self.last_word > SILENCE:
                self.say("  …")

    def figures(self, *command):
        """Runs something that writes its figures to the file behind --json, which is added to the command."""
        with tempfile.TemporaryDirectory(prefix="figures-", dir=ROOT / "target") as folder:
            file = Path(folder) / "figures.json"
            code, last = self.command(*command, "--json", file)
            if not file.exists():
                raise Missing(last or f"{Path(str(command[0])).name} ended with {code}")
            return json.loads(file.read_text())

    def script(self, name, *arguments):
        """The same with one of the scripts beside this; 1 is what they end with above a limit."""
        path = BENCHES / name
        if not path.exists():
            raise Missing(f"there is no benches/{name}")
        return self.figures(path, *arguments)

    def rust(self, name, *arguments):
        """The same with one of cargo's benches, in the profile that the program has."""
        return self.figures("cargo", "bench", "-q", "--profile", "e2e", "--bench", name, "--", *arguments)

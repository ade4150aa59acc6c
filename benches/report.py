"""Rows of figures, their verdicts, and what they are printed and written as."""

import dataclasses
import datetime
import math
import os
import platform
import statistics
import subprocess
from pathlib import Path

from bench_site import ROOT

MET, MISSED, ABSENT = "met", "missed", "not measured"


@dataclasses.dataclass
class Row:
    """One figure. `held` is what `limit` applies to when that is not `measured` itself, a ratio mostly."""

    section: str
    what: str
    measured: float | None = None
    unit: str = ""
    limit: float | None = None
    # "most" or "least".
    sense: str | None = None
    held: float | None = None
    # What `held` counts, behind the limit's number.
    held_unit: str = ""
    # Other figures of the same run: [{"what", "value", "unit"}].
    yardstick: list = dataclasses.field(default_factory=list)
    verdict: str = ""
    reason: str = ""

    def __post_init__(self):
        if self.measured is None:
            self.verdict = ABSENT
        elif self.limit is not None:
            compared = self.measured if self.held is None else self.held
            good = compared <= self.limit if self.sense == "most" else compared >= self.limit
            self.verdict = MET if good else MISSED

    def cells(self):
        unit = self.held_unit if self.held is not None else self.unit
        limit = f"at {self.sense} {quantity(self.limit, unit)}" if self.limit is not None else ""
        if self.measured is None:
            measured = ""
        else:
            measured = quantity(self.measured, self.unit)
            if self.held is not None:
                measured += f" = {quantity(self.held, unit)}"
        beside = ", ".join(f"{one['what']}: {quantity(one['value'], one['unit'])}" for one in self.yardstick)
        verdict = {MISSED: "**missed**", ABSENT: f"not measured: {self.reason}"}.get(self.verdict, self.verdict)
        return [self.what, measured, limit, beside, verdict]


def number(value):
    """Three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def quantity(value, unit):
    """`unit` begins with a slash or a percent sign where no space belongs."""
    gap = "" if not unit or unit.startswith("/") else " "
    return f"{number(value)}{gap}{unit}"


def markdown(head, rows):
    """A table of texts, its columns aligned for a terminal."""
    cells = [head, ["---"] * len(head), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    cells[1] = ["-" * width for width in widths]
    lines = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(f"| {line} |" for line in lines)


def percentiles(values):
    """p50, p95 and p99; the largest stands for a percentile that so few values do not have."""
    ordered = sorted(values)
    return {share: ordered[min(len(ordered) - 1, math.ceil(len(ordered) * share / 100) - 1)] for share in (50, 95, 99)}


def median(values):
    return statistics.median(values)


def said(*command):
    """What a command prints; empty when it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def meta(program, state_folder):
    """Where and on what the figures were taken."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": said("git", "rev-parse", "--short", "HEAD"),
        "changed": bool(said("git", "status", "--porcelain", "--untracked-files=no")),
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "file_system": said("findmnt", "-no", "FSTYPE", "-T", str(state_folder)),
        # Cargo names the folder after it.
        "profile": program.resolve().parent.name,
        "load": [round(one, 2) for one in os.getloadavg()],
    }


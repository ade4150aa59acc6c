#!/bin/bash
# benches/run works, and what it writes is complete. Not what it measures: other machines are slow or busy.
#
# `PIPEPOST=target/debug/pipepost` takes a program that is built already. Prints SKIP with the reason and ends with 77
# where a tool is missing or Python packages cannot be fetched.
. "$(dirname "$0")/support/script.sh"

need python3 mosquitto

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
benches/run --list >"$folder/list.log" 2>&1 ||
    skip "no environment for the benches: $(tail -n 1 "$folder/list.log")"
if [ -z "${PIPEPOST:-}" ]; then
    cargo build --locked --quiet
    PIPEPOST=target/debug/pipepost
fi

fail() {
    tail -n 30 "$folder"/*.log
    echo "FAIL: $*"
    exit 1
}

measure() {
    local name=$1
    shift
    timeout 240 benches/run --quick --program "$PIPEPOST" --json "$folder/$name.json" "$@" \
        >"$folder/$name.md" 2>"$folder/$name.log"
}

# Without limits there is nothing to miss.
measure trickle --only latency || fail "benches/run --only latency ended with $?"
# A program that is not there costs its own section only, and the end is not a success.
code=0
measure broken --only footprint,drain --device-program "$folder/nowhere" || code=$?
[ "$code" -eq 1 ] || fail "benches/run without a device program ended with $code"

python3 - "$folder" <<'END' || fail "see above"
import json, pathlib, sys

folder = pathlib.Path(sys.argv[1])
FIELDS = {"section", "what", "measured", "unit", "limit", "sense", "held", "held_unit", "yardstick", "verdict", "reason"}
META = {"date", "commit", "changed", "cpu", "cores", "kernel", "file_system", "profile", "load", "run"}


def read(name):
    written = json.loads((folder / f"{name}.json").read_text())
    assert set(written["meta"]) == META, written["meta"]
    assert all(written["meta"][key] not in ("", None) for key in META), written["meta"]
    shown = (folder / f"{name}.md").read_text()
    for row in written["rows"]:
        assert set(row) == FIELDS, row
        assert f"| {row['what']} " in shown, row
        assert (row["measured"] is None) == bool(row["reason"]) == (row["verdict"] == "not measured"), row
        assert (row["limit"] is None) == (row["verdict"] in ("", "not measured")), row
    assert shown.count("| verdict") == 1, shown
    return written


trickle = read("trickle")
assert len(trickle["rows"]) == 6, trickle["rows"]
assert all(row["measured"] > 0 for row in trickle["rows"])
assert [len(samples) for samples in trickle["series"].values()] == [200, 50]
for row in trickle["rows"]:
    assert row["yardstick"] or not row["what"].endswith("p50"), row

broken = read("broken")
assert [row["section"] for row in broken["rows"]] == ["footprint", "drain", "drain", "drain"], broken["rows"]
assert "nowhere" in broken["rows"][0]["reason"], broken["rows"][0]
assert broken["rows"][1]["yardstick"] and broken["rows"][1]["held"] > 0, broken["rows"][1]
assert broken["rows"][2]["measured"] == 0, "calls were refused with 429"
END

"""What other scripts of this folder measure."""

from report import quantity

from . import Missing, section


@section("listener", "a page of a conversation to 64 TLS connections")
def listener(bench):
    done = bench.rust("listener")
    bench.row("listener, first page of a conversation", max(one["per_s"] for one in done["rounds"]), "/s", limit=0.5,
              sense="least", held=done["of_nginx"], held_unit="× nginx", yardstick=[
                  {"what": "nginx with the same bytes", "value": max(one["nginx_per_s"] for one in done["rounds"]),
                   "unit": "/s"}])
    bench.row("the same, slowest of a hundred (p99)", done["p99_ms"], "ms", limit=50, sense="most", yardstick=[
        {"what": "nginx", "value": max(one["nginx_p99_ms"] for one in done["rounds"]), "unit": "ms"}])


@section("footprint", "the program on a device: its size, and its memory while idle")
def footprint(bench):
    given = ("--device", bench.device_program) if bench.device_program else ()
    done = bench.script("footprint", "--simulators", bench.program, *given,
                        "--messages", bench.either(2000, 10000), "--texts", bench.either(200, 1000))

    def own(key):
        return [{"what": "of it its own (RssAnon)", "value": done[key], "unit": "MB"}]

    bench.row("stripped device binary", done["binary_mb"], "MB", limit=6, sense="most")
    bench.row("device program idle, MQTT", done["idle_mb"], "MB", limit=8, sense="most", yardstick=own("idle_anon_mb"))
    bench.row("device program idle, one modem", done["modem_idle_mb"], "MB", limit=12, sense="most",
              yardstick=own("modem_idle_anon_mb"))
    bench.row(f"device program after {done['messages']} messages", done["after_messages_mb"], "MB",
              yardstick=own("after_messages_anon_mb"))
    bench.row(f"device program after {done['texts']} texts", done["after_texts_mb"], "MB",
              yardstick=own("after_texts_anon_mb"))


PEERS = (("msg_per_s", "messages/s"), ("rss_idle_mb", "idle MB"), ("rss_load_mb", "load MB"),
         ("cpu_s_per_1000", "CPU s per 1,000"), ("killed_lost", "killed: lost"), ("killed_twice", "killed: twice"),
         ("http_down_lost", "HTTP down 3 s: lost"), ("http_down_twice", "HTTP down 3 s: twice"),
         ("sent_per_s", "answers/s"))


@section("peers", "the same work by what people use instead")
def peers(bench):
    done = bench.script("peers/run", "--program", bench.program, *bench.either(("--quick",), ()))
    rows = []
    for one in done:
        if "skipped" in one:
            bench.missing(one["name"], one["skipped"])
        else:
            figures = ["" if one.get(key) is None else quantity(one[key], "") for key, _ in PEERS]
            rows.append([one["name"], *figures, one.get("note") or ""])
    for what, keys in (("lost", ("killed_lost", "http_down_lost")), ("twice", ("killed_twice", "http_down_twice"))):
        ours = [one.get(key) for one in done if one["name"].startswith("pipepost") for key in keys]
        if None in ours:
            bench.missing(f"pipepost, killed and without Pipedrive: {what}", "see its note")
        else:
            bench.row(f"pipepost, killed and without Pipedrive: {what}", sum(ours), limit=0, sense="most")
    bench.tables["What people would use instead"] = (["", *(head for _, head in PEERS), "note"], rows)
    bench.series["peers"] = done


@section("faults", "what the gateway survives")
def faults(bench):
    names = bench.either(("kill", "pipedrive-5xx", "broker-restart"), ())
    done = bench.script("faults", *names, "--seconds", bench.either(3, 5), "--program", bench.program)
    if not done:
        raise Missing("no fault could be tried")
    tried = [one for one in done if "skipped" not in one]
    for one in done:
        if "skipped" in one:
            bench.missing(f"fault {one['fault']}", one["skipped"])

    def shown(value, unit=""):
        return "" if value is None else quantity(value, unit)

    bench.tables["Faults"] = (["fault", "injected", "lost", "twice", "recovered"], [
        [one["fault"], one["injected"], shown(one["lost"]), shown(one["twice"]), shown(one["recovered_s"], "s")]
        for one in tried])
    bench.series["faults"] = done
    broken = [one["fault"] for one in tried if one["lost"] is None]
    if broken:
        bench.missing("faults that were broken off", ", ".join(broken))
    # What a damaged file has lost is bounded, and listed by the gateway; nothing else may lose anything.
    whole = [one for one in tried if one["lost"] is not None and one["fault"] != "corrupted-store"]
    for what in ("lost", "twice"):
        bench.row(f"{what} in {len(whole)} faults", sum(one[what] for one in whole), limit=0, sense="most")

"""The tables of docs/hosts.md and of the README, from records."""

from pathlib import Path

from calls.peers import OURS

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- whole calls: benchmarks/whole_calls.py --write -->", "<!-- end -->"
TIMES = "\N{MULTIPLICATION SIGN}"
NO_GAIN = 1.05  # less is none
ALLOWED = {"highest": 1e-3, "high": 1e-2, "medium": 1.0}  # a peer with a larger error computes something else


def text(record):
    """A call's table as it is printed."""
    ours = record["peers"].get(OURS, {}).get("min")
    lines = [f"{record['call']}"]
    for peer, found in record["peers"].items():
        if "failed" in found:
            lines.append(f"  {peer:16s} {found['failed']}")
            continue
        ratio = f"ratio {found['min'] / ours:6.2f}" if ours else ""
        times = f"min {1e3 * found['min']:10.1f}  median {1e3 * found['median']:10.1f}  {ratio}"
        lines.append(f"  {peer:16s} {times}  error {scientific(found['error'])}  {found['version']}")
    return "\n".join(lines)


def scientific(error):
    return "?" if error is None else "0" if error == 0 else f"{error:.0e}".replace("e-0", "e-")


def best_peer(record):
    """Of those that compute the same: the name and what was found."""
    peers = {
        name: found
        for name, found in record["peers"].items()
        if name != OURS and "min" in found and (found["error"] or 0) <= ALLOWED[record["precision"]]
    }
    return min(peers.items(), key=lambda pair: pair[1]["min"]) if peers else None


def ratio(record):
    best, ours = best_peer(record), record["peers"].get(OURS, {}).get("min")
    return best[1]["min"] / ours if best and ours else None


def shown(r):
    return "" if r is None else f"**{r:.1f}{TIMES}**" if r >= 1.5 else f"{r:.2f}{TIMES}"


def seconds(t):
    return f"{t:.2f} s" if t >= 1 else f"{1e3 * t:.0f} ms" if t >= 0.1 else f"{1e3 * t:.1f} ms"


def whole(records):
    """docs/hosts.md: a table a precision, number of threads and machine; below it what gains nothing."""
    lines = []
    for title, group in grouped(records).items():
        lines += [
            f"### {title}",
            "",
            "| host | call | best peer | ours | ratio | error | the peer's |",
            "| --- " * 7 + "|",
        ]
        for r in group:
            if ratio(r) is None:
                continue
            peer, found = best_peer(r)
            ours = r["peers"][OURS]
            numbers = f"{peer} {seconds(found['min'])} | {seconds(ours['min'])} | {shown(ratio(r))}"
            errors = f"{scientific(ours['error'])} | {scientific(found['error'])}"
            lines.append(f"| {r['host']} | {r['call']} | {numbers} | {errors} |")
        idle = [f"{r['host']} ({r['call']})" for r in group if ratio(r) is not None and ratio(r) < NO_GAIN]
        lines += ["", f"Gain nothing: {'; '.join(idle)}." if idle else "All of them gain.", ""]
    return "\n".join(lines).strip()


def grouped(records):
    found = {}
    for r in records:
        versions = ", ".join(f"{name} {v}" for name, v in r["versions"].items() if name != "fastprompt")
        clock = "1 thread, CPU time" if r["threads"] == 1 else f"{r['threads']} threads"
        engine = f"{r['isa']}, bf16 by {r['bf16']}"
        found.setdefault(f'"{r["precision"]}", {clock}; {r["cpu"]} ({engine}); {versions}', []).append(r)
    return found


COLUMNS = {"encode": "picture", "click": "click", "frame, 1 object": "frame, 1 object", "frame, 3 objects": "3 objects"}


def first(records):
    """README: a row a host, float32, on the machine that was measured last, with the most threads there."""
    records = [r for r in records if r["precision"] == "highest" and ratio(r) is not None]
    threads = max(r["threads"] for r in records if r["cpu"] == records[-1]["cpu"])
    records = [r for r in records if r["cpu"] == records[-1]["cpu"] and r["threads"] == threads]
    rows = {}
    for r in records:
        rows.setdefault(r["host"], {})[r["call"]] = shown(ratio(r))
    machine = f"{records[-1]['cpu']} ({records[-1]['isa']})"
    error = scientific(max(r["peers"][OURS]["error"] or 0 for r in records))
    lines = [
        "How many times sooner a whole call is than with the fastest of the host (eager, sdpa), torch.compile,",
        f"ONNX Runtime and OpenVINO: float32, {threads} threads, {machine}, one run; errors up to {error}.",
        "",
        f"| host | {' | '.join(COLUMNS.values())} |",
        "| --- " * (1 + len(COLUMNS)) + "|",
    ]
    lines += [f"| {host} | {' | '.join(found.get(call, '') for call in COLUMNS)} |" for host, found in rows.items()]
    return "\n".join(lines)


def write(records):
    """Put the tables between their marks."""
    records = [r for r in records if not r["small"] and r["all_peers"]]
    if not any(r["precision"] == "highest" and ratio(r) is not None for r in records):
        print("nothing that was measured whole is known: no table is written")
        return 1
    for name, table in (("docs/hosts.md", whole(records)), ("README.md", first(records))):
        path = ROOT / name
        before, _, rest = path.read_text("utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        path.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", "utf-8")
        print(f"wrote {name}")
    return 0

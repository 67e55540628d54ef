"""The file of a run, and the tables made of such files."""

import json
import os
import platform
from datetime import datetime, timezone
from pathlib import Path

BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"


def machine(data_dir):
    """What was measured on."""
    info = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    cpu = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "unknown")
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [mount for mount in mounts if os.path.realpath(data_dir).startswith(mount[0])]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu,
        "memory_mib": memory,
        "kernel": platform.release(),
        "data_file_system": max(inside, key=lambda mount: len(mount[0]))[1],
        "load_before": os.getloadavg()[0],
    }


def document(server, options, data_dir):
    return {
        "format": "helve-peers",
        "version": 1,
        "started_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": options.seconds,
        "backlog": options.backlog,
        "machine": machine(data_dir),
        "postgres": server.described(),
        "results": [],
        "not_run": {},
    }


def sound(one):
    return not one["not_run"] and not any(r["failed"] or r["unsound"] for r in one["results"])


def read(files):
    documents = []
    for file in files:
        one = json.loads(Path(file).read_text(encoding="utf-8"))
        if one.get("format") != "helve-peers" or one.get("version") != 1:
            raise SystemExit(f"{file} was not written by this program")
        documents.append(one)
    return documents


def cell(result, phase, show):
    if phase in result["failed"]:
        return "failed"
    if phase not in result["phases"]:
        return "-"
    mark = " (!)" if phase in result["unsound"] else ""
    return show(result["phases"][phase]) + mark


def latency(floor, which):
    def show(figures):
        # A percentile of few samples is a story, not a figure.
        if which not in figures or (which == "p99_ms" and figures.get("samples", 1000) < 100):
            return "-"
        value = figures[which]
        return f"{value:,.{2 if value < 100 else 0}f} ms, {value / floor:,.{1 if value < 100 * floor else 0}f}x"

    return show


def rate(floor):
    def show(figures):
        ratio = figures["per_second"] * floor / 1000
        return f"{figures['per_second']:,.0f}, {ratio:,.{2 if ratio >= 0.01 else 3}f}x"

    return show


def name(result):
    return f"{result['label']}, {result['variant_label']}"


def latencies(results):
    rows = ["| | the floor, p50 | start, p50 | start, p99 | round trip, p50 |", "|---|---|---|---|---|"]
    for result in results:
        floor = result["floor"]["p50_ms"]
        cells = [
            f"{floor:.3f} ms",
            cell(result, "start", latency(floor, "p50_ms")),
            cell(result, "start", latency(floor, "p99_ms")),
            cell(result, "round-trip", latency(floor, "p50_ms")),
        ]
        if any(text != "-" for text in cells[1:]):
            rows.append(f"| {name(result)} | {' | '.join(cells)} |")
    return rows


def rates(results):
    rows = [
        "| | 8 clients | 64 clients | 256 clients | backlog, 100 slots | backlog, one slot | WAL a task |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        show = rate(result["floor"]["p50_ms"])
        phases = ("throughput 8", "throughput 64", "throughput 256", "drain", "one-slot")
        cells = [cell(result, phase, show) for phase in phases]
        wal = lambda figures: f"{figures['wal_bytes_per_task']:,.0f} B" if "wal_bytes_per_task" in figures else "none"
        cells.append(cell(result, "throughput 64", wal))
        if any(text != "-" for text in cells):
            rows.append(f"| {name(result)} | {' | '.join(cells)} |")
    return rows


def described(documents):
    first = documents[0]
    where, postgres = first["machine"], first["postgres"]
    settings = postgres["settings"]
    count = "One run" if len(documents) == 1 else f"{len(documents)} runs"
    return [
        f"{where['cores']} cores ({where['cpu']}), {where['memory_mib'] / 1024:.0f} GiB, Linux {where['kernel']}, data on"
        f" {where['data_file_system']}; PostgreSQL {postgres['version']} over a unix socket,"
        f" fsync {settings['fsync']}, synchronous_commit {settings['synchronous_commit']}, full_page_writes"
        f" {settings['full_page_writes']}, shared_buffers {settings['shared_buffers']}. {count}"
        f" from {first['started_at'][:16].replace('T', ' ')} UTC on, {first['seconds']} s a figure, backlogs of"
        f" {first['backlog']:,}.",
        "",
    ]


def setups(results):
    rows = {name(result): f"| {name(result)} | {result['version']} | {result['how']} |" for result in results}
    return ["", "| | version | set up |", "|---|---|---|", *rows.values()]


def troubles(documents):
    told = []
    for one in documents:
        told += [f"- **{peer}** did not run: {why.splitlines()[0]}" for peer, why in one["not_run"].items()]
        for result in one["results"]:
            for phase, why in result["unsound"].items():
                told.append(f"- **{name(result)}**, {phase}: accepted and executed differ: {why}")
            for phase, why in result["failed"].items():
                told.append(f"- **{name(result)}**, {phase} failed: {why.splitlines()[0]}")
    return ["", *told] if told else ["", "Every accepted task was executed once, and stored as done, in every figure."]


def tables(documents):
    """Markdown: what one or more runs measured, in their order: what was measured twice stands there twice."""
    results = [result for one in documents for result in one["results"]]
    lines = described(documents) + latencies(results) + [""] + rates(results) + troubles(documents) + setups(results)
    return "\n".join(lines)


def paste(file, text):
    """Puts the tables between the markers of a page."""
    page = Path(file).read_text(encoding="utf-8")
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise SystemExit(f"{file} lacks the lines {BEGIN} and {END}")
    head, rest = page.split(BEGIN)
    Path(file).write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")

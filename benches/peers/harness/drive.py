"""Runs phases of peers, one process each, and reads what they measured."""

import json
import os
import signal
import subprocess
import sys

from install import command

# A phase fills a backlog, drains it and stops; what takes longer is ended.
PHASE_TIMEOUT = 180
FLOOR_SECONDS = 2


def progress(text):
    print(text, file=sys.stderr, flush=True)


def percentile(samples, share):
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def floor_of(samples):
    return {"samples": len(samples), "p50_ms": percentile(samples, 0.5), "p99_ms": percentile(samples, 0.99)}


def ended(child):
    """Ends what we started, with everything that it started: they are a process group of their own."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def run_phase(program, phase, environment, log):
    """What the driver printed as its last line."""
    with open(log, "ab") as errors:
        child = subprocess.Popen(
            [*program, *phase.split()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **environment},
            text=True,
            start_new_session=True,
        )
    try:
        out, _ = child.communicate(timeout=PHASE_TIMEOUT + 20)
    except subprocess.TimeoutExpired as late:
        raise RuntimeError(f"{phase} did not end within {PHASE_TIMEOUT} s") from late
    finally:
        ended(child)
    if child.returncode != 0:
        with open(log, encoding="utf-8", errors="replace") as lines:
            tail = "".join(lines.readlines()[-12:])
        raise RuntimeError(f"{phase} ended with {child.returncode}:\n{tail}")
    return json.loads(out.strip().splitlines()[-1])


def fault(figures, unfinished):
    """Why the counts do not agree; None: every accepted task was executed once, and is stored as done."""
    wrong = [f"{figures[name]} {name}" for name in ("missing", "twice", "foreign") if figures[name]]
    if figures["executed"] != figures["accepted"]:
        wrong.append(f"{figures['accepted']} accepted and {figures['executed']} executed")
    if unfinished:
        wrong.append(f"{unfinished} not stored as done")
    return ", ".join(wrong) or None


class Runner:
    """One server for all; a fresh database for each variant of each peer."""

    def __init__(self, server, scratch, options):
        self.server, self.scratch, self.options = server, scratch, options

    def measure(self, peer):
        """All variants of a peer. A phase that fails is told, and the next goes on."""
        program, version = command(peer, self.scratch)
        progress(f"{peer.label} {version}")
        variants = [v for v in peer.variants if not (self.options.quick and v is not peer.variants[0])]
        return [self.variant(peer, version, variant, program) for variant in variants]

    def variant(self, peer, version, variant, program):
        database = f"{peer.name}_{variant.key}".replace("-", "_")
        self.server.create(database)
        result = {"peer": peer.name, "label": peer.label, "version": version, "variant": variant.key}
        result |= {"variant_label": variant.label, "how": variant.how, "phases": {}, "failed": {}, "unsound": {}}
        environment = {
            "PEER_URL": self.server.url(database),
            "PEER_VARIANT": variant.key,
            "PEER_DATA": str(self.server.dir / "peers"),
            "PEER_BACKLOG": str(self.options.backlog),
            "PEER_TIMEOUT": str(PHASE_TIMEOUT),
        }
        floor = self.server.floor(FLOOR_SECONDS)
        for phase in ("setup", *(p for p in variant.phases if p in self.options.phases)):
            seconds = self.options.seconds * (variant.patience if phase == "start" else 1)
            try:
                self.phase(peer, phase, program, {**environment, "PEER_SECONDS": str(seconds)}, database, result)
            except (RuntimeError, ValueError, subprocess.SubprocessError) as error:
                result["failed"][phase] = str(error)
                progress(f"  {variant.label}: {phase} FAILED: {error}")
                if phase == "setup":
                    break
        floor += self.server.floor(FLOOR_SECONDS)
        result["floor"] = floor_of(floor)
        return result

    def phase(self, peer, phase, program, environment, database, result):
        begin = self.server.position()
        figures = run_phase(program, phase, environment, self.scratch / f"{database}.log")
        end = self.server.position()
        if phase == "setup":
            return
        unfinished = int(self.server.sql(peer.unfinished, database)) if peer.unfinished else 0
        if peer.unfinished:
            figures["wal_bytes_per_task"] = self.server.wal_bytes(begin, end, database) / max(figures["executed"], 1)
        wrong = fault(figures, unfinished)
        if wrong:
            result["unsound"][phase] = wrong
        result["phases"][phase] = figures
        told = figures.get("per_second") or figures.get("p50_ms") or 0
        unit = "/s" if "per_second" in figures else " ms p50"
        progress(f"  {result['variant_label']}: {phase}: {told:,.2f}{unit}{'; UNSOUND: ' + wrong if wrong else ''}")

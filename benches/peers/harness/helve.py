"""Helve on the same server: driven by its own `helve bench`, over HTTP and WebSocket."""

import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

from drive import FLOOR_SECONDS, ended, floor_of, progress

ROWS = {"start": "start", "round-trip": "round-trip", "drain": "backlog", "one-slot": "one-slot"}
HOW = (
    "`helve serve` as it is, driven by `helve bench`: triggers over HTTP, tasks and results over WebSocket. Closed loops"
    " wait for stored results, and have 4 workers with 100 slots each."
)


class Helve:
    """The engine as a process, with a tenant and a token of its own."""

    def __init__(self, server, program, scratch, options):
        self.server, self.scratch, self.options = server, scratch, options
        self.program = Path(program).resolve()
        if not self.program.is_file():
            raise RuntimeError(f"there is no {self.program}: `cargo build --release`, or say --helve PATH")
        self.database = "helve"
        self.environment = {**os.environ, "DATABASE_URL": server.url(self.database), "HELVE_LOG": "warn"}
        self.engine = None

    def call(self, *words, timeout=60):
        done = subprocess.run(
            [self.program, *words], env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"helve {' '.join(words[:2])} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def start(self):
        self.server.create(self.database)
        self.call("migrate")
        self.call("tenant", "create", "bench")
        made = self.call("token", "create", "--tenant", "bench", "--scopes", "read,write,worker", "--json")
        self.environment["HELVE_TOKEN"] = json.loads(made)["token"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        with open(self.scratch / "helve.log", "wb") as log:
            self.engine = subprocess.Popen(
                [self.program, "serve", "--listen", f"127.0.0.1:{port}"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=1):
                    return
            except OSError as error:
                if time.monotonic() > end or self.engine.poll() is not None:
                    raise RuntimeError(f"helve serve is not ready: {error}") from error
                time.sleep(0.1)

    def stop(self):
        if self.engine is None:
            return
        self.engine.terminate()
        try:
            self.engine.wait(40)
        except subprocess.TimeoutExpired:
            pass
        ended(self.engine)

    def bench(self, rows, *more):
        file = self.scratch / "helve-bench.json"
        words = ["bench", "--url", self.url, "--database-url", self.server.url(self.database), "--only", rows]
        words += ["--seconds", str(self.options.seconds), "--backlog", str(max(self.options.backlog, 1000))]
        self.call(*words, *more, "--json", str(file), timeout=600)
        return json.loads(file.read_text())

    def runs(self):
        """Runs that are stored as done, and those that are not."""
        done = self.server.sql("select count(*) from run_history", self.database)
        return int(done), int(self.server.sql("select count(*) from open_run", self.database))

    def measure(self):
        version = self.call("--version").split()[-1]
        progress(f"Helve {version}")
        result = {"peer": "helve", "label": "Helve", "version": version, "variant": "plain", "variant_label": "defaults"}
        result |= {"how": HOW, "phases": {}, "failed": {}, "unsound": {}}
        floor = self.server.floor(FLOOR_SECONDS)
        try:
            self.start()
            for phase in self.options.phases:
                try:
                    self.phase(phase, result)
                except (RuntimeError, KeyError, subprocess.SubprocessError) as error:
                    result["failed"][phase] = str(error)
                    progress(f"  {phase} FAILED: {error}")
        finally:
            self.stop()
        floor += self.server.floor(FLOOR_SECONDS)
        result["floor"] = floor_of(floor)
        return [result]

    def phase(self, phase, result):
        name, _, clients = phase.partition(" ")
        before, begin = self.runs(), self.server.position()
        document = self.bench(ROWS.get(name, name), *(["--clients", clients] if clients else []))
        end, after = self.server.position(), self.runs()
        figure = {record["name"]: record["value"] for record in document["figures"]}
        done = after[0] - before[0]
        figures = {"accepted": done, "executed": done, "build": document["build"]}
        figures["wal_bytes_per_task"] = self.server.wal_bytes(begin, end, self.database) / max(done, 1)
        if name in ("start", "round-trip"):
            word = "start latency" if name == "start" else "round trip"
            figures |= {"p50_ms": figure[f"{word} p50"], "p99_ms": figure[f"{word} p99"]}
        elif name == "throughput":
            figures["per_second"] = figure[f"throughput, {clients} clients"]
        elif name == "drain":
            figures["per_second"] = figure["backlog drained by 1 worker"]
        else:
            figures["per_second"] = figure["one slot drains a backlog"]
        # Its own ledger compares what was accepted with what workers saw and what is stored.
        if not document["sound"] or after[1]:
            result["unsound"][phase] = f"ledger {'sound' if document['sound'] else 'unsound'}, {after[1]} runs open"
        result["phases"][phase] = figures
        told = figures.get("per_second") or figures["p50_ms"]
        progress(f"  {phase}: {told:,.2f}{'/s' if 'per_second' in figures else ' ms p50'}")

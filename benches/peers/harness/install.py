"""Puts the peers, at the versions that stand in this folder, into a scratch folder."""

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


def fresh(into, names, folder):
    """Copies our own files, and says whether those that pin versions are as they were at the last installation."""
    into.mkdir(parents=True, exist_ok=True)
    pins = "".join((HERE / folder / name).read_text() for name in names)
    for file in (HERE / folder).iterdir():
        shutil.copyfile(file, into / file.name)
    stamp = into / ".installed"
    return stamp, pins, stamp.exists() and stamp.read_text() == pins


def run(command, into, log):
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"{command[0]} is not installed")
    with open(log, "ab") as out:
        done = subprocess.run(command, cwd=into, stdout=out, stderr=out, timeout=600, check=False)
    if done.returncode != 0:
        tail = Path(log).read_text(errors="replace").strip().splitlines()[-8:]
        raise RuntimeError(f"{' '.join(map(str, command[:2]))} failed: " + "\n".join(tail))


def node(scratch):
    """All Node peers in one folder, with the Node.js that they want from the same registry."""
    into = scratch / "node"
    stamp, pins, done = fresh(into, ("package.json", "package-lock.json"), "node")
    if not done:
        run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], into, scratch / "install.log")
        stamp.write_text(pins)
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    shipped = into / "node_modules" / f"node-linux-{machine}" / "bin" / "node"
    return into, str(shipped) if shipped.exists() else "node"


def go(scratch):
    into = scratch / "river"
    stamp, pins, done = fresh(into, ("go.mod", "go.sum", "main.go", "phases.go"), "river")
    if not done:
        run(["go", "build", "-mod=readonly", "-o", "driver", "."], into, scratch / "install.log")
        stamp.write_text(pins)
    return into


def command(peer, scratch):
    """The program that runs a phase, and the version of what it drives."""
    if peer.language == "go":
        into = go(scratch)
        pinned = [line.split() for line in (into / "go.mod").read_text().splitlines()]
        version = next(words[1] for words in pinned if words and words[0] == peer.package)
        return [str(into / "driver")], version.removeprefix("v")
    into, program = node(scratch)
    pinned = json.loads((into / "node_modules" / peer.package / "package.json").read_text())
    return [program, os.fspath(into / f"{peer.name}.mjs")], pinned["version"]

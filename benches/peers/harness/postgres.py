"""A private PostgreSQL with the settings of `helve dev`, and the floor on it."""

import ctypes
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("initdb", "postgres", "psql", "pgbench")
# The floor: one durable single-row INSERT by one client, prepared once. The row has the size of a task's payload.
FLOOR_TABLE = """
create table if not exists floor
    (id bigint generated always as identity primary key, tenant bigint, state smallint, payload bytea)
"""
FLOOR_INSERT = "insert into floor (tenant, state, payload) values (1, 1, decode(repeat('78', 200), 'hex'));\n"


def settings():
    """The same as in crates/postgres/src/cluster.rs for kept data: change both."""
    with open("/proc/meminfo", encoding="ascii") as info:
        megabytes = int(next(line for line in info if line.startswith("MemTotal")).split()[1]) >> 10
    try:
        megabytes = min(megabytes, int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")) >> 20)
    except (OSError, ValueError):
        pass
    return {
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        "max_connections": "200",
        "shared_buffers": f"{min(max(megabytes // 16, 64), 1024)}MB",
        "wal_buffers": "16MB",
        "max_wal_size": f"{4096 if megabytes >= 4096 else 1024}MB",
        "checkpoint_timeout": "15min",
        "autovacuum_naptime": "20s",
        "lc_messages": "C",
        "log_min_messages": "warning",
        "log_min_error_statement": "panic",
        "log_checkpoints": "off",
        "log_timezone": "UTC",
        "timezone": "UTC",
    }


def programs(wanted):
    """The directory that has all programs: the one asked for, else the newest installed one."""
    if wanted:
        found = [wanted]
    else:
        installed = glob.glob("/usr/lib/postgresql/*/bin") + glob.glob("/usr/pgsql-*/bin")
        version = lambda path: int("".join(filter(str.isdigit, path.replace("pgsql", ""))) or 0)
        on_path = shutil.which("initdb")
        found = sorted(installed, key=version, reverse=True) + ([os.path.dirname(on_path)] if on_path else [])
    for directory in found:
        if all(os.access(os.path.join(directory, name), os.X_OK) for name in PROGRAMS):
            return Path(directory)
    raise SystemExit(f"no PostgreSQL with {', '.join(PROGRAMS)} in {', '.join(found) or 'the usual places'}")


def unprivileged():
    """PostgreSQL refuses root: then it runs as `postgres`, else as `nobody`."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        except KeyError:
            continue
    raise SystemExit("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`")


def die_with_parent():
    """In the child: a run that is killed takes the server with it. 1 is PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(1, signal.SIGINT)


class Server:
    """Reached through a unix socket in a private directory, by everybody."""

    def __init__(self, base, bin_dir):
        self.bin = programs(bin_dir)
        who = unprivileged()
        self.dir = Path(tempfile.mkdtemp(prefix="helve-peers-", dir=base))
        self.process = None
        try:
            if who:
                os.chown(self.dir, who["user"], who["group"])
            init = [self.bin / "initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-D", self.data]
            subprocess.run(init, check=True, stdout=subprocess.DEVNULL, cwd="/", **who)
            args = [self.bin / "postgres", "-D", self.data, "-p", "5432", "-k", self.dir]
            for name, value in settings().items():
                args += ["-c", f"{name}={value}"]
            with open(self.dir / "postgres.log", "wb") as log:
                self.process = subprocess.Popen(
                    args, stdout=log, stderr=log, cwd="/", preexec_fn=die_with_parent, start_new_session=True, **who
                )
            self.wait_ready()
        except BaseException:
            self.stop()
            raise

    @property
    def data(self):
        return self.dir / "data"

    def wait_ready(self):
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.sql("select 1")
                return
            except RuntimeError:
                time.sleep(0.1)
        raise RuntimeError(f"PostgreSQL does not start:\n{(self.dir / 'postgres.log').read_text(errors='replace')}")

    def url(self, database):
        """For every client library: those that know no socket in a URL's host take the parameter."""
        return f"postgres://postgres@localhost:5432/{database}?host={self.dir}"

    def sql(self, statement, database="postgres"):
        """The value of a statement, as text."""
        psql = [self.bin / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.dir, "-U", "postgres", "-d", database]
        done = subprocess.run([*psql, "-c", statement], capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise RuntimeError(f"{statement}: {done.stderr.strip()}")
        return done.stdout.strip()

    def create(self, database):
        self.sql(f'drop database if exists "{database}" with (force)')
        self.sql(f'create database "{database}"')
        self.sql("create extension if not exists pg_walinspect", database)
        self.sql("checkpoint")

    def position(self):
        """Of the write-ahead log. A transaction of its own flushes what came before."""
        self.sql("select txid_current()")
        return self.sql("select pg_current_wal_flush_lsn()")

    def wal_bytes(self, begin, end, database):
        """Bytes of the records between two positions, without the full-page images in them."""
        between = f"select sum(record_size)::bigint from pg_get_wal_stats('{begin}', '{end}')"
        return int(self.sql(between, database) or 0)

    def described(self):
        names = "fsync synchronous_commit full_page_writes wal_level wal_compression autovacuum work_mem".split()
        names += [name for name in settings() if not name.startswith(("log_", "lc_"))]
        values = {name: self.sql(f"show {name}") for name in names}
        return {"version": self.sql("show server_version"), "settings": values}

    def floor(self, seconds):
        """Latencies of the floor in milliseconds: one INSERT after the other, for so long."""
        self.sql(FLOOR_TABLE)
        script, log = self.dir / "floor.sql", self.dir / "floor.log"
        script.write_text(FLOOR_INSERT)
        bench = [self.bin / "pgbench", "-n", "-M", "prepared", "-c", "1", "-T", str(seconds), "-f", script]
        bench += ["-l", f"--log-prefix={log}", "-h", self.dir, "-U", "postgres", "postgres"]
        subprocess.run(bench, check=True, capture_output=True, timeout=seconds + 60, cwd=self.dir)
        samples = []
        for path in glob.glob(f"{log}.*"):
            with open(path, encoding="ascii") as lines:
                samples += [int(line.split()[2]) / 1000 for line in lines]
            os.remove(path)
        return samples

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

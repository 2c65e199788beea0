"""One server process to measure: started pinned to cores on a free port, asked for its CPU time and memory, stopped."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from resp import Connection, ReplyError

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
START_S = 10
STOP_S = 20


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_us(pid):
    """CPU time (user and system) of a process so far, in µs; resolution 10 ms."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(after_name[11]) + int(after_name[12])) * TICK_US


def rss_bytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has no VmRSS")


class Kind:
    """A server program and the flags that make it a plain in-memory cache on one port."""

    def __init__(self, name, binary):
        self.name, self.binary = name, str(binary)

    def flags(self, threads):
        """`threads` is how many may do network work."""
        return ["--io-threads", threads]


class RedisKind(Kind):
    """redis-server and what is made like it: without snapshots and append-only file."""

    def flags(self, threads):
        reads = ["--io-threads-do-reads", "yes"] if threads > 1 else []
        return ["--save", "", "--appendonly", "no", "--io-threads", threads, *reads]


class Server:
    """A running server. Use as a context: it is stopped and its folder removed at the end."""

    def __init__(self, kind, cores, threads=1, extra=()):
        self.kind, self.name, self.port = kind, kind.name, free_port()
        self.folder = tempfile.mkdtemp(prefix="slotcast-bench-")
        words = [kind.binary, "--port", self.port, "--bind", "127.0.0.1", "--dir", self.folder, *kind.flags(threads), *extra]
        log = open(Path(self.folder) / "server.log", "w")
        pin = ["taskset", "-c", ",".join(map(str, cores))]
        self.process = subprocess.Popen([*pin, *map(str, words)], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        log.close()
        self.pids = [self.process.pid]

    def __enter__(self):
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.call("PING")
                return self
            except (OSError, ReplyError):
                time.sleep(0.02)
        log = (Path(self.folder) / "server.log").read_text()[-2000:]
        self.__exit__()
        raise RuntimeError(f"{self.kind.binary} did not start:\n{log}")

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, *words):
        with Connection(self.port, timeout=60) as connection:
            return connection.call(*words)

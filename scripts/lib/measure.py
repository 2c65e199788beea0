"""Runs of the load generator beside a server, and what several interleaved rounds of them come to."""

import json
import os
import resource
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from servers import TICK_US, cpu_us

CONNECTIONS = 50
FILL_S = 180
GRACE_S = 30
FOREIGN_LIMIT = 0.10


@dataclass(frozen=True)
class Case:
    """One kind of load."""

    op: str
    value: int
    pipeline: int

    @property
    def name(self):
        return f"{self.op.upper()} {self.value}B p{self.pipeline}"


@dataclass
class Sample:
    """What one run showed. `foreign` is the share of the machine that neither server nor load generator used."""

    throughput: float
    cpu_us: float
    p50_us: float
    p99_us: float
    p999_us: float
    foreign: float


class Load:
    """The load generator, pinned to cores."""

    def __init__(self, binary, cores):
        self.command = ["taskset", "-c", ",".join(map(str, cores)), str(binary)]

    def run(self, port, case, keys, seconds, cluster=False):
        """Gives the generator's report; raises when the server answered anything but success."""
        words = ["--server", f"127.0.0.1:{port}", "--op", case.op, "--value", case.value, "--pipeline", case.pipeline,
                 "--keys", keys, "--connections", CONNECTIONS, "--seconds", seconds, *(["--cluster"] if cluster else [])]
        limit = FILL_S if case.op == "fill" else seconds + GRACE_S
        done = subprocess.run([*self.command, *map(str, words)], capture_output=True, text=True, timeout=limit)
        if done.returncode != 0:
            raise RuntimeError(f"the load generator failed on {case.name}: {done.stderr.strip()}")
        report = json.loads(done.stdout)
        if report["errors"] or not report["operations"]:
            raise RuntimeError(f"{case.name}: {report['errors']} error replies of {report['operations']}, first: {report['first_error']}")
        if report["misses"]:
            raise RuntimeError(f"{case.name}: {report['misses']} keys that had been written were missing")
        return report

    def fill(self, port, keys, value, cluster=False):
        """Writes every key once."""
        report = self.run(port, Case("fill", value, 64), keys, 0, cluster)
        if report["operations"] != keys:
            raise RuntimeError(f"filled {report['operations']} of {keys} keys")


def busy_us():
    """CPU time of the whole machine outside idle, in µs."""
    parts = [int(p) for p in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(parts) - parts[3] - parts[4]) * TICK_US


def children_us():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1_000_000


def sample(load, target, case, keys, seconds, cluster=False):
    """One run against `target` (has `port` and `pids`): its processes' CPU time over the operations it answered."""
    before, busy, own, clock = [cpu_us(pid) for pid in target.pids], busy_us(), children_us(), time.monotonic()
    report = load.run(target.port, case, keys, seconds, cluster)
    elapsed_us = (time.monotonic() - clock) * 1_000_000
    server_us = sum(cpu_us(pid) for pid in target.pids) - sum(before)
    foreign = (busy_us() - busy) - server_us - (children_us() - own)
    return Sample(report["operations"] / report["seconds"], server_us / report["operations"], report["p50_us"],
                  report["p99_us"], report["p999_us"], max(0.0, foreign / (elapsed_us * os.cpu_count())))


def interleaved(load, targets, case, keys, seconds, rounds, cluster=()):
    """Rounds of one run per target, one after the other, the order turning: {target's name: [Sample]}."""
    samples = {target.name: [] for target in targets}
    for turn in range(rounds):
        first = turn % len(targets)
        for target in targets[first:] + targets[:first]:
            samples[target.name].append(sample(load, target, case, keys, seconds, target.name in cluster))
    return samples


@dataclass
class Spread:
    """The median of some rounds, and their smallest and largest."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values):
        return Spread(statistics.median(values), min(values), max(values))

    def text(self, digits=2):
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}..{self.high:.{digits}f})"


def median_of(samples, field):
    return statistics.median(getattr(s, field) for s in samples)


def ratio(ours, theirs, field):
    """Round by round, ours over theirs."""
    return Spread.of([getattr(a, field) / getattr(b, field) for a, b in zip(ours, theirs) if getattr(b, field)] or [float("nan")])

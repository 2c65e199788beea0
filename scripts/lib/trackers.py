"""What clients that cache cost the others: a section of scripts/bench."""

import contextlib
import os
import resource
import subprocess
import time

from measure import Case, Load, ratio, sample
from sections import PIPELINES, rows_of
from servers import Server, cpu_us, rss_bytes

CROWD = 10_000
SUBSCRIBERS = 1_000
FILES = CROWD + 1_000
LIMIT = ("--maxclients", FILES)
IDLE_S = 5
GOAL = 0.9


class Trackers:
    """Clients that track at a server, as long as this is a context."""

    def __init__(self, setup, server, *flags):
        words = [setup.load_binary, "--op", "track", "--server", f"127.0.0.1:{server.port}", "--keys", setup.keys, *flags]
        pin = ["taskset", "-c", str(os.cpu_count() - 1)]
        self.process = subprocess.Popen([*pin, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError(f"clients that track: {self.process.stderr.read().strip()}")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def idle_cpu_percent(pid):
    before, began = cpu_us(pid), time.monotonic()
    time.sleep(IDLE_S)
    return (cpu_us(pid) - before) / (time.monotonic() - began) / 10_000


def beside(setup, servers, load, case, name, *flags):
    """One case: each server without and with the clients that track, in the same round."""
    samples = {label: [] for label in ("slotcast, tracked", "slotcast", "redis, tracked", "redis")}
    for turn in range(setup.rounds):
        for server in servers[turn % 2:] + servers[:turn % 2]:
            samples[server.name].append(sample(load, server, case, setup.keys, setup.seconds))
            with Trackers(setup, server, *flags):
                samples[f"{server.name}, tracked"].append(sample(load, server, case, setup.keys, setup.seconds))
            time.sleep(0.2)
    row = rows_of(f"{case.name}, {name}", samples, ("throughput / slotcast", ">=", GOAL))
    theirs = ratio(samples["redis, tracked"], samples["redis"], "throughput")
    row.notes.append(f"Redis's own throughput tracked / not: {theirs.text()}")
    return row


def memory(setup, kind, connections, *flags):
    """What clients that track and do nothing cost a fresh server: memory for each, CPU together."""
    with Server(kind, [0], extra=LIMIT) as server:
        before, asleep = rss_bytes(server.pids[0]), idle_cpu_percent(server.pids[0])
        with Trackers(setup, server, "--connections", connections, *flags):
            each = (rss_bytes(server.pids[0]) - before) / connections
            busy = idle_cpu_percent(server.pids[0])
    return f"{server.name}: {each / 1024:.1f} KiB for each of {connections:,}; {busy:.1f}% CPU while nothing happens ({asleep:.1f}% without them)"


def tracking(setup):
    """SET while clients track beside SET alone: ten that read a part of the keys again whenever these have changed, ten with BCAST
    for one key of a hundred, 10,000 idle ones that have read other keys."""
    ten = ("--connections", 10)
    ways = [("ten read 0.1% again", (*ten, "--tracked", setup.keys // 1000, "--again"), PIPELINES),
            ("ten read 1% again", (*ten, "--tracked", setup.keys // 100, "--again"), PIPELINES[2:]),
            ("bcast", (*ten, "--mode", "bcast"), PIPELINES),
            ("10,000 idle", ("--connections", CROWD, "--tracked", CROWD * 10, "--first", setup.keys), PIPELINES[1:])]
    cases = [(Case("set", 64, p), name, flags) for name, flags, pipelines in ways for p in pipelines]
    cases = [(case, name, flags) for case, name, flags in cases if setup.wanted("tracking", f"{case.name} {name}")]
    if not cases:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, FILES * 2)), hard))
    load = Load(setup.load_binary, [os.cpu_count() - 1])
    with contextlib.ExitStack() as stack:
        notes = [memory(setup, kind, CROWD, "--tracked", CROWD) for kind in setup.kinds[:2]]
        notes.append(memory(setup, setup.kinds[0], SUBSCRIBERS, "--mode", "stream") + " (subscribers of the stream)")
        servers = [stack.enter_context(Server(kind, [0], extra=LIMIT)) for kind in setup.kinds[:2]]
        for server in servers:
            load.fill(server.port, setup.keys, 64)
        for case, name, flags in cases:
            row = beside(setup, servers, load, case, name, *flags)
            row.notes.extend(notes)
            notes = []
            yield row

"""How soon after a write caches hear of it: a section of scripts/bench."""

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path

from measure import Sample
from sections import rows_of
from servers import Server, cpu_us, rss_bytes

CROWD = 1000
GRACE_S = 60
ROOT = Path(__file__).resolve().parents[2]
PUSH_LATENCY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/examples/push_latency"


class Pushed:
    """One server heard in one way."""

    def __init__(self, name, server, mode):
        self.name, self.server, self.mode = name, server, mode


def peak_rss_bytes(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def measured(setup, pushed, subscribers):
    """One run: times from a write's request to each push of it, and from its acknowledgement to the first subscriber's (negative:
    the push was first); CPU for each write."""
    pid = pushed.server.pids[0]
    words = [PUSH_LATENCY, "--server", f"127.0.0.1:{pushed.server.port}", "--mode", pushed.mode,
             "--seconds", str(max(1, round(setup.seconds))), "--subscribers", str(subscribers)]
    before, began = cpu_us(pid), time.monotonic()
    pin = ["taskset", "-c", ",".join(map(str, sorted(set(range(os.cpu_count())) - {0}) or [0]))]
    done = subprocess.run([*pin, *map(str, words)], capture_output=True, text=True, timeout=setup.seconds + GRACE_S)
    if done.returncode != 0:
        raise RuntimeError(f"{pushed.name}: {done.stderr.strip()}")
    report, elapsed = json.loads(done.stdout), time.monotonic() - began
    p50, p99, p999 = report["behind_send_us"]
    sample = Sample(report["writes"] / elapsed, (cpu_us(pid) - before) / report["writes"], p50, p99, p999, 0.0)
    return sample, report["behind_ack_us"]


def push(setup):
    """A write's request to its push, one at a time: our stream and CLIENT TRACKING beside Redis's; then 1,000 subscribers."""
    cases = [n for n in (1, CROWD) if setup.wanted("push", f"push to {n:,}")]
    if not cases:
        return
    build = ["cargo", "build", "--release", "--quiet", "-p", "slotcast-near-cache", "--example", "push_latency"]
    subprocess.run(build, cwd=ROOT, check=True)
    with contextlib.ExitStack() as stack:
        ours, theirs = (stack.enter_context(Server(kind, [0])) for kind in setup.kinds[:2])
        for subscribers in cases:
            tracking = "tracking" if subscribers == 1 else "bcast"
            ways = [Pushed("slotcast stream", ours, "stream"), Pushed("slotcast tracking", ours, tracking),
                    Pushed("redis tracking", theirs, tracking)]
            samples, acks = {way.name: [] for way in ways}, {}
            idle = {server.name: rss_bytes(server.pids[0]) for server in (ours, theirs)}
            for turn in range(setup.rounds):
                for way in ways[turn % 3:] + ways[:turn % 3]:
                    sample, acks[way.name] = measured(setup, way, subscribers)
                    samples[way.name].append(sample)
            row = rows_of(f"push to {subscribers:,}", samples, ("p99_us / redis tracking", "<=", 1.0))
            for name, (p50, p99, p999) in acks.items():
                row.notes.append(f"{name}: acknowledged to pushed {p50} / {p99} / {p999} µs (p50/p99/p99.9, last round)")
            for server in (ours, theirs):
                grown = (peak_rss_bytes(server.pids[0]) - idle[server.name]) / 2**20
                row.notes.append(f"{server.name}: at most {grown:+.1f} MiB since before the first of them subscribed")
            yield row

"""usage: loop.py    (CLUSTER_NODE=host:port)
`redis-cli -c` in a shell loop: one process a command, each knowing one node only. Prints `running`, and when standard input
closes one line of JSON (see ../failover.py for its fields)."""

import json
import os
import subprocess
import sys
import threading
import time

HOST, PORT = os.environ["CLUSTER_NODE"].split(":")
EVERY_S = 0.1
KEYS = 50
NOTABLE_MS = 100
LIMIT_S = 20


def main():
    report = {"calls": 0, "events": [], "stale": [], "lost": [], "longest_ms": 0}
    acked, maybe = {}, {}

    def call(*words):
        at, start = time.time(), time.monotonic()
        try:
            done = subprocess.run(["redis-cli", "-c", "-h", HOST, "-p", PORT, *words], capture_output=True, text=True, timeout=LIMIT_S)
            reply = done.stdout.strip()
            error = (done.stderr.strip() or reply) if done.returncode or done.stderr or not reply.isalnum() else None
        except subprocess.TimeoutExpired:
            reply, error = None, f"no answer within {LIMIT_S} s"
        took_ms = (time.monotonic() - start) * 1000
        report["calls"] += 1
        report["longest_ms"] = max(report["longest_ms"], took_ms)
        if error or took_ms > NOTABLE_MS:
            report["events"].append({"at": at * 1000, "took_ms": took_ms, "error": error})
        return reply, error

    def allowed(key, found):
        return found == acked.get(key) or found in maybe.get(key, ())

    def step(i):
        key, value = f"loop:redis-cli:{i % KEYS}", str(i)
        _, error = call("set", key, value)
        if error:
            maybe.setdefault(key, set()).add(value)
        else:
            acked[key], maybe[key] = value, set()
        found, error = call("get", key)
        if not error and not allowed(key, found):
            report["stale"].append(f"{key}: read {found}, acknowledged {acked.get(key)} ({time.time() * 1000:.0f})")

    closed = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), closed.set()), daemon=True).start()
    step(0)
    print("running", flush=True)
    i = 1
    while not closed.wait(EVERY_S):
        step(i)
        i += 1
    for key in acked:
        found, error = call("get", key)
        if error or not allowed(key, found):
            report["lost"].append(f"{key}: found {found}, acknowledged {acked[key]}")
    print(json.dumps(report), flush=True)


main()

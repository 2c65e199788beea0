"""Faults under running clients: every client's loop and cache at once, one node killed, terminated, paused, and what each client saw.

A loop (CLIENT/loop.*) writes and reads back keys of all slots until its standard input closes, then prints JSON:
  calls        number of commands the application sent
  longest_ms   the longest of them
  events       calls that failed or took over 100 ms: {at: ms since 1970 when it began, took_ms, error: text or null}
  stale        reads that gave neither the last acknowledged value nor one of unknown fate written after it
  lost         the same for every key at the very end
and, if it also subscribes to a channel and publishes there all the time:
  messages     {heard: how many, twice: how many of them a second time, silent_ms: the longest wait for one}
"""

import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass

KILL = "kill -9"
FAULTS = (KILL, "SIGTERM", "SIGSTOP")
DOWN_S = 3.0
SETTLE_S = 1.5
VICTIM = 2
LOOP_START_S = 30
LOOP_END_S = 60
SILENT_MS = 15_000


@dataclass
class Fault:
    """A stretch of time (ms since 1970) in which something was done to the victim."""

    name: str
    begin: float = 0.0
    moved: float = 0.0
    end: float = 0.0


def run_faults(cluster, log):
    """Does the three faults one after the other; gives them with their times."""
    strikes = (cluster.kill, cluster.terminate, cluster.pause)
    cures = (cluster.restart, cluster.restart, cluster.resume)
    return [run_fault(cluster, log, *fault, VICTIM) for fault in zip(FAULTS, strikes, cures)]


def run_kills(cluster, log, count):
    """Kills one node after the other, all in turn, `count` times."""
    victims = [1 + (VICTIM - 1 + i) % cluster.nodes for i in range(count)]
    return [run_fault(cluster, log, KILL, cluster.kill, cluster.restart, victim) for victim in victims]


def run_fault(cluster, log, name, strike, cure, victim):
    fault = Fault(name, begin=now_ms())
    strike(victim)
    down = time.monotonic()
    cluster.wait_moved_away(victim)
    fault.moved = now_ms()
    time.sleep(max(0.0, DOWN_S - (time.monotonic() - down)))
    cure(victim)
    cured = now_ms()
    cluster.wait_home(victim)
    log(f"# {name} of node {victim}: listed elsewhere after {fault.moved - fault.begin:.0f} ms, home {now_ms() - cured:.0f} ms after its return")
    time.sleep(SETTLE_S)
    fault.end = now_ms()
    return fault


def now_ms():
    return time.time() * 1000


def start_loop(argv, folder, environment):
    process = subprocess.Popen(argv, cwd=folder, env=os.environ | environment, text=True, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    too_late = threading.Timer(LOOP_START_S, process.kill)
    too_late.start()
    said = process.stdout.readline().strip()
    too_late.cancel()
    if said != "running":
        process.kill()
        raise RuntimeError(f"{argv[0]} {argv[-1]}: the loop did not start: {process.stderr.read()[-800:]}")
    return process


def finish_loop(process):
    """Gives the report of a loop whose input has been closed."""
    process.stdin = None  # closed already; communicate would flush it
    try:
        out, err = process.communicate(timeout=LOOP_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise RuntimeError(f"the loop did not end within {LOOP_END_S} s: a command never got its answer") from None
    if process.returncode != 0:
        raise RuntimeError(f"the loop ended with {process.returncode}: {err[-800:]}")
    return json.loads(out.strip().splitlines()[-1])


def judge(client, faults, report, strict):
    """Gives (name of the test, None or why it failed, remark) for one client's report.

    `strict` is off against redis, where failed commands and lost writes are only reported: its replication is asynchronous.
    """
    for name in dict.fromkeys(fault.name for fault in faults):
        alike = [fault for fault in faults if fault.name == name]
        seen = [(fault, e) for fault in alike for e in report["events"] if fault.begin - 1000 <= e["at"] < fault.end]
        failed = [(e, e["at"] - fault.begin) for fault, e in seen if e["error"]]
        longest = max((e["took_ms"] for _, e in seen), default=0)
        first = f", first: {failed[0][0]['error'][:160]} ({failed[0][1]:+.0f} ms)" if failed else ""
        remark = f"{len(failed)} failed, longest call {longest:.0f} ms{first}"
        allowed = client.may_fail(name) * len(alike)
        too_many = f"{remark}; allowed: {allowed}" if strict and len(failed) > allowed else None
        times = f", {len(alike)} times," if len(alike) > 1 else ""
        yield f"{name}{times} under load", too_many, remark
    wrong = report["lost"] + report["stale"]
    remark = f"{report['calls']} commands, {len(report['lost'])} writes lost, {len(report['stale'])} stale reads"
    yield "no acknowledged write lost, no stale read", "; ".join(wrong[:3]) if wrong and strict else None, remark
    if messages := report.get("messages"):
        remark = "{heard} messages, {twice} of them twice, longest silence {silent_ms:.0f} ms".format(**messages)
        wrong = messages["twice"] or not messages["heard"] or messages["silent_ms"] > SILENT_MS
        yield "messages go on, none twice", remark if wrong and strict else None, remark


def judge_cache(_client, _faults, report, _strict):
    """The same for a client-side cache: nothing in it may be stale once the writers have been quiet."""
    wrong = report["stale"] or ([] if report["hits"] else ["no read was answered from the cache"])
    remark = f"{report['reads']} reads, {report['hits']} found in the cache"
    yield "no stale entry in the client-side cache after all faults", f"{len(wrong)}: {'; '.join(wrong[:3])}" if wrong else None, remark

"""The parts of scripts/bench: each starts its servers, measures, and gives rows for the report."""

import contextlib
import os
import threading
import time
from dataclasses import dataclass, field

from clusters import SlotcastCluster, wait_until
from measure import Case, Load, Spread, interleaved, median_of, ratio, sample
from resp import fields
from servers import Server, rss_bytes

PIPELINES = (1, 16, 64)
VALUES = (64, 1024)
OPS = ("get", "set")
CPU_GOALS = {1: 0.85, 16: 0.30, 64: 0.25}
MEMORY_KEYS = 2_000_000
MEMORY_GOAL = 0.75
RSS_SETTLE_S = 2.0
DURABILITIES = ("quorum", "quorum-fsync", "memory")
FSYNCS = ("everysec", "always")
SNAPSHOT_KEYS = 2_000_000
SNAPSHOT_GOAL = 2.0


@dataclass
class Setup:
    """What all sections need: the programs (ours first), how long, and which cases are wanted."""

    kinds: list
    load_binary: str
    keys: int
    seconds: float
    rounds: int
    wanted: object
    say: object


@dataclass
class Row:
    """One line of a table: a case, each server's figures, and ours over each other's with the goal for it."""

    case: str
    figures: dict
    ratios: dict
    goal: tuple = None
    notes: list = field(default_factory=list)

    @property
    def missed(self):
        """The goal is (name of the ratio, '<=' or '>=', limit), against the first peer."""
        if self.goal is None:
            return False
        name, sense, limit = self.goal
        found = self.ratios[name].median
        return found > limit if sense == "<=" else found < limit


def rows_of(case, samples, goal=None):
    """A Row from the interleaved samples of one case; the first server is ours."""
    (our_name, ours), *peers = samples.items()
    names = ("throughput", "cpu_us", "p50_us", "p99_us", "p999_us")
    figures = {server: {name: median_of(rounds, name) for name in names} for server, rounds in samples.items()}
    ratios = {f"{name} / {peer}": ratio(ours, rounds, name) for peer, rounds in peers for name in ("throughput", "cpu_us", "p99_us")}
    foreign = max(s.foreign for rounds in samples.values() for s in rounds)
    notes = [f"other programs used up to {foreign:.0%} of the machine"] if foreign > 0.10 else []
    return Row(case, figures, ratios, goal, notes)


def single(setup):
    """GET and SET on one node: servers on core 0, load generator on core 1."""
    load = Load(setup.load_binary, [1])
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Server(kind, [0])) for kind in setup.kinds]
        peer = servers[1].name
        for value in VALUES:
            cases = [c for c in (Case(op, value, p) for op in OPS for p in PIPELINES) if setup.wanted("single", c.name)]
            if cases:
                setup.say(f"filling {setup.keys:,} keys of {value} B")
                for server in servers:
                    server.call("FLUSHALL")
                    load.fill(server.port, setup.keys, value)
            for case in cases:
                goal = (f"cpu_us / {peer}", "<=", CPU_GOALS[case.pipeline]) if value == 64 else None
                yield rows_of(case.name, interleaved(load, servers, case, setup.keys, setup.seconds, setup.rounds), goal)


def memory(setup):
    """RSS per key: 2 M keys of 16 B with values of 64 B, each server alone and fresh."""
    if not setup.wanted("memory", "RSS per key"):
        return
    load = Load(setup.load_binary, [1])
    per_key = {}
    for kind in setup.kinds:
        with Server(kind, [0]) as server:
            before = rss_bytes(server.pids[0])
            load.fill(server.port, MEMORY_KEYS, 64)
            time.sleep(RSS_SETTLE_S)
            size = server.call("DBSIZE")
            if size != MEMORY_KEYS:
                raise RuntimeError(f"{kind.name} holds {size} of {MEMORY_KEYS} keys")
            after = rss_bytes(server.pids[0])
        per_key[kind.name] = {"rss_per_key": (after - before) / MEMORY_KEYS, "rss_mib": after / 2**20}
    (_, ours), *peers = per_key.items()
    ratios = {f"rss_per_key / {name}": Spread.of([ours["rss_per_key"] / theirs["rss_per_key"]]) for name, theirs in peers}
    yield Row("RSS per key", per_key, ratios, (f"rss_per_key / {peers[0][0]}", "<=", MEMORY_GOAL))


class Labelled:
    """A server under another name, so that one program can stand beside itself."""

    def __init__(self, server, name):
        self.name, self.port, self.pids, self.call = name, server.port, server.pids, server.call


def cores(setup):
    """One network thread on core 0 against a thread per core on all cores; the load generator may use every core."""
    everywhere = list(range(os.cpu_count()))
    load = Load(setup.load_binary, everywhere)
    for kind in setup.kinds:
        cases = [c for c in (Case(op, 64, p) for op in OPS for p in PIPELINES) if setup.wanted("cores", c.name)]
        if not cases:
            return
        with Server(kind, [0]) as one, Server(kind, everywhere, threads=len(everywhere)) as all_cores:
            targets = [Labelled(all_cores, f"{kind.name}, {len(everywhere)} cores"), Labelled(one, f"{kind.name}, 1 core")]
            for target in targets:
                load.fill(target.port, setup.keys, 64)
            for case in cases:
                goal = (f"throughput / {targets[1].name}", ">=", 1.0) if kind is setup.kinds[0] else None
                yield rows_of(f"{case.name}, {kind.name}", interleaved(load, targets, case, setup.keys, setup.seconds, setup.rounds), goal)


class ReplicatedRedis:
    """redis-server with two asynchronous replicas on this machine."""

    def __init__(self, kind, stack, flags=()):
        cores = range(os.cpu_count())
        master = stack.enter_context(Server(kind, cores, extra=flags))
        of_master = ["--replicaof", f"127.0.0.1 {master.port}", *flags]
        self.replicas = [stack.enter_context(Server(kind, cores, extra=of_master)) for _ in range(2)]
        wait_until("the replicas follow", lambda: all(map(self.follows, self.replicas)), 30)
        self.name, self.port = f"{kind.name} + 2 replicas", master.port
        self.pids = [server.pids[0] for server in (master, *self.replicas)]

    @staticmethod
    def follows(replica):
        return fields(replica.call("INFO", "replication")).get("master_link_status") == "up"


class ThreeNodes:
    """A slotcast cluster of three nodes on this machine; CPU counts for all three."""

    name = "slotcast x 3"

    def __init__(self, stack, flags=""):
        self.cluster = cluster = stack.enter_context(SlotcastCluster(flags))
        self.port = cluster.port(1)
        self.pids = [int(fields(cluster.ask(node, "INFO", "server"))["process_id"]) for node in (1, 2, 3)]

    def is_saving(self, node):
        return fields(self.cluster.ask(node, "INFO", "persistence"))["rdb_bgsave_in_progress"] == "1"


def cluster(setup):
    """Replicated SET, quorum against asynchronous: three processes each, everything on all cores."""
    cases = [c for c in (Case("set", 64, p) for p in PIPELINES) if setup.wanted("cluster", c.name)]
    if not cases:
        return
    load = Load(setup.load_binary, range(os.cpu_count()))
    with contextlib.ExitStack() as stack:
        targets = [ThreeNodes(stack), ReplicatedRedis(setup.kinds[1], stack)]
        clustered = {targets[0].name}
        for target in targets:
            load.fill(target.port, setup.keys, 64, target.name in clustered)
        for case in cases:
            samples = interleaved(load, targets, case, setup.keys, setup.seconds, setup.rounds, clustered)
            yield rows_of(f"replicated {case.name}", samples, (f"throughput / {targets[1].name}", ">=", 1.0))


def durability(setup):
    """Replicated SET under each durability mode, beside redis-server's append-only file, without and with replicas."""
    cases = [c for c in (Case("set", 64, p) for p in PIPELINES) if setup.wanted("durability", c.name)]
    if not cases:
        return
    load, redis = Load(setup.load_binary, range(os.cpu_count())), setup.kinds[1]
    with contextlib.ExitStack() as stack:
        ours, theirs = [], []
        for mode in DURABILITIES:
            ours.append(nodes := ThreeNodes(stack, f"--durability {mode}"))
            nodes.name = f"slotcast x 3, {mode}"
        for sync in FSYNCS:
            flags = ["--appendonly", "yes", "--appendfsync", sync]
            theirs.append(alone := stack.enter_context(Server(redis, range(os.cpu_count()), extra=flags)))
            theirs.append(copied := ReplicatedRedis(redis, stack, flags))
            alone.name, copied.name = f"{redis.name}, {sync}", f"{copied.name}, {sync}"
        clustered = {target.name for target in ours}
        for target in ours + theirs:
            load.fill(target.port, setup.keys, 64, target.name in clustered)
        for case in cases:
            samples = interleaved(load, ours + theirs, case, setup.keys, setup.seconds, setup.rounds, clustered)
            for target in ours:
                others = {other.name: samples[other.name] for other in theirs}
                yield rows_of(f"replicated {case.name}, {target.name}", {target.name: samples[target.name]} | others)


class Saving:
    """The same cluster, in which one node after the other writes its copies to disk for as long as this is a context."""

    name = "while saving"

    def __init__(self, nodes):
        self.nodes, self.port, self.pids, self.saves, self.over = nodes, nodes.port, nodes.pids, 0, False

    def __enter__(self):
        self.over = False
        self.thread = threading.Thread(target=self.save)
        self.thread.start()

    def __exit__(self, *_):
        self.over = True
        self.thread.join()

    def save(self):
        while not self.over:
            node = self.saves % 3 + 1
            self.nodes.cluster.ask(node, "BGSAVE")
            self.saves += 1
            while self.nodes.is_saving(node):
                time.sleep(0.02)


def snapshot(setup):
    """Replicated SET while a node writes snapshots of 2 M keys: the latency against that without."""
    case = Case("set", 64, 1)
    if not setup.wanted("snapshot", case.name):
        return
    load = Load(setup.load_binary, range(os.cpu_count()))
    with contextlib.ExitStack() as stack:
        quiet = ThreeNodes(stack)
        saving = Saving(quiet)
        quiet.name = "without"
        setup.say(f"filling {SNAPSHOT_KEYS:,} keys")
        load.fill(quiet.port, SNAPSHOT_KEYS, 64, cluster=True)
        samples = {saving.name: [], quiet.name: []}
        for _ in range(setup.rounds):
            samples[quiet.name].append(sample(load, quiet, case, SNAPSHOT_KEYS, setup.seconds, cluster=True))
            with saving:
                samples[saving.name].append(sample(load, saving, case, SNAPSHOT_KEYS, setup.seconds, cluster=True))
        row = rows_of(f"{case.name}, snapshots", samples, (f"p99_us / {quiet.name}", "<=", SNAPSHOT_GOAL))
        row.notes.append(f"{saving.saves} BGSAVEs")
        yield row


SECTIONS = {"single": single, "memory": memory, "cores": cores, "cluster": cluster, "durability": durability, "snapshot": snapshot}

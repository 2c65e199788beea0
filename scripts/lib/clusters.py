"""Clusters for tests and measurements: three slotcast nodes, or (to check the tests themselves) a real Redis Cluster.

Both offer the same verbs, node numbers count from 1:
start, kill (SIGKILL), terminate (SIGTERM), pause (SIGSTOP), resume, restart, stop. Only processes started here are touched.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from resp import Connection, ReplyError, fields

ROOT = Path(__file__).resolve().parents[2]
MASTERS = 3
SLOTS = 16384


def free_base_port(count):
    """A port such that `count` ports from it, and their bus ports (+10000), are free. Below the ephemeral range."""
    for _ in range(200):
        base = random.randrange(11000, 20000, 10)
        if all(is_free(base + i) and is_free(base + i + 10000) for i in range(count)):
            return base
    raise RuntimeError("no free range of ports between 11000 and 20000")


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


def wait_until(what, condition, timeout):
    """Polls `condition` until it is true; an exception from a node that isn't there yet counts as false."""
    deadline = time.monotonic() + timeout
    last = None
    while time.monotonic() < deadline:
        try:
            if condition():
                return
            last = None
        except (OSError, ReplyError, ValueError, KeyError) as error:
            last = error
        time.sleep(0.05)
    raise TimeoutError(f"waited {timeout} s for: {what}" + (f" (last: {last})" if last else ""))


class Cluster:
    """What both kinds share: looking at the cluster through its nodes' own replies."""

    def __init__(self, nodes):
        self.data = Path(tempfile.mkdtemp(prefix="slotcast-clients-"))
        self.base = free_base_port(nodes)
        self.nodes = nodes

    def port(self, node):
        return self.base + node - 1

    def ask(self, node, *words):
        with Connection(self.port(node)) as connection:
            return connection.call(*words)

    def owned_slots(self, view, port):
        """How many slots the node at `port` has as a master, in the eyes of node `view`."""
        for line in self.ask(view, "CLUSTER", "NODES").splitlines():
            part = line.split()
            if part[1].split("@")[0].endswith(f":{port}") and "master" in part[2] and "fail" not in part[2]:
                ends = [r.split("-") for r in part[8:] if not r.startswith("[")]
                return sum(int(e[-1]) - int(e[0]) + 1 for e in ends)
        return 0

    def serves_all(self, views):
        """Every node in `views` says the cluster is fine and every slot is led by somebody."""
        for view in views:
            if fields(self.ask(view, "CLUSTER", "INFO"))["cluster_state"] != "ok":
                return False
            ports = [self.port(n) for n in range(1, self.nodes + 1)]
            if sum(self.owned_slots(view, p) for p in ports) != SLOTS:
                return False
        return True

    def wait_serving(self, views=(1, 2, 3), timeout=30):
        wait_until(f"nodes {views} serve all slots", lambda: self.serves_all(views), timeout)

    def wait_moved_away(self, node, timeout=15):
        """Until the others serve everything and no slot is `node`'s."""
        others = [n for n in range(1, MASTERS + 1) if n != node]
        gone = lambda: self.serves_all(others) and not self.owned_slots(others[0], self.port(node))
        wait_until(f"the slots of node {node} have another master", gone, timeout)

    def wait_home(self, node, timeout=45):
        """Until `node` is a master with slots again and all three agree."""
        views = range(1, MASTERS + 1)
        home = lambda: self.serves_all(views) and all(self.owned_slots(v, self.port(node)) for v in views)
        wait_until(f"node {node} is a master again", home, timeout)

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()


class SlotcastCluster(Cluster):
    """Three nodes started by scripts/cluster in a folder and on ports of their own."""

    def __init__(self, flags=""):
        super().__init__(MASTERS)
        self.flags = flags

    def script(self, *words):
        command = [ROOT / "scripts/cluster", "--data", self.data, "--base-port", str(self.base), f"--flags={self.flags}", *map(str, words)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
        if done.returncode != 0:
            raise RuntimeError(f"scripts/cluster {' '.join(map(str, words))} failed:\n{done.stdout}")

    def start(self):
        self.script("up")
        self.wait_serving()

    def kill(self, node):
        self.script("kill", node)

    def terminate(self, node):
        self.script("stop", node)

    def pause(self, node):
        self.script("pause", node)

    def resume(self, node):
        self.script("resume", node)

    def restart(self, node):
        self.script("restart", node)

    def stop(self):
        try:
            self.script("down")
        finally:
            shutil.rmtree(self.data, ignore_errors=True)

    def logs(self):
        return sorted(self.data.rglob("*.log"))


class RedisCluster(Cluster):
    """Three masters with a replica each, Debian's redis-server: the behaviour clients were written for."""

    def __init__(self):
        super().__init__(2 * MASTERS)
        self.running = {}

    def start(self):
        for node in range(1, self.nodes + 1):
            self.launch(node)
        wait_until("redis-server listens", lambda: all(self.ask(n, "PING") for n in self.running), 10)
        addresses = [f"127.0.0.1:{self.port(n)}" for n in self.running]
        create = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"]
        subprocess.run(create, check=True, stdout=subprocess.DEVNULL, timeout=60)
        self.wait_serving(self.running.keys())
        replicas = range(MASTERS + 1, self.nodes + 1)
        synced = lambda: all(fields(self.ask(n, "INFO", "replication"))["master_link_status"] == "up" for n in replicas)
        wait_until("replicas are in sync", synced, 20)

    def launch(self, node):
        folder = self.data / str(node)
        folder.mkdir(exist_ok=True)
        flags = {"port": self.port(node), "bind": "127.0.0.1", "dir": folder, "logfile": folder / "redis.log", "save": "",
                 "cluster-enabled": "yes", "cluster-node-timeout": 1500, "repl-diskless-sync-delay": 0}
        words = [str(w) for name, value in flags.items() for w in (f"--{name}", value)]
        self.running[node] = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)

    def signal(self, node, which):
        os.kill(self.running[node].pid, which)

    def kill(self, node):
        self.signal(node, signal.SIGKILL)
        self.running[node].wait()

    def terminate(self, node):
        self.signal(node, signal.SIGTERM)
        self.running[node].wait(timeout=20)

    def pause(self, node):
        self.signal(node, signal.SIGSTOP)

    def resume(self, node):
        self.signal(node, signal.SIGCONT)

    def restart(self, node):
        self.launch(node)

    def wait_home(self, node, timeout=45):
        """Redis leaves a returned master a replica; hand the slots back as an operator would."""
        def is_synced_replica():
            state = fields(self.ask(node, "INFO", "replication"))
            return state["role"] == "slave" and state["master_link_status"] == "up"
        wait_until(f"node {node} is a replica in sync", is_synced_replica, timeout)

        def is_home():
            if fields(self.ask(node, "INFO", "replication"))["role"] == "slave":
                self.ask(node, "CLUSTER", "FAILOVER")  # may time out on the nodes' side: asked again
                time.sleep(1)
            return self.owned_slots(node, self.port(node))
        wait_until(f"node {node} has its slots back", is_home, timeout)
        super().wait_home(node, timeout)

    def stop(self):
        for server in self.running.values():
            if server.poll() is None:
                server.kill()
                server.wait()
        shutil.rmtree(self.data, ignore_errors=True)

    def logs(self):
        return sorted(self.data.rglob("redis.log"))

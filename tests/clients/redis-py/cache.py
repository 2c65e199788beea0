"""usage: cache.py    (CLUSTER_NODE=host:port)
Keeps client-side caches while others write, for as long as standard input is open, whatever happens to the cluster. Prints
`running`, and at the end, when the writers have been quiet for a while, one line of JSON: {reads, hits, stale: [text]}.

Each reading thread has a client of its own: two threads on one caching client of redis-py 8.1 wait for each other for ever,
on any server (a cache hit holds its connection's cache lock and wants the pool's; draining another connection's pushes holds
the pool's and wants that connection's cache lock)."""

import json
import os
import sys
import threading
import time

from redis.cache import CacheConfig, DefaultCache
from redis.cluster import RedisCluster

KEYS = [f"near:redis-py:{n}" for n in range(200)]
READERS = 2
READ_EVERY_S = 0.001
WRITE_EVERY_S = 0.01
QUIET_S = 2.0

HOST, PORT = os.environ["CLUSTER_NODE"].split(":")


def patiently(call, *words, tries=200):
    """A call that is tried again while the cluster mends itself; None if that doesn't help."""
    for _ in range(tries):
        try:
            return call(*words)
        except Exception:  # whatever the application would have seen
            time.sleep(0.02)


class Counting(DefaultCache):
    """The client's own cache, which counts how often it knew a value."""

    hits = 0

    def get(self, key):
        entry = super().get(key)
        self.hits += entry is not None and entry.cache_value is not None
        return entry


class Reads:
    """One thread's reads through a cache. Some keys are read more than others, or nothing would stay cached until it is
    read again."""

    def __init__(self):
        self.cache, self.count = Counting(CacheConfig(max_size=10_000)), 0
        self.client = RedisCluster(host=HOST, port=int(PORT), decode_responses=True, protocol=3, cache=self.cache)

    def run(self, stop):
        while not stop.wait(READ_EVERY_S):
            self.count += 1
            patiently(self.client.get, KEYS[(self.count * self.count) % len(KEYS)])

    def stale(self, truths):
        pairs = [(key, patiently(self.client.get, key), truth) for key, truth in truths.items()]
        return [f"{key}: cached {held}, is {truth}" for key, held, truth in pairs if held != truth]


def write(client, stop):
    n = 0
    while not stop.wait(WRITE_EVERY_S):
        n += 1
        patiently(client.set, KEYS[n % len(KEYS)], n)


def main():
    plain = RedisCluster(host=HOST, port=int(PORT), decode_responses=True)
    reads = [Reads() for _ in range(READERS)]
    stop_writing, stop_reading = threading.Event(), threading.Event()
    writer = threading.Thread(target=write, args=(plain, stop_writing))
    readers = [threading.Thread(target=reader.run, args=(stop_reading,)) for reader in reads]
    for thread in [writer, *readers]:
        thread.start()
    print("running", flush=True)
    sys.stdin.read()
    stop_writing.set()
    writer.join()
    time.sleep(QUIET_S)
    stop_reading.set()
    for thread in readers:
        thread.join()
    truths = {key: patiently(plain.get, key) for key in KEYS}
    stale = [text for reader in reads for text in reader.stale(truths)]
    sums = {"reads": sum(r.count for r in reads), "hits": sum(r.cache.hits for r in reads)}
    print(json.dumps(sums | {"stale": stale}), flush=True)


main()

"""usage: loop.py    (CLUSTER_NODE=host:port)
Writes and reads back one key after another, on a few threads, for as long as standard input is open, whatever happens to
the cluster. Prints `running`, and at the end one line of JSON (see ../failover.py for its fields)."""

import json
import os
import sys
import threading
import time

import redis
from redis.cluster import RedisCluster

THREADS = 4
KEYS_PER_THREAD = 75
EVERY_S = 0.05
NOTABLE_MS = 100
MAX_EVENTS = 2000

HOST, PORT = os.environ["CLUSTER_NODE"].split(":")


class Loop:
    """One thread's keys: the last acknowledged value of each, and the values whose fate is unknown."""

    def __init__(self, client, number):
        self.client = client
        self.prefix = f"loop:redis-py:{number}"
        self.acked, self.maybe = {}, {}
        self.report = {"calls": 0, "events": [], "stale": [], "lost": [], "longest_ms": 0}

    def timed(self, call, *words):
        """One call; gives (reply, error). Failures and slow calls become events."""
        at, start = time.time(), time.monotonic()
        reply = error = None
        try:
            reply = call(*words)
        except Exception as caught:  # whatever the application would have seen
            error = f"{type(caught).__name__}: {caught}"[:200]
        took_ms = (time.monotonic() - start) * 1000
        self.report["calls"] += 1
        self.report["longest_ms"] = max(self.report["longest_ms"], took_ms)
        if (error or took_ms > NOTABLE_MS) and len(self.report["events"]) < MAX_EVENTS:
            self.report["events"].append({"at": at * 1000, "took_ms": took_ms, "error": error})
        return reply, error

    def step(self, i):
        key, value = f"{self.prefix}:{i % KEYS_PER_THREAD}", str(i)
        _, error = self.timed(self.client.set, key, value)
        if error:
            self.maybe.setdefault(key, set()).add(value)
        else:
            self.acked[key], self.maybe[key] = value, set()
        found, error = self.timed(self.client.get, key)
        if not error and not self.allowed(key, found):
            self.report["stale"].append(f"{key}: read {found}, acknowledged {self.acked.get(key)} ({time.time() * 1000:.0f})")

    def allowed(self, key, found):
        return found == self.acked.get(key) or found in self.maybe.get(key, ())

    def run(self, stop):
        i = 0
        while not stop.wait(EVERY_S):
            self.step(i)
            i += 1

    def check(self):
        for key in set(self.acked) | set(self.maybe):
            found = self.client.get(key)
            if not self.allowed(key, found):
                self.report["lost"].append(f"{key}: found {found}, acknowledged {self.acked.get(key)}")


class Subscriber(threading.Thread):
    """What a subscriber of the same application hears of the channel that a publisher uses all the time. redis-py leaves
    a lost connection to the application."""

    def __init__(self, client):
        super().__init__()
        self.client, self.channel = client, "loop:redis-py:news"
        self.report = {"heard": 0, "twice": 0, "silent_ms": 0}
        self.seen, self.subscribed, self.stop = set(), threading.Event(), threading.Event()

    def run(self):
        self.last = time.monotonic()
        while not self.stop.is_set():
            try:
                self.listen()
            except (redis.RedisError, OSError):
                time.sleep(0.1)
        self.silence()

    def listen(self):
        pubsub = self.client.pubsub()
        pubsub.subscribe(self.channel)
        self.subscribed.set()
        while not self.stop.is_set():
            message = pubsub.get_message(timeout=0.2)
            if message and message["type"] == "message":
                self.silence()
                self.report["heard"] += 1
                self.report["twice"] += message["data"] in self.seen
                self.seen.add(message["data"])
        pubsub.close()

    def silence(self):
        now = time.monotonic()
        self.report["silent_ms"] = max(self.report["silent_ms"], (now - self.last) * 1000)
        self.last = now

    def publish(self):
        i = 0
        while not self.stop.wait(EVERY_S):
            i += 1
            try:
                self.client.publish(self.channel, str(i))
            except (redis.RedisError, OSError):
                pass


def main():
    client = RedisCluster(host=HOST, port=int(PORT), decode_responses=True)
    subscriber = Subscriber(client)
    subscriber.start()
    publisher = threading.Thread(target=subscriber.publish)
    subscriber.subscribed.wait()
    publisher.start()
    loops = [Loop(client, n) for n in range(THREADS)]
    for loop in loops:
        loop.step(0)
    stop = threading.Event()
    threads = [threading.Thread(target=loop.run, args=(stop,)) for loop in loops]
    for thread in threads:
        thread.start()
    print("running", flush=True)
    sys.stdin.read()
    stop.set()
    subscriber.stop.set()
    for thread in (*threads, publisher, subscriber):
        thread.join()
    whole = {"calls": 0, "events": [], "stale": [], "lost": [], "longest_ms": 0}
    for loop in loops:
        loop.check()
        for name, value in loop.report.items():
            whole[name] = max(whole[name], value) if name == "longest_ms" else whole[name] + value
    whole["messages"] = subscriber.report
    print(json.dumps(whole), flush=True)


main()

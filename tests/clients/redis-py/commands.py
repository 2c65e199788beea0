"""usage: commands.py    (CLUSTER_NODE=host:port)
What an application does with redis-py on a cluster; prints one line a test (TAP), exits 1 if one failed."""

import os
import sys
import time

import redis
from redis.cluster import ClusterNode, RedisCluster

HOST, PORT = os.environ["CLUSTER_NODE"].split(":")
TESTS = []


def test(body):
    TESTS.append(body)
    return body


def connect(**options):
    return RedisCluster(host=HOST, port=int(PORT), decode_responses=True, **options)


def refused(error, call, *words):
    """Asserts that the call raises `error`; gives its text."""
    try:
        reply = call(*words)
    except error as caught:
        return str(caught)
    raise AssertionError(f"no {error.__name__} but {reply!r}")


def equal(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


@test
def finds_three_masters_from_one_address(c):
    equal(len(c.get_primaries()), 3)


@test
def strings(c):
    equal(c.set("s", "one"), True)
    equal(c.get("s"), "one")
    equal(c.get("s:missing"), None)
    equal(c.append("s", "+two"), 7)
    equal(c.strlen("s"), 7)
    equal(c.getrange("s", 0, 2), "one")
    equal(c.setrange("s", 4, "TWO"), 7)
    equal(c.getset("s", "new"), "one+TWO")
    equal(c.getdel("s"), "new")
    equal(c.exists("s"), 0)
    equal(c.setnx("nx", "1"), True)
    equal(c.setnx("nx", "2"), False)


@test
def set_with_its_options(c):
    equal(c.set("opt", "a", nx=True), True)
    equal(c.set("opt", "b", nx=True), None)
    equal(c.set("opt", "b", xx=True, get=True), "a")
    equal(c.set("opt", "c", ex=100), True)
    equal(c.set("opt", "d", keepttl=True), True)
    assert 90 < c.ttl("opt") <= 100
    equal(c.set("opt", "e", px=50_000), True)
    assert 40_000 < c.pttl("opt") <= 50_000
    equal(c.set("opt", "f", exat=int(time.time()) + 30), True)
    assert 20 < c.ttl("opt") <= 30


@test
def counters(c):
    equal([c.incr("n"), c.incrby("n", 41), c.decr("n"), c.decrby("n", 40)], [1, 42, 41, 1])
    equal(c.incrbyfloat("n", 0.5), 1.5)
    assert "not an integer" in refused(redis.ResponseError, c.incr, "n")


@test
def several_keys_of_one_slot(c):
    equal(c.mset({"{m}a": "1", "{m}b": "2"}), True)
    equal(c.mget("{m}a", "{m}none", "{m}b"), ["1", None, "2"])
    equal(c.msetnx({"{m}c": "3", "{m}a": "x"}), False)
    equal(c.exists("{m}a", "{m}b", "{m}c"), 2)
    equal(c.delete("{m}a", "{m}c"), 1)


@test
def keys_of_all_slots_split_by_the_client(c):
    wanted = {f"split:{i}": str(i) for i in range(300)}
    c.mset_nonatomic(wanted)
    equal(c.mget_nonatomic(list(wanted)), list(wanted.values()))
    equal(c.exists(*wanted), 300)
    equal(c.touch(*wanted), 300)
    equal(c.delete(*wanted), 300)


@test
def keys_of_different_slots_are_refused(c):
    refused(redis.RedisClusterException, c.mget, "x1", "x2")
    node = direct(c.get_node_from_key("x1"))
    assert "CROSSSLOT" in refused_text(node, "MGET", "x1", "x2")


def direct(node):
    """A connection to one node that follows no redirect."""
    return redis.Redis(host=node.host, port=node.port, decode_responses=True)


def refused_text(node, *words):
    """The error as the server sent it (redis-py strips the code off some classes)."""
    try:
        return f"no error but {node.execute_command(*words)!r}"
    except redis.exceptions.ClusterCrossSlotError:
        return "CROSSSLOT"
    except redis.ResponseError as error:
        return f"{type(error).__name__} {error}"


@test
def binary_and_large_values(_):
    c = RedisCluster(host=HOST, port=int(PORT))
    every_byte = bytes(range(256))
    c.set(b"bin\r\n\0", every_byte)
    equal(c.get(b"bin\r\n\0"), every_byte)
    large = b"slotcast" * (1 << 19)
    c.set("large", large)
    assert c.get("large") == large
    c.close()


@test
def hashes(c):
    equal(c.hset("h", mapping={"a": "1", "b": "2"}), 2)
    equal(c.hset("h", "b", "3"), 0)
    equal(c.hgetall("h"), {"a": "1", "b": "3"})
    equal(c.hgetall("h:none"), {})
    equal(c.hmget("h", "a", "none"), ["1", None])
    equal([c.hget("h", "a"), c.hexists("h", "a"), c.hlen("h")], ["1", True, 2])
    equal(c.hincrby("h", "a", 9), 10)
    equal(sorted(c.hkeys("h")) + sorted(c.hvals("h")), ["a", "b", "10", "3"])
    equal(dict(c.hscan_iter("h")), {"a": "10", "b": "3"})
    many = {f"f{i}": str(i) for i in range(1000)}
    c.hset("h:many", mapping=many)
    equal(dict(c.hscan_iter("h:many", count=50)), many)
    equal(c.hdel("h", "a", "b"), 2)
    equal(c.type("h"), "none")


@test
def types_are_kept_apart(c):
    c.hset("t:hash", "f", "v")
    equal(c.type("t:hash"), "hash")
    assert "WRONGTYPE" in refused(redis.ResponseError, c.get, "t:hash")


@test
def deadlines(c):
    c.set("ttl", "v")
    equal([c.ttl("ttl"), c.ttl("ttl:none")], [-1, -2])
    equal([c.expire("ttl", 100), c.expire("ttl", 200, nx=True), c.expire("ttl", 50, gt=True)], [True, False, False])
    equal([c.expire("ttl", 50, lt=True), c.pexpire("ttl", 60_000, xx=True)], [True, True])
    assert 55 < c.ttl("ttl") <= 60
    equal(c.persist("ttl"), True)
    equal(c.getex("ttl", ex=10), "v")
    assert 0 < c.ttl("ttl") <= 10
    c.set("brief", "v", px=60)
    deadline = time.monotonic() + 5
    while c.get("brief") is not None:
        assert time.monotonic() < deadline, "a key outlived its deadline by 5 s"
        time.sleep(0.02)


@test
def rename_and_copy_within_a_slot(c):
    c.set("{r}a", "v", ex=100)
    equal(c.rename("{r}a", "{r}b"), True)
    equal(c.copy("{r}b", "{r}c"), True)
    equal(c.renamenx("{r}b", "{r}c"), False)
    assert "no such key" in refused(redis.ResponseError, c.rename, "{r}none", "{r}x")


@test
def pipeline_within_one_slot(c):
    with c.pipeline() as pipe:
        for i in range(200):
            pipe.set(f"{{p}}{i}", i).get(f"{{p}}{i}")
        equal(pipe.execute(), [reply for i in range(200) for reply in (True, str(i))])


@test
def pipeline_over_all_slots(c):
    with c.pipeline() as pipe:
        for i in range(500):
            pipe.set(f"mixed:{i}", i)
        for i in range(500):
            pipe.get(f"mixed:{i}")
        equal(pipe.execute(), [True] * 500 + [str(i) for i in range(500)])


@test
def transaction(c):
    with c.pipeline(transaction=True) as pipe:
        pipe.set("{tx}a", 1).incr("{tx}a").hset("{tx}h", "f", "v").get("{tx}a")
        equal(pipe.execute(), ["OK", 2, 1, "2"])


@test
def watch_notices_another_clients_write(c):
    other = connect()
    c.set("{w}k", "1")
    with c.pipeline(transaction=True) as pipe:
        pipe.watch("{w}k")
        other.set("{w}k", "2")
        pipe.multi()
        pipe.set("{w}k", "mine")
        refused(redis.WatchError, pipe.execute)
    equal(c.get("{w}k"), "2")
    with c.pipeline(transaction=True) as pipe:
        pipe.watch("{w}k")
        pipe.multi()
        pipe.set("{w}k", "mine")
        equal(pipe.execute(), ["OK"])
    other.close()


@test
def scan_over_all_masters_sees_every_key_once(c):
    c.flushall(target_nodes=RedisCluster.PRIMARIES)
    wanted = {f"scan:{i}" for i in range(1000)}
    c.mset_nonatomic({key: "v" for key in wanted})
    found = list(c.scan_iter(match="scan:*", count=100))
    equal((len(found), set(found) == wanted), (1000, True))
    equal(c.dbsize(target_nodes=RedisCluster.PRIMARIES), 1000)
    equal(len(c.keys("scan:99*", target_nodes=RedisCluster.PRIMARIES)), 11)
    assert c.randomkey(target_nodes=RedisCluster.RANDOM).startswith("scan:")
    c.flushall(target_nodes=RedisCluster.PRIMARIES)
    equal(c.dbsize(target_nodes=RedisCluster.PRIMARIES), 0)


@test
def info_and_cluster_commands_parse(c):
    for info in c.info(target_nodes=RedisCluster.PRIMARIES).values():
        equal((info["role"], info["redis_mode"], info["cluster_enabled"], info["loading"]), ("master", "cluster", 1, 0))
        assert info["process_id"] > 0 and info["redis_version"]
    nodes = c.cluster_nodes()
    equal(sum(int(e) - int(s) + 1 for n in nodes.values() for s, e in n["slots"]), 16384)
    equal(c.cluster_info(target_nodes=RedisCluster.RANDOM)["cluster_state"], "ok")
    equal(c.cluster_keyslot("foo"), 12182)
    equal(len(c.cluster_myid(c.get_random_node())), 40)
    ranges = c.cluster_shards(target_nodes=RedisCluster.RANDOM)
    equal(len(ranges), 3)
    c.set("foo", "v")
    equal((c.cluster_countkeysinslot(12182), c.cluster_get_keys_in_slot(12182, 5)), (1, ["foo"]))


@test
def client_names_and_config(c):
    node = direct(c.get_random_node())
    equal(node.client_setname("a-test"), True)
    equal(node.client_getname(), "a-test")
    mine = [row for row in node.client_list() if row["id"] == str(node.client_id())]
    equal([row["name"] for row in mine], ["a-test"])
    equal((node.echo("hi"), node.ping()), ("hi", True))
    equal(list(node.config_get("maxmemory")), ["maxmemory"])
    equal(node.command_getkeys("MSET", "a", "1", "b", "2"), ["a", "b"])
    assert node.command_count() > 80
    assert node.command()["get"]["name"] == "get"
    node.close()


@test
def both_protocols(_):
    for protocol in (2, 3):
        c = connect(protocol=protocol)
        c.hset("proto", mapping={"f": "v"})
        equal((c.hgetall("proto"), c.incr("{proto}n") > 0), ({"f": "v"}, True))
        c.close()


@test
def a_wrong_node_says_moved(c):
    owner = c.get_node_from_key("moved")
    wrong = next(n for n in c.get_primaries() if n.name != owner.name)
    text = refused_text(direct(wrong), "GET", "moved")
    assert "MovedError" in text and f":{owner.port}" in text, text


@test
def a_client_with_a_wrong_slot_table_is_led_right(c):
    c.set("lost", "found")
    misled = connect()
    cache = misled.nodes_manager.slots_cache
    misled.nodes_manager.slots_cache = {slot: cache[(slot + 6000) % 16384] for slot in cache}
    equal(misled.get("lost"), "found")
    misled.close()


def next_message(read):
    """The next message that is no confirmation."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        message = read(timeout=0.2)
        if message and "subscribe" not in message["type"]:
            return message["type"], message["pattern"], message["channel"], message["data"]
    raise AssertionError("no message within 10 s")


@test
def subscriptions_in_both_protocols(c):
    for protocol in (2, 3):
        client = connect(protocol=protocol)
        pubsub = client.pubsub()
        pubsub.subscribe("news")
        pubsub.psubscribe("ne?s", "other*")
        for _ in range(3):  # the confirmations
            assert pubsub.get_message(timeout=5), "no confirmation"
        for node in c.get_primaries():  # whichever node is asked
            node.redis_connection.publish("news", f"from {node.port}")
            equal(next_message(pubsub.get_message), ("message", None, "news", f"from {node.port}"))
            equal(next_message(pubsub.get_message), ("pmessage", "ne?s", "news", f"from {node.port}"))
        pubsub.unsubscribe()
        pubsub.punsubscribe()
        pubsub.close()
        client.close()


@test
def shard_channels(c):
    pubsub = c.pubsub()
    names = [f"shard:{i}" for i in range(6)]  # on all three masters
    for name in names:
        pubsub.ssubscribe(name)
    for name in names:
        deadline = time.monotonic() + 10
        while c.spublish(name, f"to {name}") != 1:
            assert time.monotonic() < deadline, f"nobody is subscribed to {name}"
            time.sleep(0.02)
    heard = {}
    deadline = time.monotonic() + 10
    while len(heard) < len(names) and time.monotonic() < deadline:
        message = pubsub.get_sharded_message(timeout=0.1)
        if message and message["type"] == "smessage":
            heard[message["channel"]] = message["data"]
    equal(heard, {name: f"to {name}" for name in names})
    pubsub.sunsubscribe()
    pubsub.close()


@test
def keyspace_notifications_at_every_master(c):
    listeners = []
    for node in c.get_primaries():
        node.redis_connection.config_set("notify-keyspace-events", "KEA")
        listeners.append(direct(node).pubsub())
        listeners[-1].psubscribe("__keyevent@0__:*")
        assert listeners[-1].get_message(timeout=5), "no confirmation"
    for i in range(12):
        c.set(f"noted:{i}", "v")
    c.delete("noted:0")
    expected = [("del", "noted:0")] + sorted(("set", f"noted:{i}") for i in range(12))
    heard = []
    deadline = time.monotonic() + 10
    while len(heard) < len(expected) and time.monotonic() < deadline:
        messages = [listener.get_message(timeout=0.05) for listener in listeners]
        heard += [(m["channel"].split(":")[1], m["data"]) for m in messages if m]
    equal(sorted(heard), expected)
    for node, listener in zip(c.get_primaries(), listeners):
        listener.close()
        node.redis_connection.config_set("notify-keyspace-events", "")


def main():
    client = connect()
    client.flushall(target_nodes=RedisCluster.PRIMARIES)
    failed = 0
    for body in TESTS:
        name = body.__name__.replace("_", " ")
        try:
            body(client)
            print(f"ok - {name}", flush=True)
        except Exception as error:  # a test fails by whatever the client throws
            failed += 1
            print(f"not ok - {name}: {type(error).__name__} {error}".replace("\n", " | ")[:600], flush=True)
    sys.exit(1 if failed else 0)


main()

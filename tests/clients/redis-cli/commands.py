"""usage: commands.py    (CLUSTER_NODE=host:port)
redis-cli and redis-benchmark (Debian's redis-tools) as an operator uses them; one line a test (TAP), exits 1 if one failed."""

import os
import re
import subprocess
import sys
import time

HOST, PORT = os.environ["CLUSTER_NODE"].split(":")
TESTS = []
LIMIT_S = 30


def test(body):
    TESTS.append(body)
    return body


def run(*words, typed=None):
    done = subprocess.run([str(w) for w in words], input=typed, capture_output=True, text=True, timeout=LIMIT_S)
    output = done.stdout + done.stderr
    assert done.returncode == 0, f"{words} ended with {done.returncode}: {output}"
    return output


def cli(*words, port=PORT, typed=None):
    return run("redis-cli", "-h", HOST, "-p", port, *words, typed=typed).rstrip("\n")


def equal(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def contains(text, *parts):
    for part in parts:
        assert part in text, f"no {part!r} in {text!r}"


def master_ports():
    """The masters with slots, as CLUSTER NODES lists them: port -> [(first slot, last slot)]."""
    masters = {}
    for line in cli("cluster", "nodes").splitlines():
        part = line.split()
        if "master" in part[2] and len(part) > 8:
            ranges = [[int(slot) for slot in r.split("-")] for r in part[8:]]
            masters[part[1].split("@")[0].split(":")[1]] = [(r[0], r[-1]) for r in ranges]
    return masters


def owner_of(key):
    slot = int(cli("cluster", "keyslot", key))
    return next(port for port, ranges in master_ports().items() if any(a <= slot <= b for a, b in ranges)), slot


def flush():
    for port in master_ports():
        equal(cli("flushall", port=port), "OK")


@test
def follows_redirects_to_every_master():
    for i in range(30):
        equal(cli("-c", "set", f"k{i}", i), "OK")
    equal([cli("-c", "get", f"k{i}") for i in range(30)], [str(i) for i in range(30)])


@test
def without_c_shows_moved():
    port, slot = owner_of("hello")
    wrong = next(p for p in master_ports() if p != port)
    equal(cli("get", "hello", port=wrong), f"MOVED {slot} {HOST}:{port}")


@test
def resp3_shows_maps():
    cli("-c", "hset", "h", "f", "v")
    port, _ = owner_of("h")
    contains(cli("-3", "--no-raw", "hgetall", "h", port=port), '1# "f" => "v"')
    contains(cli("-3", "--no-raw", "hello", port=port), '"server" => "redis"', '"proto" => (integer) 3', '"mode" => "cluster"')


@test
def commands_from_standard_input():
    typed = "set {piped}a 1\nincr {piped}a\nget {piped}a\nmulti\nset {piped}b 2\nget {piped}b\nexec\nnosuch command\n"
    port, _ = owner_of("{piped}")
    lines = cli(port=port, typed=typed).splitlines()
    equal(lines[:4] + lines[4:6] + lines[6:8], ["OK", "2", "2", "OK", "QUEUED", "QUEUED", "OK", "2"])
    contains(lines[8], "ERR unknown command")


@test
def mass_insertion_with_pipe():
    port, _ = owner_of("{mass}")
    raw = "".join(f"*3\r\n$3\r\nSET\r\n${len(k)}\r\n{k}\r\n$1\r\nv\r\n" for k in (f"{{mass}}{i}" for i in range(20_000)))
    contains(cli("--pipe", port=port, typed=raw), "errors: 0, replies: 20000")


@test
def inline_commands():
    script = f"exec 3<>/dev/tcp/{HOST}/{PORT}; printf 'PING\\r\\nECHO \"two words\"\\r\\nQUIT\\r\\n' >&3; cat <&3"
    equal(run("bash", "-c", script), "+PONG\n$9\ntwo words\n+OK\n")


@test
def scan_option_walks_each_node():
    flush()
    for i in range(40):
        cli("-c", "set", f"scan:{i}", "v")
    found = [key for port in master_ports() for key in cli("--scan", "--pattern", "scan:*", port=port).split()]
    equal(sorted(found), sorted(f"scan:{i}" for i in range(40)))
    equal(sum(int(cli("dbsize", port=port)) for port in master_ports()), 40)


@test
def bigkeys_and_memkeys():
    port, _ = owner_of("scan:1")
    cli("set", "scan:1", "x" * 5000, port=port)
    contains(cli("--bigkeys", port=port), 'Biggest string found', "scan:1", "5000 bytes")
    contains(cli("--memkeys", port=port), 'Biggest string found', "scan:1")


@test
def cluster_check():
    text = cli("--cluster", "check", f"{HOST}:{PORT}")
    contains(text, "[OK] All nodes agree about slots configuration.", "[OK] All 16384 slots covered.")
    for wrong in ("[ERR]", "[WARNING]"):
        assert wrong not in text, text


@test
def cluster_info():
    text = cli("--cluster", "info", f"{HOST}:{PORT}")
    contains(text, "[OK] 40 keys in 3 masters.")
    equal(len(re.findall(r"\d+ keys \| \d+ slots", text)), 3)


@test
def cluster_call_reaches_every_node():
    text = cli("--cluster", "call", "--cluster-only-masters", f"{HOST}:{PORT}", "ping")
    equal(len(re.findall(r":\d+: PONG", text)), 3)


@test
def cluster_introspection():
    contains(cli("cluster", "info"), "cluster_state:ok", "cluster_slots_assigned:16384", "cluster_slots_ok:16384", "cluster_size:3")
    assert re.fullmatch(r"[0-9a-f]{40}", cli("cluster", "myid"))
    contains(cli("cluster", "help"), "SLOTS", "KEYSLOT")
    equal(cli("cluster", "keyslot", "{user1000}.following"), cli("cluster", "keyslot", "{user1000}.followers"))
    shards = cli("--json", "-3", "cluster", "shards") if supports_json() else None
    assert shards is None or shards.count('"slots"') == 3, shards


def supports_json():
    return "--json" in subprocess.run(["redis-cli", "--help"], capture_output=True, text=True).stderr


@test
def all_nodes_give_the_same_view():
    views = set()
    for port in master_ports():
        lines = [line.split() for line in cli("cluster", "nodes", port=port).splitlines()]
        views.add(tuple(sorted((part[0], *part[8:]) for part in lines if len(part) > 8)))
    equal(len(views), 1)


@test
def command_docs_and_info():
    contains(cli("command", "docs", "get"), "summary")
    equal(cli("command", "info", "get").splitlines()[:2], ["get", "2"])
    equal(cli("command", "getkeys", "mset", "a", "1", "b", "2"), "a\nb")
    assert int(cli("command", "count")) > 80


@test
def client_name_and_info():
    lines = cli(typed="client setname a-test\nclient getname\nclient info\nclient id\n").splitlines()
    equal(lines[:2], ["OK", "a-test"])
    contains(lines[2], "name=a-test", f"id={lines[3]} ")


@test
def tracking_pushes_an_invalidation():
    """A RESP3 redis-cli reads a key; another client writes it; the first is told."""
    cli("-c", "set", "tracked", "1")
    port, _ = owner_of("tracked")
    watcher = subprocess.Popen(["redis-cli", "-3", "--show-pushes", "yes", "-h", HOST, "-p", port], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True, bufsize=1)
    try:
        watcher.stdin.write("client tracking on\nget tracked\n")
        equal([watcher.stdout.readline().strip(), watcher.stdout.readline().strip()], ["OK", "1"])
        cli("set", "tracked", "2", port=port)
        said, deadline = "", time.monotonic() + 5
        while "tracked" not in said:  # redis-cli prints pushes only with the next command's reply
            assert time.monotonic() < deadline, f"no push within 5 s, only {said!r}"
            watcher.stdin.write("ping\n")
            said += watcher.stdout.readline()
    finally:
        watcher.kill()
        watcher.wait()
    contains(said, "invalidate", "tracked")


@test
def a_subscriber_prints_what_is_published_at_another_node():
    for flags in ([], ["-3"]):
        watcher = subprocess.Popen(["redis-cli", *flags, "--no-raw", "-h", HOST, "-p", PORT, "psubscribe", "ne?s"], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, text=True, bufsize=1)
        try:
            said = ""
            while "psubscribe" not in said or "(integer) 1" not in said:
                said += watcher.stdout.readline()
            other = next(port for port in master_ports() if port != PORT)
            equal(cli("publish", "news", "hello", port=other), "0")
            while '"hello"' not in said:
                said += watcher.stdout.readline()
        finally:
            watcher.kill()
            watcher.wait()
        contains(said, '"pmessage"', '"ne?s"', '"news"')


@test
def benchmark_against_the_cluster():
    text = run("redis-benchmark", "-h", HOST, "-p", PORT, "--cluster", "-q", "-t", "set,get,incr,hset,mset", "-n", 20_000, "-r", 1000, "-P", 8)
    for name in ("SET", "GET", "INCR", "HSET", "MSET"):
        assert re.search(rf"^{name}.*: \d+\.\d+ requests per second", text.replace("\r", "\n"), re.M), text
    assert "error" not in text.lower(), text
    flush()


def main():
    failed = 0
    for body in TESTS:
        name = body.__name__.replace("_", " ")
        try:
            body()
            print(f"ok - {name}", flush=True)
        except (AssertionError, subprocess.SubprocessError, OSError, ValueError, IndexError, StopIteration) as error:
            failed += 1
            print(f"not ok - {name}: {type(error).__name__} {error}".replace("\n", " | ")[:600], flush=True)
    sys.exit(1 if failed else 0)


main()

"""usage: commands.py    (CLUSTER_NODE=host:port)
Conversations byte for byte, as no client library lets one hold them: pipelines that mix everything, requests that go unanswered,
transactions that fail, requests in fragments, connections that are closed. One line a test (TAP), exits 1 if one failed."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts/lib"))

from resp import Connection, ReplyError, encode, fields  # noqa: E402

PORT = int(os.environ["CLUSTER_NODE"].split(":")[1])
TESTS = []
KEYS = 200


def test(body):
    TESTS.append(body)
    return body


def connect(port=PORT):
    return Connection(port, timeout=5)


def ask(*words, port=PORT):
    with connect(port) as connection:
        return connection.call(*words)


def moved(key, port=PORT):
    """What the node says to a read of a key that isn't its own: `MOVED slot host:port`; None if it is."""
    try:
        ask("GET", key, port=port)
    except ReplyError as error:
        return str(error)


def keys():
    """A key of this node, another of another slot of it, and a key of another node with what this node says to it."""
    own = [key for key in (f"bytes:{n}" for n in range(KEYS)) if not moved(key)]
    other = next(key for key in (f"bytes:{n}" for n in range(KEYS)) if moved(key))
    return own[0], own[1], other, moved(other)


def pipeline(*lines):
    return b"".join(encode(*line.split(" ")) for line in lines)


def converse(sent, expected, port=PORT):
    """Sends all at once; exactly this must come back. A PING behind it shows that nothing else does."""
    with connect(port) as connection:
        connection.send(sent + encode("PING"))
        equal(connection.reader.read(len(expected) + 7), expected + b"+PONG\r\n")


def until_closed(sent):
    """What comes back until the server closes."""
    with connect() as connection:
        connection.send(sent)
        return connection.reader.read()


def equal(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


@test
def a_pipeline_of_everything_is_answered_in_order():
    own, _, other, elsewhere = keys()
    sent = pipeline(f"SET {own} 1", f"GET {own}", "PING", f"INCR {own}", f"GET {other}", "CLIENT SETNAME x", f"INCR {own}",
                    "CLIENT GETNAME", f"GET {own}", "NOSUCH", f"APPEND {own} 0", f"GET {own}", f"SET {other} 1", f"DEL {own}")
    unknown = b"-ERR unknown command 'NOSUCH', with args beginning with: \r\n"
    away = f"-{elsewhere}\r\n".encode()
    expected = [b"+OK\r\n$1\r\n1\r\n+PONG\r\n:2\r\n", away, b"+OK\r\n:3\r\n$1\r\nx\r\n$1\r\n3\r\n", unknown, b":2\r\n$2\r\n30\r\n",
                away, b":1\r\n"]
    converse(sent, b"".join(expected))


@test
def client_reply_off_and_skip_hold_for_writes_too():
    own, *_ = keys()
    off = pipeline("CLIENT REPLY OFF", f"SET {own} 1", f"INCR {own}", f"GET {own}", "NOSUCH", "CLIENT REPLY ON", f"GET {own}")
    converse(off, b"+OK\r\n$1\r\n2\r\n")
    skip = pipeline("CLIENT REPLY SKIP", f"SET {own} 41", f"INCR {own}", f"GET {own}")
    converse(skip, b":42\r\n$2\r\n42\r\n")
    in_exec = pipeline("CLIENT REPLY OFF", "MULTI", f"SET {own} 7", "EXEC", "CLIENT REPLY ON", f"GET {own}")
    converse(in_exec, b"+OK\r\n$1\r\n7\r\n")


@test
def transactions_that_cannot_run():
    own, same_node, other, elsewhere = keys()
    aborted = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
    arity = b"-ERR wrong number of arguments for 'get' command\r\n"
    away = f"-{elsewhere}\r\n".encode()
    ask("SET", own, "before")
    converse(pipeline("EXEC", "DISCARD"), b"-ERR EXEC without MULTI\r\n-ERR DISCARD without MULTI\r\n")
    converse(pipeline("MULTI", "MULTI", f"WATCH {own}", "EXEC"),
             b"+OK\r\n-ERR MULTI calls can not be nested\r\n-ERR WATCH inside MULTI is not allowed\r\n*0\r\n")
    converse(pipeline("MULTI", "GET", f"SET {own} 1", "EXEC"), b"+OK\r\n" + arity + b"+QUEUED\r\n" + aborted)
    converse(pipeline("MULTI", f"SET {other} 1", f"SET {own} 1", "EXEC"), b"+OK\r\n" + away + b"+QUEUED\r\n" + aborted)
    converse(pipeline("MULTI", f"SET {own} 1", f"SET {same_node} 1", "EXEC"),
             b"+OK\r\n+QUEUED\r\n+QUEUED\r\n-CROSSSLOT Keys in request don't hash to the same slot\r\n")
    converse(pipeline("MULTI", "EXEC now", "EXEC"),
             b"+OK\r\n-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n-ERR EXEC without MULTI\r\n")
    converse(pipeline("MULTI", f"SET {own} 1", "DISCARD", f"GET {own}"), b"+OK\r\n+QUEUED\r\n+OK\r\n$6\r\nbefore\r\n")


@test
def transactions_that_run():
    own, *_ = keys()
    ask("SET", own, "text")
    converse(pipeline("MULTI", f"INCR {own}", f"SET {own} 5", "ECHO hi", f"INCR {own}", "EXEC"),
             b"+OK\r\n" + 4 * b"+QUEUED\r\n" + b"*4\r\n-ERR value is not an integer or out of range\r\n+OK\r\n$2\r\nhi\r\n:6\r\n")
    converse(pipeline("MULTI", f"GET {own}", f"STRLEN {own}", "EXEC"), b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\n6\r\n:1\r\n")
    converse(pipeline(f"WATCH {own}", f"SET {own} 8", "MULTI", f"GET {own}", "EXEC"), b"+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*-1\r\n")
    converse(pipeline(f"WATCH {own}", "MULTI", f"INCR {own}", "EXEC"), b"+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n:9\r\n")


@test
def quit_and_reset_in_a_pipeline():
    own, *_ = keys()
    equal(until_closed(pipeline(f"SET {own} 1", "QUIT", f"SET {own} 2")), b"+OK\r\n+OK\r\n")
    equal(ask("GET", own), "1")
    converse(pipeline("CLIENT SETNAME x", "MULTI", f"SET {own} 3", "RESET", "CLIENT GETNAME", f"GET {own}", "EXEC"),
             b"+OK\r\n+OK\r\n+QUEUED\r\n+RESET\r\n$-1\r\n$1\r\n1\r\n-ERR EXEC without MULTI\r\n")


@test
def requests_by_the_byte_and_inline():
    own, *_ = keys()
    with connect() as connection:
        for at in pipeline(f"SET {own} fragment", f"GET {own}"):
            connection.send(bytes([at]))
        equal(connection.reader.read(19), b"+OK\r\n$8\r\nfragment\r\n")
    converse(f'SET {own} "a\\x20b"\r\n\r\n  GET   {own}  \n'.encode(), b"+OK\r\n$3\r\na b\r\n")


@test
def bad_frames_are_answered_and_closed():
    for sent, why in ((b"*1\r\n$x\r\n", b"invalid bulk length"), (b"*x\r\n", b"invalid multibulk length"),
                      (b"*1\r\n:5\r\n", b"expected '$', got ':'"), (b'GET "a\r\n', b"unbalanced quotes in request")):
        equal(until_closed(pipeline("PING") + sent + pipeline("PING")), b"+PONG\r\n-ERR Protocol error: " + why + b"\r\n")


@test
def wait_counts_copies_and_can_be_killed():
    own, *_ = keys()
    with connect() as connection:
        equal(connection.call("SET", own, "1"), "OK")
        assert connection.call("WAIT", 1, 3000) >= 1
        own_id = connection.call("CLIENT", "ID")
        connection.send(encode("WAIT", 9, 0))
        equal(ask("CLIENT", "KILL", "ID", own_id), 1)
        equal(connection.reader.read(), b"")


@test
def kill_closes_others_and_oneself():
    with connect() as victim:
        equal(ask("CLIENT", "KILL", "ID", victim.call("CLIENT", "ID")), 1)
        equal(victim.reader.read(), b"")
        equal(ask("CLIENT", "KILL", "ID", 999999), 0)
    with connect() as connection:
        own_id = connection.call("CLIENT", "ID")
        connection.send(pipeline(f"CLIENT KILL ID {own_id} SKIPME no", "PING"))
        equal(connection.reader.read(), b":1\r\n")


@test
def idle_connections_are_closed_if_a_timeout_is_set():
    with connect() as connection:
        equal(connection.call("CONFIG", "SET", "timeout", 1), "OK")
        equal(connection.reader.read(), b"")
    equal(ask("CONFIG", "SET", "timeout", 0), "OK")


def masters():
    return sorted({entry[2][1] for entry in ask("CLUSTER", "SLOTS")})


@test
def a_full_shard_takes_no_room_from_the_others():
    own, _, other, elsewhere = keys()
    port = int(elsewhere.rpartition(":")[2])
    for master in masters():
        used = int(fields(ask("INFO", "memory", port=master))["used_memory"])
        ask("CONFIG", "SET", "maxmemory", used + 3_000_000, "maxmemory-policy", "allkeys-lru", port=master)
    try:
        with connect() as connection:
            connection.send(b"".join(encode("SET", f"{{{own}}}:{n}", "x" * 1000) for n in range(6000)))
            equal(connection.reader.read(6000 * 5), 6000 * b"+OK\r\n")
            assert connection.call("DBSIZE") < 5000
        equal(ask("SET", other, "x", port=port), "OK")
    finally:
        for master in masters():
            ask("CONFIG", "SET", "maxmemory", 0, "maxmemory-policy", "noeviction", port=master)
            ask("FLUSHALL", port=master)


@test
def flushall_takes_only_what_it_knows():
    own, *_ = keys()
    ask("SET", own, "1")
    converse(pipeline("FLUSHALL nonsense", "FLUSHALL ASYNC", "DBSIZE"), b"-ERR syntax error\r\n+OK\r\n:0\r\n")


def main():
    failed = 0
    for body in TESTS:
        name = body.__name__.replace("_", " ")
        try:
            body()
            print(f"ok - {name}", flush=True)
        except (AssertionError, OSError, ReplyError, StopIteration) as error:
            failed += 1
            print(f"not ok - {name}: {type(error).__name__} {error}".replace("\n", " | ")[:900], flush=True)
    sys.exit(1 if failed else 0)


main()

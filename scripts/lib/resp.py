"""A few lines of RESP2 over a socket: what the runner itself asks nodes, independent of every client under test."""

import socket


class ReplyError(Exception):
    """An error reply of the server, text without the leading `-`."""


class Connection:
    """One blocking connection to one node. Follows no redirects and keeps no state: what the node says is what you get."""

    def __init__(self, port, host="127.0.0.1", timeout=3.0):
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.reader = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.reader.close()
        self.socket.close()

    def call(self, *words):
        """Sends one command; gives str (lossy UTF-8), int, None or list; raises ReplyError."""
        self.send(encode(*words))
        return self.read()

    def send(self, raw):
        self.socket.sendall(raw)

    def read(self):
        line = self.reader.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the node closed the connection")
        kind, rest = line[:1], line[1:-2].decode(errors="replace")
        if kind == b"+":
            return rest
        if kind == b"-":
            raise ReplyError(rest)
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if rest == "-1":
                return None
            return self.reader.read(int(rest) + 2)[:-2].decode(errors="replace")
        if kind == b"*":
            return None if rest == "-1" else [self.element() for _ in range(int(rest))]
        raise ConnectionError(f"not RESP2: {line!r}")

    def element(self):
        """An element of an array; errors inside (EXEC) are values, not exceptions."""
        try:
            return self.read()
        except ReplyError as error:
            return error


def encode(*words):
    """One request as an array of bulk strings."""
    words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def fields(text):
    """`name:value` lines (INFO, CLUSTER INFO) as a dict."""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

#!/usr/bin/env python3
"""What a normal client feels while others attack: starts a node, measures the client's requests in peace, then during each
attack, and compares the 99th percentiles.

    tests/flood/flood.py STARLING [--secs 8] [--rate 300] [--factor 2] [--floor-ms 2] [--only WORD]

Attackers and client run on the node's own machine and take its processors too, so attackers are paced: --rate is how
often each of them acts a second. Exits with 1 if a percentile is more than --factor times that in peace, and over the floor,
or if any of the client's requests fails."""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import resource
import shutil
import socket
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "conformance"))
from flock import Node

PAUSE = 0.005


class Client:
    """Reads and writes one key, over one connection, again and again."""

    def __init__(self, node, namespace):
        self.node, self.port = node, int(node.url.rsplit(":", 1)[1])
        self.path = f"/client/v4/accounts/{node.account}/storage/kv/namespaces/{namespace}/values/key"
        self.headers = {"Authorization": f"Bearer {node.token}"}
        self.connection, self.failures, self.closed = None, [], 0

    def once(self, method):
        for attempt in range(2):
            fresh = self.connection is None
            if fresh:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                self.connection.request(method, self.path, b"value" if method == "PUT" else None, self.headers)
                answer = self.connection.getresponse()
                answer.read()
                return answer.status
            except (OSError, http.client.HTTPException):
                # An idle connection may be closed at any time, as every client of HTTP knows.
                self.connection.close()
                self.connection = None
                self.closed += 1
                if fresh:
                    raise
        raise OSError("no answer")

    def measure(self, secs):
        took, end = [], time.monotonic() + secs
        while time.monotonic() < end:
            method = "PUT" if len(took) % 4 == 0 else "GET"
            begun = time.monotonic()
            try:
                status = self.once(method)
                if status != 200:
                    self.failures.append(status)
            except OSError as error:
                self.failures.append(repr(error))
            took.append(time.monotonic() - begun)
            time.sleep(PAUSE)
        took.sort()
        at = lambda percent: took[min(len(took) - 1, len(took) * percent // 100)] * 1000
        return at(50), at(99), len(took)


class Attack:
    """Acts at a rate in a thread of its own, until it is over."""

    def __init__(self, node, rate):
        self.node, self.rate, self.over, self.done = node, rate, False, 0
        self.port = int(node.url.rsplit(":", 1)[1])
        self.held = []
        self.namespace = None
        self.thread = threading.Thread(target=self._run)

    def begin(self):
        self.thread.start()

    def _run(self):
        begun = time.monotonic()
        while not self.over:
            ahead = self.done - (time.monotonic() - begun) * self.rate
            if ahead > 0:
                time.sleep(ahead / self.rate)
            with contextlib.suppress(OSError):
                self.act()
            self.done += 1

    def end(self):
        self.over = True
        self.thread.join()
        for stream in self.held:
            stream.close()

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def say(self, text):
        """One request, answered or not, on a connection of its own."""
        with self.connect() as stream:
            stream.sendall(text)
            stream.settimeout(10)
            stream.recv(4096)


class HalfHeaders(Attack):
    """slowloris: connections that never finish their headers, more of them than there are places"""

    def begin(self):
        for _ in range(4200):
            self.act()
        super().begin()

    def act(self):
        with contextlib.suppress(OSError):
            stream = self.connect()
            stream.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            self.held.append(stream)
        if len(self.held) > 4400:
            self.held.pop(0).close()


class WrongTokens(Attack):
    """requests with tokens that are none"""

    def act(self):
        self.say(b"GET /client/v4/accounts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + os.urandom(20).hex().encode()
                 + b"\r\nConnection: close\r\n\r\n")


class Garbage(Attack):
    """bytes that are no HTTP, and UDP datagrams that are no QUIC"""

    def act(self):
        host, port = self.node.running["gossip"].rsplit(":", 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
            datagram.sendto(b"\xc0" + os.urandom(1199), (host, int(port)))
        self.say(os.urandom(2000) + b"\r\n\r\n")


class GiantHeaders(Attack):
    """headers beyond the limit"""

    def act(self):
        self.say(b"GET / HTTP/1.1\r\nHost: x\r\nX-Huge: " + b"x" * 80_000 + b"\r\n\r\n")


class DeepJson(Attack):
    """with a valid token: JSON nested a hundred thousand deep, and megabytes that are no JSON"""

    def act(self):
        self.put_in_bulk(b"[" * 100_000 if self.done % 2 else b"x" * 300_000)

    def put_in_bulk(self, body):
        self.say(
            f"PUT /client/v4/accounts/{self.node.account}/storage/kv/namespaces/{self.namespace}/bulk HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {self.node.token}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        )


class LongJson(DeepJson):
    """with a valid token: a megabyte of JSON whose last pair is wrong, so that all of it is read for nothing"""

    def __init__(self, node, rate):
        # Reading that takes milliseconds, and these are not to take a whole processor.
        super().__init__(node, rate / 10)
        pairs = [{"key": f"key-{n}", "value": "x" * 60} for n in range(9_000)] + [{"key": "wrong", "value": 1}]
        self.body = json.dumps(pairs).encode()

    def act(self):
        self.put_in_bulk(self.body)


ATTACKS = [HalfHeaders, WrongTokens, Garbage, GiantHeaders, DeepJson, LongJson]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("starling")
    parser.add_argument("--secs", type=float, default=8)
    parser.add_argument("--rate", type=float, default=300)
    parser.add_argument("--factor", type=float, default=2)
    parser.add_argument("--floor-ms", type=float, default=2)
    parser.add_argument("--only", metavar="WORD", default="", help="attacks whose description has this word")
    options = parser.parse_args()
    # This process holds both ends' worth of connections; the node raises its own limit.
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    home = pathlib.Path(tempfile.mkdtemp(prefix="starling-flood-"))
    node = Node(options.starling, home / "node", "FRA", more=["--worker-engine", "none", "--log", "error"])
    failed = False
    try:
        namespace = node.create_namespace("flood")
        client = Client(node, namespace)
        client.measure(2)
        print("| attack | a second | p50, ms | p99, ms | p99 / in peace | the client's failures |")
        print("|---|---|---|---|---|---|")
        for attack in [attack for attack in ATTACKS if options.only in attack.__doc__]:
            quiet = client.measure(options.secs)
            hostile = attack(node, options.rate)
            hostile.namespace = namespace
            hostile.begin()
            before, begun, client.failures = hostile.done, time.monotonic(), []
            try:
                p50, p99, _ = client.measure(options.secs)
                rate = (hostile.done - before) / (time.monotonic() - begun)
            finally:
                hostile.end()
            ratio = p99 / quiet[1]
            bad = client.failures or (ratio > options.factor and p99 > options.floor_ms)
            failed |= bool(bad)
            print(f"| {attack.__doc__} | {rate:.0f} | {quiet[0]:.2f} → {p50:.2f} | {quiet[1]:.2f} → {p99:.2f} | {ratio:.2f}"
                  f"{' **too much**' if bad else ''} | {client.failures[:3] or 'none'} |", flush=True)
            time.sleep(1)
        status = json.dumps(node.status()["counters"].get("failed_logins"))
        print(f"\nfailed logins counted: {status}; connections that the client had to open anew: {client.closed}")
    finally:
        node.stop()
        shutil.rmtree(home, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

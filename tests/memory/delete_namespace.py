#!/usr/bin/env python3
"""A namespace of a million keys is deleted: what its neighbours feel of it, and how long it takes.

Usage: tests/memory/delete_namespace.py target/release/starling [keys]
Prints p50, p99 and the worst of puts and gets in another namespace, one at a time: before, and while the keys go.
Needs Python 3, nothing else.
"""
import http.client, json, os, sys, tempfile, threading, time

from node import Node

BATCH = 10_000
QUIET_SECS = 8
# What the disk gives differs from machine to machine: the neighbour's p99 may rise by this factor, or to this.
FACTOR_MAX, P99_MS_MAX = 5, 50


class Client:
    def __init__(self, node):
        self.node = node
        self.connection = http.client.HTTPConnection(node.address, timeout=300)

    def call(self, method, path, body=b""):
        self.connection.request(method, path, body, {"Authorization": f"Bearer {self.node.token}"})
        answer = self.connection.getresponse()
        return answer.status, answer.read()


def space(client, title):
    _, body = client.call("POST", client.node.path, json.dumps({"title": title}))
    return f"{client.node.path}/{json.loads(body)['result']['id']}"


def show(name, times):
    times.sort()
    p50, p99, worst = times[len(times) // 2], times[len(times) * 99 // 100], times[-1]
    print(f"  {name}: {len(times)} requests, p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {worst:.1f} ms", flush=True)
    return p99


def neighbour(client, path, until):
    puts, gets = [], []
    number = 0
    while not until():
        for times, method, body in ((puts, "PUT", b"v" * 100), (gets, "GET", b"")):
            start = time.monotonic()
            status, answer = client.call(method, f"{path}/values/k{number % 1000}", body)
            assert status == 200, answer
            times.append((time.monotonic() - start) * 1000)
        number += 1
    return puts, gets


def main():
    keys = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    with tempfile.TemporaryDirectory(prefix="starling-delete-") as directory:
        node = Node(sys.argv[1], os.path.join(directory, "a"))
        try:
            client = Client(node)
            doomed, other = space(client, "doomed"), space(client, "other")
            start = time.monotonic()
            for batch in range(0, keys, BATCH):
                pairs = [{"key": f"key-{number:08}", "value": "v" * 100} for number in range(batch, min(batch + BATCH, keys))]
                status, body = client.call("PUT", f"{doomed}/bulk", json.dumps(pairs))
                assert status == 200, body
            print(f"{keys} keys written in {time.monotonic() - start:.1f} s", flush=True)
            entries = lambda: json.loads(Client(node).call("GET", "/starling/v1/status")[1])["entries"]
            end = time.monotonic() + QUIET_SECS
            print("before:")
            before = [show(*pair) for pair in zip(("put", "get"), neighbour(client, other, lambda: time.monotonic() > end))]
            start = time.monotonic()
            assert client.call("DELETE", doomed)[0] == 200
            gone = threading.Event()

            def watch():
                while entries() > keys // 1000 + 2_000:
                    time.sleep(0.2)
                gone.set()

            threading.Thread(target=watch, daemon=True).start()
            puts, gets = neighbour(client, other, gone.is_set)
            print(f"while {keys} keys go, which takes {time.monotonic() - start:.1f} s:")
            during = [show("put", puts), show("get", gets)]
            hurt = any(now > max(FACTOR_MAX * was, P99_MS_MAX) for was, now in zip(before, during))
            sys.exit(1 if hurt else 0)
        finally:
            node.stop()


main()

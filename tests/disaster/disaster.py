#!/usr/bin/env python3
"""The disaster drill: three nodes, one copy of a data directory, and then nothing but that copy.

    tests/disaster/disaster.py STARLING [--keys 2000]

A node is stopped, its data directory and cluster key are copied, it goes on. More is written; then all three are killed and
everything of them is deleted. The copy is put back, the lost nodes are evicted, a new one joins. Everything that was
acknowledged before the copy must be there, with nothing of it changed; the life that wrote before writes no more; a value
of several chunks and a Worker are among it. Exits with 1 if anything is missing."""

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "conformance"))
from flock import Flock, Node, eventually
from serving import upload

MORE = ["--worker-engine", "none", "--log", "warn"]


def step(text):
    print(f"{time.monotonic() - BEGUN:6.1f} s  {text}", flush=True)


def value(key):
    return hashlib.sha256(key.encode()).hexdigest().encode()


def values(node, namespace):
    return f"/accounts/{node.account}/storage/kv/namespaces/{namespace}/values"


def put(node, namespace, key, content, acks):
    status, _, text = node.call("PUT", f"{values(node, namespace)}/{key}", content, {"starling-acks": acks})
    assert status == 200, f"{key}: {status} {text}"


def check(node, namespace, keys, large):
    """Every key as it was written."""
    def read(key):
        status, _, text = node.call("GET", f"{values(node, namespace)}/{key}")
        return status == 200 and text == value(key)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        missing = [key for key, is_there in zip(keys, pool.map(read, keys)) if not is_there]
    assert not missing, f"{len(missing)} of {len(keys)} are not as they were: {missing[:5]}"
    status, _, text = node.call("GET", f"{values(node, namespace)}/large")
    assert status == 200 and text == large, f"the large value: {status}, {len(text)} bytes"


def run(binary, home, count):
    flock = Flock(binary, home / "flock", 3, more=MORE)
    try:
        first = flock.nodes[0]
        namespace = first.create_namespace("drill")
        upload(first, "shop", "export default { fetch() { return new Response('open') } }")
        before, large = [f"before-{n}" for n in range(count)], os.urandom(3_000_000)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: put(first, namespace, key, value(key), "2"), before))
        put(first, namespace, "large", large, "all")
        step(f"{count} values acknowledged by two nodes, a large one by all")
        victim = flock.nodes[2]
        eventually(lambda: check(victim, namespace, before, large), 60)
        put(victim, namespace, "of-its-own", value("of-its-own"), "all")
        life = victim.status()["life"]
        assert life, "it has written"
        victim.stop()
        shutil.copytree(victim.directory, home / "copy")
        step("one node was stopped and copied")
        for n in range(50):
            put(first, namespace, f"after-{n}", b"lost with the nodes", "2")
    finally:
        for node in flock.nodes:
            if node.process.poll() is None:
                node.process.kill()
                node.process.wait()
            node.log.close()
    shutil.rmtree(home / "flock")
    step("all three are gone, with their directories")
    restored = Node(binary, home / "copy", "GRU", more=MORE, exists=True)
    try:
        check(restored, namespace, [*before, "of-its-own"], large)
        status, _, text = restored.call("GET", f"/accounts/{restored.account}/workers/scripts/shop")
        assert status == 200 and b"open" in text, text
        step("the copy serves everything that was acknowledged before it was made")
        assert restored.call("GET", f"{values(restored, namespace)}/after-0")[0] == 404, "written after the copy was made"
        put(restored, namespace, "again", value("again"), "1")
        assert restored.status()["life"] != life, "a life that has ended wrote again"
        step("it takes writes, as a new life")
        for peer in restored.status()["peers"]:
            command = [binary, "node", "evict", peer["node"], "--yes", "--data", str(restored.data)]
            evicted = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert evicted.returncode == 0, evicted.stderr
        step("the lost nodes are evicted")
        newcomer = Node(binary, home / "newcomer", "NRT", join=restored.invite(), more=MORE)
        try:
            eventually(lambda: check(newcomer, namespace, [*before, "of-its-own", "again"], large), 120)
            put(newcomer, namespace, "both", value("both"), "all")
            eventually(lambda: check(restored, namespace, ["both"], large), 10)
            command = [binary, "verify", "--data", str(newcomer.data), "--json"]
            verified = subprocess.run(command, capture_output=True, text=True, timeout=120)
            assert verified.returncode == 0, verified.stdout + verified.stderr
            step(f"a new node has it all, and both agree: {json.loads(verified.stdout)['compared']} entries compared")
        finally:
            newcomer.stop()
    finally:
        restored.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("starling")
    parser.add_argument("--keys", type=int, default=2000)
    options = parser.parse_args()
    home = pathlib.Path(tempfile.mkdtemp(prefix="starling-disaster-"))
    try:
        run(options.starling, home, options.keys)
        step("nothing is missing")
    finally:
        shutil.rmtree(home, ignore_errors=True)


BEGUN = time.monotonic()

if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""The disaster drills: three nodes, one backup or one copy of a data directory, and then nothing else.

    tests/disaster/disaster.py STARLING [--keys 2000] [--drill backup|copy|both]

backup: while users write, `starling backup` of one node is taken, interrupted once, and checked. All three nodes are killed
and everything of them but the file and the cluster key is deleted. `starling restore` makes a node of the file, two new
ones join it. All three must have every value that was acknowledged before the backup began, a value of several chunks and
a Worker among them, take writes, and agree.

copy: a node is stopped, its data directory and cluster key are copied, it goes on. More is written; then all three are killed and
everything of them is deleted. The copy is put back, the lost nodes are evicted, a new one joins. Everything that was
acknowledged before the copy must be there, with nothing of it changed; the life that wrote before writes no more; a value
of several chunks and a Worker are among it. Exits with 1 if anything is missing."""

import argparse
import concurrent.futures
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
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


def start_and_fill(binary, home, count):
    """Three nodes with values, a large one and a Worker: the flock, the namespace, keys and the large value."""
    flock = Flock(binary, home / "flock", 3, more=MORE)
    try:
        first = flock.nodes[0]
        namespace = first.create_namespace("drill")
        upload(first, "shop", "export default { fetch() { return new Response('open') } }")
        before, large = [f"before-{n}" for n in range(count)], os.urandom(3_000_000)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: put(first, namespace, key, value(key), "2"), before))
        put(first, namespace, "large", large, "all")
        eventually(lambda: check(flock.nodes[2], namespace, before, large), 60)
    except BaseException:
        end(flock)
        raise
    step(f"{count} values acknowledged by two nodes, a large one by all")
    return flock, namespace, before, large


def end(flock):
    """Kills what still runs, without a warning."""
    for node in flock.nodes:
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()
        node.log.close()


def starling(binary, *words):
    said = subprocess.run([str(word) for word in (binary, *words)], capture_output=True, text=True, timeout=600)
    assert said.returncode == 0, f"{words}: {said.stdout}{said.stderr}"
    return said.stdout


def drill_backup(binary, home, count):
    flock, namespace, before, large = start_and_fill(binary, home, count)
    file, key = home / "drill.starling", home / "cluster.key"
    stop = threading.Event()
    try:
        def write_on():
            for n in itertools.takewhile(lambda _: not stop.is_set(), itertools.count()):
                put(flock.nodes[n % 3], namespace, f"meanwhile-{n % 500}", str(n).encode(), "1")
        writer = threading.Thread(target=write_on)
        writer.start()
        source = flock.nodes[1]
        command = [binary, "backup", file, "--data", source.data]
        interrupted = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        part = pathlib.Path(f"{file}.part")
        while interrupted.poll() is None and not (part.exists() and part.stat().st_size > 1_000_000):
            time.sleep(0.001)
        interrupted.kill()
        interrupted.wait()
        starling(*command)
        stop.set()
        writer.join()
        step(f"a node was backed up while users wrote: {file.stat().st_size >> 10} KiB")
        assert file.stat().st_mode & 0o777 == 0o600
        shutil.copy(f"{source.data}.key", key)
    finally:
        stop.set()
        end(flock)
    shutil.rmtree(home / "flock")
    step("all three are gone, with their directories")
    starling(binary, "verify", "--backup", file, "--cluster-key-file", key)
    (home / "restored").mkdir()
    data = home / "restored" / "data"
    told = json.loads(starling(binary, "restore", file, "--data", data, "--cluster-key-file", key, "--json"))
    assert told["evicted"] == 3, told
    starling(binary, "verify", "--offline", "--data", data, "--cluster-key-file", key)
    step(f"the backup is whole, and a data directory is made of it: {told['rows']} rows")
    nodes = [Node(binary, home / "restored", "GRU", more=[*MORE, "--cluster-key-file", str(key)], exists=True)]
    try:
        nodes += [Node(binary, home / pop, pop, join=nodes[0].invite(), more=MORE) for pop in ("NRT", "SYD")]
        for node in nodes:
            eventually(lambda: check(node, namespace, before, large), 120)
            status, _, text = node.call("GET", f"/accounts/{node.account}/workers/scripts/shop")
            assert status == 200 and b"open" in text, text
            put(node, namespace, f"new-{node.node}", value(f"new-{node.node}"), "all")
        step("it serves all that was acknowledged before, and so do two new nodes")
        for node in nodes[1:]:
            verified = json.loads(starling(binary, "verify", "--data", node.data, "--json"))
            assert verified["checked"]["damaged"] == 0 and verified["compared"] > count, verified
        step(f"all agree: {verified['compared']} entries compared, {verified['checked']['seals']} seals opened")
    finally:
        for node in nodes:
            node.stop()


def drill_copy(binary, home, count):
    flock, namespace, before, large = start_and_fill(binary, home, count)
    try:
        first = flock.nodes[0]
        victim = flock.nodes[2]
        put(victim, namespace, "of-its-own", value("of-its-own"), "all")
        life = victim.status()["life"]
        assert life, "it has written"
        victim.stop()
        shutil.copytree(victim.directory, home / "copy")
        step("one node was stopped and copied")
        for n in range(50):
            put(first, namespace, f"after-{n}", b"lost with the nodes", "2")
    finally:
        end(flock)
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
    parser.add_argument("--drill", choices=["backup", "copy", "both"], default="both")
    options = parser.parse_args()
    for name, drill in (("backup", drill_backup), ("copy", drill_copy)):
        if options.drill not in (name, "both"):
            continue
        step(f"the drill of the {name}")
        home = pathlib.Path(tempfile.mkdtemp(prefix="starling-disaster-"))
        try:
            drill(options.starling, home, options.keys)
            step("nothing is missing")
        finally:
            shutil.rmtree(home, ignore_errors=True)


BEGUN = time.monotonic()

if __name__ == "__main__":
    main()

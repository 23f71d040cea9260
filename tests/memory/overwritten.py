#!/usr/bin/env python3
"""Disk of a node whose large values are overwritten again and again.

Usage: tests/memory/overwritten.py target/release/starling [MiB to write]
Some twenty mebibytes of values are kept, and overwritten at random until so much was written (640 MiB). Prints what lies in
the data directory on the way: journals, and files of chunks beside the tree. Fails if these are more than LIMIT_MIB
once as much was written as the journal holds. Needs Python 3, nothing else.
"""
import json, os, random, sys, tempfile

from node import Node

KEYS = 60
LENS = [100_000, 300_000, 700_000]
STEP = 64 << 20
LIMIT_MIB = 112


def lie_in(directory):
    sizes = {"journals": 0, "chunks": 0, "rest": 0}
    for where, _, names in os.walk(directory):
        for name in names:
            kind = "chunks" if "blobs" in where.split(os.sep) else "journals" if name.endswith(".jnl") else "rest"
            try:
                sizes[kind] += os.stat(os.path.join(where, name)).st_size
            except FileNotFoundError:
                pass
    return {kind: bytes / (1 << 20) for kind, bytes in sizes.items()}


def main():
    binary, total = sys.argv[1], int(sys.argv[2] if len(sys.argv) > 2 else 640) << 20
    draw = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="starling-overwritten-") as directory:
        node = Node(binary, os.path.join(directory, "node"), [])
        try:
            _, body, _ = node.call("POST", node.path, json.dumps({"title": "overwritten"}))
            space = f"{node.path}/{json.loads(body)['result']['id']}"
            written, reported, live, most = 0, 0, {}, 0
            print("| written, MiB | live | chunks | journals | rest |\n|---|---|---|---|---|")
            while written < total:
                key, length = draw.randrange(KEYS), draw.choice(LENS)
                status, answer, _ = node.call("PUT", f"{space}/values/{key}", os.urandom(1 << 10) * (length >> 10))
                assert status == 200, answer
                written, live[key] = written + length, length
                if written - reported >= STEP:
                    reported = written
                    sizes = lie_in(node.data)
                    most = max(most, sizes["chunks"])
                    print(f"| {written >> 20} | {sum(live.values()) >> 20} | {sizes['chunks']:.0f} | "
                          f"{sizes['journals']:.0f} | {sizes['rest']:.1f} |", flush=True)
        finally:
            node.stop()
    if most > LIMIT_MIB:
        sys.exit(f"files of chunks grew to {most:.0f} MiB, the limit is {LIMIT_MIB}")


if __name__ == "__main__":
    main()

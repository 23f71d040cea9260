#!/usr/bin/env python3
"""Memory of nodes that take values in bulk as fast as they can be sent.

Usage: tests/memory/bulk_load.py target/release/starling target/release/starling-testnet [MiB of large values]
First a million keys of 100 bytes at one of two nodes side by side: peak of resident memory (the kernel's VmHWM), and
what is left a while later. Then values of 16 KiB at one of five nodes that are far from each other, so that the others
can't keep up with it and sync sessions last long; a sixth joins. Fails if a node is above its limit. Needs Python 3 and
Linux, nothing else.
"""
import hashlib, json, os, subprocess, sys, tempfile, time

from node import Node

KEYS = 1_000_000
BATCH = 10_000
SETTLE_SECS = 10
# A million keys are in one node; a newcomer takes what the others have at the speed of its link.
LIMIT_MIB = 200
FAR_LIMIT_MIB = 256
NEWCOMER_LIMIT_MIB = 128


def side_by_side(binary, directory):
    nodes = []
    try:
        first = Node(binary, os.path.join(directory, "a"), ["--name", "a"])
        nodes.append(first)
        _, body, _ = first.call("POST", "/starling/v1/invite", b"{}")
        second = Node(binary, os.path.join(directory, "b"), ["--name", "b", "--join", json.loads(body)["token"]])
        nodes.append(second)
        _, body, _ = first.call("POST", first.path, json.dumps({"title": "bulk"}))
        space = f"{first.path}/{json.loads(body)['result']['id']}"
        text = hashlib.shake_256(b"bulk").hexdigest(BATCH)
        start = time.monotonic()
        for begin in range(0, KEYS, BATCH):
            pairs = [{"key": f"key-{begin + number:08}", "value": text[number:][:100]} for number in range(BATCH)]
            status, answer, _ = first.call("PUT", f"{space}/bulk", json.dumps(pairs))
            assert status == 200, answer
        seconds = time.monotonic() - start
        while second.call("HEAD", f"{space}/values/key-{KEYS - 1:08}")[0] != 200:
            assert time.monotonic() < start + 600, "a value does not arrive"
            time.sleep(0.1)
        time.sleep(SETTLE_SECS)
        peaks, left = [node.peak_mib() for node in nodes], [node.rss_mib() for node in nodes]
        print(f"{KEYS} keys in {seconds:.1f} s ({KEYS / seconds:.0f}/s), MiB: peaks {peaks[0]:.0f} and {peaks[1]:.0f}, "
              f"{SETTLE_SECS} s later {left[0]:.0f} and {left[1]:.0f}", flush=True)
        return max(peaks) <= LIMIT_MIB
    finally:
        for node in nodes:
            node.stop()


def far_apart(binary, testnet, directory, mib):
    out = os.path.join(directory, "bench")
    start = time.monotonic()
    subprocess.run([testnet, "--dir", os.path.join(directory, "planet"), "bench", "--starling", binary, "--only", "bootstrap",
                    "--bootstrap-mib", str(mib), "--out", out], check=True, stderr=subprocess.DEVNULL)
    took = json.load(open(os.path.join(out, "bench.json")))["bootstrap"]
    print(f"{mib} MiB far apart, {time.monotonic() - start:.0f} s in all, {took['seconds']:.1f} s of them until the newcomer had "
          f"it, peaks in MiB: {took['others_peak_mib']}, newcomer {took['memory_peak_mib']}", flush=True)
    return took["others_peak_mib"] <= FAR_LIMIT_MIB and took["memory_peak_mib"] <= NEWCOMER_LIMIT_MIB


def main():
    binary, testnet = (os.path.abspath(path) for path in sys.argv[1:3])
    mib = int(sys.argv[3]) if len(sys.argv) > 3 else 300
    with tempfile.TemporaryDirectory(prefix="starling-bulk-") as directory:
        held = [side_by_side(binary, directory), far_apart(binary, testnet, directory, mib)]
    if not all(held):
        sys.exit(f"above the limit of {LIMIT_MIB}, {FAR_LIMIT_MIB} or {NEWCOMER_LIMIT_MIB} MiB")


main()

#!/usr/bin/env python3
"""Memory of two nodes under 20 concurrent uploads of 25 MiB, then 20 concurrent downloads, then a bulk put of 100 MB.

Usage: tests/memory/big_values.py target/release/starling
Prints the peak of resident memory of each node in each phase (the kernel's VmHWM, reset before each phase); fails if
one is above its limit. Needs Python 3 and Linux, nothing else.
"""
import base64, hashlib, json, os, sys, tempfile, threading, time

from node import Node

UPLOADS = 20
VALUE = 25 * 1024 * 1024
LIMIT_MIB = 256
# A bulk body is in memory while it is parsed, and so are its pairs.
BULK_LIMIT_MIB = 512


def value(number):
    """Bytes that don't compress and tell uploads apart."""
    return hashlib.shake_256(str(number).encode()).digest(VALUE)


def at_once(count, work):
    failures = []

    def run(number):
        try:
            work(number)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the run has failed
            failures.append(f"{number}: {failure!r}")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit("\n".join(failures))


def main():
    binary = sys.argv[1]
    directory = tempfile.TemporaryDirectory(prefix="starling-memory-")
    nodes = []
    failed = False
    try:
        first = Node(binary, os.path.join(directory.name, "a"), ["--name", "a"])
        nodes.append(first)
        _, body, _ = first.call("POST", "/starling/v1/invite", b"{}")
        second = Node(binary, os.path.join(directory.name, "b"), ["--name", "b", "--join", json.loads(body)["token"]])
        nodes.append(second)
        _, body, _ = first.call("POST", first.path, json.dumps({"title": "big"}))
        space = f"{first.path}/{json.loads(body)['result']['id']}"
        values = [value(number) for number in range(UPLOADS)]

        def phase(name, limit, work):
            nonlocal failed
            for node in nodes:
                node.reset_peak()
            start = time.monotonic()
            work()
            seconds = time.monotonic() - start
            peaks = [node.peak_mib() for node in nodes]
            verdict = "ok" if max(peaks) <= limit else f"ABOVE {limit}"
            failed |= max(peaks) > limit
            print(f"{name}: {seconds:.1f} s, peak MiB: writer {peaks[0]:.0f}, receiver {peaks[1]:.0f}: {verdict}", flush=True)

        def upload(number):
            status, body, _ = first.call("PUT", f"{space}/values/big{number}", values[number])
            assert status == 200, body

        def arrive():
            deadline = time.monotonic() + 300
            for number in range(UPLOADS):
                while second.call("HEAD", f"{space}/values/big{number}")[0] != 200:
                    assert time.monotonic() < deadline, "a value does not arrive"
                    time.sleep(0.1)

        def uploads():
            at_once(UPLOADS, upload)
            arrive()

        def download(number):
            status, body, _ = second.call("GET", f"{space}/values/big{number}")
            assert status == 200 and body == values[number], "another value"

        def bulk():
            text = base64.b64encode(value("bulk")[:7400]).decode()
            pairs = [{"key": f"bulk{number}", "value": text, "base64": True} for number in range(10_000)]
            body = json.dumps(pairs).encode()
            print(f"bulk body of {len(body) / 1e6:.1f} MB, 10,000 pairs", flush=True)
            status, answer, _ = first.call("PUT", f"{space}/bulk", body)
            assert status == 200 and json.loads(answer)["result"]["successful_key_count"] == 10_000, answer

        phase(f"{UPLOADS} uploads of 25 MiB", LIMIT_MIB, uploads)
        phase(f"{UPLOADS} overwrites of 25 MiB", LIMIT_MIB, uploads)
        phase(f"{UPLOADS} downloads of 25 MiB", LIMIT_MIB, lambda: at_once(UPLOADS, download))
        phase("bulk put of 10,000", BULK_LIMIT_MIB, bulk)
    finally:
        for node in nodes:
            node.stop()
        directory.cleanup()
    sys.exit(1 if failed else 0)


main()

"""Started by ./run: asks a bare HTTP server and the Workers of a node with wrk, on either engine, and prints tables."""

import contextlib
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "conformance"))
from flock import Flock, Node
from serving import Visitor, engines, settled, until, upload

GET = "export default { async fetch(request, env) { return new Response(await env.KV.get('key')); } }"
PUT = "export default { async fetch(request, env) { await env.KV.put('own', 'x'.repeat(100)); return new Response(); } }"
PLAIN = "export default { fetch() { return new Response('value'); } }"
DEPLOYMENTS = 50
# How often two that are compared take turns.
ROUNDS = 5


def memory(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def wrk(url, connections, secs, host=None):
    """Requests a second, and what half of them and 99 of 100 take at most, as wrk writes it."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{secs}", "--latency", *(["-H", f"Host: {host}"] if host else []), url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    find = lambda pattern: re.search(pattern, said)[1]
    assert "Non-2xx" not in said and "Socket errors" not in said, said
    return float(find(r"Requests/sec:\s+(\S+)")), find(r"\n +50% +(\S+)"), find(r"\n +99% +(\S+)")


def row(*cells):
    print("| " + " | ".join(f"{cell:,.0f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |", flush=True)


@contextlib.contextmanager
def bare(figures):
    """The HTTP server that nodes have, with nothing behind it: its process and its address."""
    server = subprocess.Popen([figures, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with server.stdin as says:
        says.write("HTTP/1.1 200 OK\r\n\r\n" + "00000000000000000001" * 5)
    try:
        yield server.pid, f"http://{server.stdout.readline().strip()}/"
    finally:
        server.kill()
        server.wait()


def share(url, host, limit, secs):
    """Of the bare server's requests a second: the median of rounds in which the two take turns."""
    ratios = [wrk(url, 32, secs, host)[0] / wrk(limit, 32, secs)[0] for _ in range(ROUNDS)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f} in {ROUNDS} rounds)"


def measure(name, binary, more, secs, limit):
    """Loads of a node; what is to be said of it beside."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="starling-figures-"))
    node = Node(binary, home / "node", "FRA", more=[*more, "--log", "error"])
    pids = lambda: [node.process.pid, *engines(node)]
    said = []
    try:
        visitor, namespace = Visitor(node), node.create_namespace("figures")
        node.call("PUT", f"/accounts/{node.account}/storage/kv/namespaces/{namespace}/values/key", b"x" * 100)
        kv = [{"type": "kv_namespace", "name": "KV", "namespace_id": namespace}]
        deployed = 0
        for count in (1, 100):
            while deployed < count:
                upload(node, f"w{deployed}", GET, kv)
                deployed += 1
            upload(node, "plain", PLAIN)
            upload(node, "put", PUT, kv)
            if name == "workerd":
                until(lambda: visitor.ask("w0")[0] == 200, 60)
                settled(node)
            time.sleep(2)
            first = []
            for number in range(count):
                begun = time.monotonic()
                until(lambda: visitor.ask(f"w{number}")[0] == 200, 60)
                first.append(time.monotonic() - begun)
            if count > 1:
                first = sorted(first[1:])
                said.append(f"{name}: the first visit of a script takes {ms(first, 0.5)} ms, {ms(first, 0.99)} ms of 99 in 100.")
                said.append(f"{name}: {sum(map(memory, pids())):.0f} MiB with 100 scripts that were asked once.")
            for script, asked in [("w0", "one KV get"), ("put", "one KV put"), ("plain", "no KV")]:
                until(lambda: visitor.ask(script)[0] == 200)
                for connections in (1, 32):
                    host, url = f"{script}.workers.localhost", f"http://127.0.0.1:{visitor.port}/"
                    rate, p50, p99 = wrk(url, connections, secs, host)
                    row(name, count, asked, connections, rate, p50, p99, f"{sum(map(memory, pids())):.0f}")
                    if (script, connections, count) == ("w0", 32, 1):
                        part = share(url, host, limit, secs)
                        said.append(f"{name}: {part} of the bare server's requests a second, with one KV get.")
        return said
    finally:
        node.stop()
        shutil.rmtree(home, ignore_errors=True)


def ms(times, share):
    return f"{sorted(times)[min(int(len(times) * share), len(times) - 1)] * 1000:.1f}"


def spread(name, binary, more):
    """From a deployment's answer to the first answer of the new version at the last of three PoPs."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="starling-figures-"))
    flock = Flock(binary, home, 3, more=[*more, "--log", "error"])
    try:
        visitors, took = [Visitor(node) for node in flock.nodes], []
        for n in range(DEPLOYMENTS):
            upload(flock.nodes[0], "fresh", f"export default {{ fetch() {{ return new Response('{n}') }} }}")
            begun, ends = time.monotonic(), []

            def wait(visitor):
                until(lambda: visitor.ask("fresh")[2] == str(n).encode(), 60)
                ends.append(time.monotonic() - begun)
            threads = [threading.Thread(target=wait, args=(visitor,)) for visitor in visitors]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took.append(max(ends))
            time.sleep(0.2)
        return [f"{name}: deployed at one of three PoPs, a new version answers at the last of them within {ms(took, 0.5)} ms, "
                f"{ms(took, 0.99)} ms of 99 in 100 ({DEPLOYMENTS} deployments)."]
    finally:
        flock.stop()
        shutil.rmtree(home, ignore_errors=True)


def main():
    binary, figures, workerd, secs = sys.argv[1:]
    row("engine", "scripts deployed", "a request", "connections", "requests/s", "p50", "p99", "memory, MiB")
    row(*["---"] * 8)
    kinds = [("embedded", []), ("workerd", ["--worker-engine", "workerd", "--workerd", workerd])]
    with bare(figures) as (pid, limit):
        for connections in (1, 32):
            row("none: the bare HTTP server", "-", "-", connections, *wrk(limit, connections, secs), f"{memory(pid):.0f}")
        said = [line for name, more in kinds for line in measure(name, binary, more, secs, limit)]
    said += [line for name, more in kinds for line in spread(name, binary, more)]
    print("", *said, sep="\n")


main()

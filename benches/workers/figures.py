"""Started by ./run: deploys Workers to one node, asks one of them with wrk, and prints a table."""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "conformance"))
from flock import Node, eventually
from serving import Visitor, engines, settled, until, upload

CODE = "export default { async fetch(request, env) { return new Response(await env.KV.get('key')); } }"
PLAIN = "export default { fetch() { return new Response('value'); } }"


def memory(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def wrk(visitor, script, connections, secs):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{secs}", "--latency", "-H", f"Host: {script}.workers.localhost"]
    said = subprocess.run([*command, f"http://127.0.0.1:{visitor.port}/"], capture_output=True, text=True, check=True).stdout
    find = lambda pattern: re.search(pattern, said)[1]
    assert "Non-2xx" not in said, said
    return find(r"Requests/sec:\s+(\S+)"), find(r"\n +50% +(\S+)"), find(r"\n +99% +(\S+)")


def measure(name, binary, more, secs):
    home = pathlib.Path(tempfile.mkdtemp(prefix="starling-figures-"))
    node = Node(binary, home / "node", "FRA", more=[*more, "--log", "error"])
    pids = lambda: [node.process.pid, *engines(node)]
    try:
        visitor, namespace = Visitor(node), node.create_namespace("figures")
        node.call("PUT", f"/accounts/{node.account}/storage/kv/namespaces/{namespace}/values/key", b"x" * 100)
        kv = [{"type": "kv_namespace", "name": "KV", "namespace_id": namespace}]
        deployed = 0
        for count in (1, 100):
            while deployed < count:
                upload(node, f"w{deployed}", CODE, kv)
                deployed += 1
            upload(node, "plain", PLAIN)
            for number in range(count):
                until(lambda: visitor.ask(f"w{number}")[0] == 200, 60)
            if name == "workerd":
                settled(node)
            time.sleep(3)
            for script, asked in [("w0", "one KV get"), ("plain", "nothing of KV")]:
                for connections in (1, 32):
                    idle = sum(map(memory, pids()))
                    rate, p50, p99 = wrk(visitor, script, connections, secs)
                    after = sum(map(memory, pids()))
                    print(f"| {name} | {count} | {asked} | {connections} | {rate} | {p50} | {p99} | {idle:.0f}, {after:.0f} |", flush=True)
        took = []
        for n in range(10):
            upload(node, "fresh", f"export default {{ fetch() {{ return new Response('{n}') }} }}")
            begun = time.monotonic()
            until(lambda: visitor.ask("fresh")[2] == str(n).encode())
            took.append(time.monotonic() - begun)
            time.sleep(0.3)
        return (f"{name}: from a deployment's answer to its first response, with {count} scripts: "
                f"{sorted(took)[5] * 1000:.0f} ms (median of 10), {max(took) * 1000:.0f} ms at most.")
    finally:
        node.stop()
        shutil.rmtree(home, ignore_errors=True)


def main():
    binary, workerd, secs = sys.argv[1:]
    print("| engine | scripts | asked | connections | requests/s | p50 | p99 | memory of node and engine, MiB: idle, after |")
    print("|---|---|---|---|---|---|---|---|")
    kinds = [("embedded", []), ("workerd", ["--worker-engine", "workerd", "--workerd", workerd])]
    said = [measure(name, binary, more, secs) for name, more in kinds]
    print("", *said, sep="\n")


main()

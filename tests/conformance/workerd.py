"""A real workerd with our Worker in it, its KV bindings at nodes."""

import json
import os
import pathlib
import select
import shutil
import subprocess
import time
import urllib.request

from clients import HERE, workerd

COMPATIBILITY_DATE = "2026-07-01"


class Namespace:
    """One service of a workerd configuration: a namespace, and where it is served."""

    def __init__(self, binding, at, id, token=None):
        self.binding, self.at = binding, at
        self.headers = {"X-KV-Namespace": id}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"


class Workerd:
    def __init__(self, directory, namespaces):
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "worker.mjs", directory)
        bindings, services = [], []
        for namespace in namespaces:
            service = f"kv-{namespace.binding.lower()}"
            headers = ", ".join(f'(name = "{name}", value = "{value}")' for name, value in namespace.headers.items())
            bindings.append(f'(name = "{namespace.binding}", kvNamespace = "{service}")')
            services.append(
                f'(name = "{service}", external = (address = "{namespace.at}", '
                f"http = (style = host, injectRequestHeaders = [{headers}])))"
            )
        (directory / "config.capnp").write_text(f"""using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = (
      modules = [(name = "worker.mjs", esModule = embed "worker.mjs")],
      compatibilityDate = "{COMPATIBILITY_DATE}",
      bindings = [{", ".join(bindings)}],
    )),
    {", ".join(services)},
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
""")
        reads, writes = os.pipe()
        self.log = open(directory / "log", "wb")
        self.process = subprocess.Popen(
            [workerd(), "serve", directory / "config.capnp", f"--control-fd={writes}"],
            pass_fds=[writes], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL,
        )
        os.close(writes)
        ready, _, _ = select.select([reads], [], [], 30)
        line = os.read(reads, 4096) if ready else b""
        os.close(reads)
        if not line:
            self.stop()
            raise RuntimeError(f"workerd does not listen:\n{(directory / 'log').read_text()}")
        self.url = f"http://127.0.0.1:{json.loads(line.splitlines()[0])['port']}"

    def run(self, *operations):
        """What each operation gave: {"ok": ...} or {"error": ...}."""
        body = json.dumps(operations).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url, body), timeout=120) as answer:
            return json.load(answer)

    def one(self, op, key=None, **more):
        return self.run({"op": op, **({} if key is None else {"key": key}), **more})[0]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

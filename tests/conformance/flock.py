"""Nodes to test against: real processes on ports that the system picks, joined the way an operator joins them."""

import json
import os
import pathlib
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request

POPS = ["FRA", "NRT", "GRU", "SYD", "JNB"]


class Node:
    """One `starling serve`, with its log beside its data."""

    def __init__(self, binary, directory, pop, bindings=None, join=None, dev=False, more=(), exists=False):
        self.binary, self.directory, self.pop = binary, pathlib.Path(directory), pop
        self.data = self.directory / "data"
        self.directory.mkdir(parents=True, exist_ok=exists)
        command = [binary, "serve", "--data", self.data, "--api", "127.0.0.1:0", "--gossip", "127.0.0.1:0"]
        command += ["--pop", pop, "--bindings", bindings or f"unix:{self.directory}/kv.sock"]
        command += ["--dev"] if dev else []
        command += more
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STARLING_")}
        if join:
            environment["STARLING_JOIN"] = join
        self.log = open(self.directory / "log", "wb")
        self.process = subprocess.Popen(
            [str(word) for word in command], env=environment, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL
        )
        self.running = self._wait_until_it_serves()
        self.url, self.account = self.running["api"], self.running["account"]
        self.node = self.running["node"]
        self.api = self.url + "/client/v4"
        self.bindings = self.running["bindings"]
        self.workers = self.running["workers"]
        self.token = (self.data / "admin-token").read_text().strip()

    def _wait_until_it_serves(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                running = json.loads((self.data / "node.json").read_text())
                certificate = running.get("api_certificate")
                self.tls = ssl.create_default_context(cafile=certificate) if certificate else None
                with urllib.request.urlopen(running["api"] + "/healthz", timeout=5, context=self.tls) as answer:
                    if answer.status == 200:
                        return running
            except (OSError, ValueError, urllib.error.URLError):
                pass
            time.sleep(0.05)
        raise RuntimeError(f"the node does not serve:\n{(self.directory / 'log').read_text()}")

    def invite(self):
        command = [self.binary, "invite", "--data", str(self.data)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.split()[-1]

    def call(self, method, path, body=None, headers=None):
        """One raw request below /client/v4: status, headers, bytes."""
        headers = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        request = urllib.request.Request(self.api + path, data=body, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60, context=self.tls) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.headers, refused.read()

    def status(self):
        """What `starling status --json` shows."""
        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.url + "/starling/v1/status", headers=headers)
        with urllib.request.urlopen(request, timeout=60, context=self.tls) as answer:
            return json.loads(answer.read())

    def metrics(self):
        """Samples by name and labels, as Prometheus reads them."""
        request = urllib.request.Request(self.url + "/metrics", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=60, context=self.tls) as answer:
            lines = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    def create_namespace(self, title):
        body = json.dumps({"title": title}).encode()
        status, _, text = self.call("POST", f"/accounts/{self.account}/storage/kv/namespaces", body)
        assert status == 200, text
        return json.loads(text)["result"]["id"]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


class Flock:
    """Some nodes of one cluster."""

    def __init__(self, binary, directory, size=3, more=()):
        self.nodes = []
        try:
            for index in range(size):
                join = self.nodes[0].invite() if self.nodes else None
                self.nodes.append(Node(binary, f"{directory}/{index}", POPS[index], join=join, more=more))
        except BaseException:
            self.stop()
            raise

    def stop(self):
        for node in self.nodes:
            node.stop()


def eventually(check, within_secs=10.0):
    """Runs `check` until it raises nothing, and says how long that took. What arrives from elsewhere takes a moment."""
    begun = time.monotonic()
    while True:
        try:
            check()
            return time.monotonic() - begun
        except AssertionError:
            if time.monotonic() - begun > within_secs:
                raise
            time.sleep(0.01)

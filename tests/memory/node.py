"""A real node as a process, on ports that the system picks."""
import http.client, json, os, subprocess, time


class Node:
    def __init__(self, binary, data, extra=()):
        self.data = data
        self.process = subprocess.Popen(
            [binary, "serve", "--api", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--log", "warn", "--data", data, *extra],
            stdout=subprocess.DEVNULL)
        for _ in range(600):
            try:
                running = json.load(open(os.path.join(data, "node.json")))
                self.address = running["api"].removeprefix("http://")
                self.token = open(os.path.join(data, "admin-token")).read().strip()
                self.path = f"/client/v4/accounts/{running['account']}/storage/kv/namespaces"
                if self.call("GET", "/healthz")[0] == 200:
                    return
            except (OSError, ValueError, KeyError):
                pass
            time.sleep(0.1)
        raise SystemExit("the node does not start")

    def call(self, method, path, body=b"", headers=None):
        connection = http.client.HTTPConnection(self.address, timeout=300)
        connection.request(method, path, body, {"Authorization": f"Bearer {self.token}", **(headers or {})})
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, body, answer.headers

    def reset_peak(self):
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as file:
            file.write("5")

    def peak_mib(self):
        return self.memory_mib("VmHWM")

    def rss_mib(self):
        return self.memory_mib("VmRSS")

    def memory_mib(self, name):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith(name):
                return int(line.split()[1]) / 1024

    def stop(self):
        self.process.terminate()
        self.process.wait()

"""Workers as visitors meet them, good and hostile ones, on both engines under real nodes."""

import argparse
import base64
import collections
import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import mimetypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid

from flock import Flock, Node, eventually
from report import Report

HERE = pathlib.Path(__file__).resolve().parent
WORKER = (HERE / "serving_worker.mjs").read_text()
DATE = "2026-07-01"


class Engine:
    """What runs scripts, with the flags that choose it."""

    def __init__(self, workerd=None):
        self.is_workerd = workerd is not None
        self.more = on_workerd(workerd) if workerd else []
        self.suffix = "" if workerd else ", embedded"
        # No sockets there.
        line = 'import { connect } from "cloudflare:sockets";\n'
        none = "const connect = () => { throw new Error('there are no sockets'); };\n"
        assert line in WORKER
        self.code = WORKER if workerd else WORKER.replace(line, none)

    def settled(self, node, **more):
        if self.is_workerd:
            settled(node, **more)


class Visitor:
    """Asks scripts of one node by their names."""

    def __init__(self, node):
        self.port = int(node.workers.rsplit(":", 1)[1])
        self.tls = node.tls

    def _connect(self, timeout):
        if self.tls is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        return http.client.HTTPSConnection("localhost", self.port, timeout=timeout, context=self.tls)

    def ask(self, script, path="/", method="GET", body=None, headers=None, timeout=90, host=None):
        connection = self._connect(timeout)
        host = host or f"{script}.workers.localhost:{self.port}"
        try:
            connection.request(method, path, body, {"Host": host, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def text(self, script, path="/", **more):
        status, _, body = self.ask(script, path, **more)
        assert status == 200, f"{path}: {status} {body[:500]}"
        return body.decode()


class Load:
    """Visitors that ask one thing again and again, until stopped; what each was told."""

    def __init__(self, visitor, scripts, path="/", each=2):
        self.visitor, self.path, self.stopping = visitor, path, False
        self.told = collections.defaultdict(list)
        self.threads = [threading.Thread(target=self._run, args=(script,)) for script in scripts for _ in range(each)]
        for thread in self.threads:
            thread.start()

    def _run(self, script):
        while not self.stopping:
            begun = time.monotonic()
            try:
                status, _, body = self.visitor.ask(script, self.path)
                told = status if status == 200 else f"{status} {body[:200]}"
            except OSError as error:
                told = repr(error)
            self.told[script].append((told, time.monotonic() - begun))

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join()
        bad = {script: collections.Counter(told for told, _ in all if told != 200) for script, all in self.told.items()}
        return {script: counter for script, counter in bad.items() if counter}

    def count(self):
        return sum(len(all) for all in self.told.values())

    def slowest(self):
        return max(took for all in self.told.values() for _, took in all)


# Visitors who ask for it stay for nearly a minute.
STAYS = """export default { async fetch(request) {
  if (new URL(request.url).pathname === "/stay") await new Promise((done) => setTimeout(done, 55000));
  return new Response("gone");
} }"""


def websocket(stream, host, path, more=""):
    """Asks for a WebSocket; what reads its frames."""
    key = base64.b64encode(os.urandom(16)).decode()
    stream.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n".encode()
    )
    reader = stream.makefile("rb")
    assert b" 101 " in reader.readline()
    while reader.readline().strip():
        pass
    return reader


def heard_on(streams):
    """What has come on those on which anything has, by how often."""
    heard = collections.Counter()
    for stream in streams:
        stream.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            heard[stream.recv(300)] += 1
    return heard.most_common(3)


def upload(node, script, code=WORKER, bindings=(), **more):
    """Deploys a script of one module."""
    metadata = {"main_module": "worker.mjs", "compatibility_date": DATE, "bindings": list(bindings), **more}
    return send(node, script, metadata, [("worker.mjs", "application/javascript+module", code)])


def attempt(node, script, code):
    """Tries to deploy a script of one module: the status, and what is said."""
    metadata = {"main_module": "worker.mjs", "compatibility_date": DATE}
    status, answer = post(node, script, metadata, [("worker.mjs", "application/javascript+module", code)])
    return status, answer.decode()


def send(node, script, metadata, parts):
    status, answer = post(node, script, metadata, parts)
    assert status == 200, f"{status} {answer}"
    return json.loads(answer)["result"]


def post(node, script, metadata, parts):
    boundary = uuid.uuid4().hex
    form = [f'--{boundary}\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{json.dumps(metadata)}\r\n']
    for name, media, text in parts:
        form.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
            f"Content-Type: {media}\r\n\r\n{text}\r\n"
        )
    body = ("".join(form) + f"--{boundary}--\r\n").encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    status, _, answer = node.call("PUT", f"/accounts/{node.account}/workers/scripts/{script}", body, headers)
    return status, answer


def delete(node, script):
    status, _, answer = node.call("DELETE", f"/accounts/{node.account}/workers/scripts/{script}?force=true")
    assert status == 200, f"{status} {answer}"


def bindings(namespace, name):
    return [
        {"type": "kv_namespace", "name": "KV", "namespace_id": namespace},
        {"type": "plain_text", "name": "NAME", "text": name},
        {"type": "json", "name": "JSON", "json": {"a": [1, 'quote " and \\ and \u00e9\n']}},
        {"type": "secret_text", "name": "SECRET", "text": "hush \"hush\" \\n \u00e9"},
    ]


def engines(node):
    """The workerd processes of a node."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent == node.process.pid and "workerd" in os.readlink(entry / "exe"):
                    found.append(int(entry.name))
            except (OSError, IndexError, ValueError):
                pass
    return found


def until(holds, within_secs=20):
    """Waits until something holds."""
    def check():
        assert holds(), "it does not hold"
    eventually(check, within_secs)


def settled(node, count=1, within_secs=90):
    """Waits until a node runs so many processes."""
    def check():
        assert len(engines(node)) == count, f"{len(engines(node))} processes"
    eventually(check, within_secs)


def on_workerd(program):
    return ["--worker-engine", "workerd", "--workerd", str(program)]


def run(report, binary, home, workerd):
    for engine in (Engine(workerd), Engine()):
        serve(report, binary, home, engine)
    more = on_workerd(workerd)
    storms(report, binary, home, more)
    encrypted(report, binary, home, more)
    installed(report, binary, home)


def serve(report, binary, home, engine):
    flock = Flock(binary, home / f"serving{engine.suffix}", 2, more=engine.more)
    try:
        node, other = flock.nodes
        visitor, elsewhere = Visitor(node), Visitor(other)
        namespace, foreign = node.create_namespace("serving"), node.create_namespace("foreign")
        good = ["good-1", "good-2", "good-3"]
        for script in good:
            upload(node, script, engine.code, bindings(namespace, script))
        for script in good:
            for at in (visitor, elsewhere):
                until(lambda: at.ask(script, "/name")[2] == script.encode())
        requests(report, engine, node, visitor, elsewhere, namespace)
        sharing(report, engine, node, visitor, elsewhere, namespace)
        swapping(report, engine, node, visitor, namespace, good)
        hostile(report, engine, node, visitor, namespace, foreign, good)
        measured(report, engine, node)
        if engine.is_workerd:
            ending(report, node, visitor, good, binary, home, engine.more)
    finally:
        flock.stop()
    taking_over(report, binary, home, engine)


def requests(report, engine, node, visitor, elsewhere, namespace):
    def case(name):
        return report.case(f"serving{engine.suffix}", name)

    with case("bindings of every kind, with odd characters"):
        assert json.loads(visitor.text("good-1", "/json")) == {
            "value": {"a": [1, 'quote " and \\ and \u00e9\n']}, "secret": "hush \"hush\" \\n \u00e9"
        }
    with case("request.cf, url, client address; headers of ours can't be forged"):
        headers = {"X-Starling-Cf": '{"colo":"XXX"}', "CF-Connecting-IP": "203.0.113.1", "X-Forwarded-Proto": "https"}
        seen = json.loads(visitor.text("good-1", "/seen?a=b%2Fc", headers=headers))
        assert seen["cf"]["colo"] == "FRA", seen
        assert seen["headers"]["cf-connecting-ip"] == "127.0.0.1", seen
        assert seen["url"] == f"http://good-1.workers.localhost:{visitor.port}/seen?a=b%2Fc", seen
    with case("a Worker reads its own write at once; a bookmark takes a visitor to another PoP"):
        for n in range(20):
            status, headers, body = visitor.ask("good-1", f"/put?key=own&value={n}")
            assert (status, body.decode()) == (200, str(n)), body
            seen = elsewhere.text("good-1", "/get?key=own", headers={"starling-bookmark": headers["starling-bookmark"]})
            assert seen == str(n), f"{seen} for {n}"
        assert "starling-bookmark" not in visitor.ask("good-1", "/get?key=own")[1]
        assert visitor.ask("good-1", headers={"starling-bookmark": "nonsense"})[0] == 400
    with case("bodies stream both ways"):
        assert visitor.text("good-1", "/length", method="POST", body=os.urandom(20_000_000)) == "20000000"
        body = os.urandom(100_000)
        status, headers, echoed = visitor.ask("good-1", "/echo", "POST", body)
        assert status == 200 and echoed == body and headers["x-method"] == "POST"
        connection = http.client.HTTPConnection("127.0.0.1", visitor.port, timeout=30)
        connection.request("GET", "/drip", headers={"Host": "good-1.workers.localhost"})
        answer = connection.getresponse()
        begun, first = time.monotonic(), answer.read1(2)
        assert first == b"0\n" and time.monotonic() - begun < 1, "the first bytes come before the last"
        assert answer.read().count(b"\n") == 9 and time.monotonic() - begun > 1.2
        connection.close()
    with case("status and headers of a Worker reach the visitor"):
        status, headers, body = visitor.ask("good-1", "/status")
        assert (status, headers["x-a"], headers["set-cookie"], body) == (418, "b", "c=d", b"teapot")
    if engine.is_workerd:
        with case("a WebSocket passes through"):
            with socket.create_connection(("127.0.0.1", visitor.port), 30) as stream:
                reader = websocket(stream, "good-1.workers.localhost", "/socket")
                for text in (b"one", b"two"):
                    mask = os.urandom(4)
                    stream.sendall(bytes([0x81, 0x80 | len(text)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(text)))
                    head = reader.read(2)
                    assert reader.read(head[1]) == b"heard " + text
    with case("whoever tails a script sees what it logs and throws, and what it does after its answer"):
        tails = f"/accounts/{node.account}/workers/scripts/good-1/tails"
        made = json.loads(node.call("POST", tails, b'{"filters":[]}')[2])["result"]
        url = urllib.parse.urlparse(made["url"])
        with socket.create_connection((url.hostname, url.port), 30) as stream:
            reader = websocket(stream, url.netloc, url.path, "Sec-WebSocket-Protocol: trace-v1\r\n")
            time.sleep(2)
            asked = [visitor.ask("good-1", path)[0] for path in ("/name", "/throw")]
            assert asked == [200, 500], asked
            events = []
            while len(events) < 2:
                head = reader.read(2)
                length = int.from_bytes(reader.read(2), "big") if head[1] & 127 == 126 else head[1] & 127
                data = reader.read(length)
                if head[0] & 15 in (1, 2):
                    events.append(json.loads(data))
        named, threw = sorted(events, key=lambda event: event["outcome"], reverse=True)
        assert named["scriptName"] == "good-1" and named["outcome"] == "ok", named
        assert named["logs"][0]["message"] == ["asked for", "/name"], named
        assert named["event"]["request"]["url"].endswith("/name"), named
        assert threw["outcome"] == "exception" and threw["exceptions"][0]["message"] == "thrown on purpose", threw
        node.call("DELETE", f"{tails}/{made['id']}")
    with case("the Cache API has what was put into it"):
        assert visitor.text("good-1", "/cache") == "x"
    with case("an exception is 1101, and the script goes on"):
        status, _, body = visitor.ask("good-1", "/throw")
        assert status == 500 and body.startswith(b"error code: 1101\n"), body
        assert visitor.text("good-1").startswith("answer ")
    with case("a body beyond the limit is refused"):
        status, _, body = visitor.ask("good-1", "/echo", "POST", headers={"Content-Length": str(200 << 20)})
        assert status == 413 and b"100 MiB" in body, body
    with case("Babbage's cards: deployed by two calls, a wrong card is noticed and replaced"):
        root = HERE.parents[1]
        subprocess.run([root / "examples/babbage/run", node.data], check=True, capture_output=True, timeout=60)
        until(lambda: visitor.ask("babbage", "/?int=2303")[0] == 200)
        status, headers, card = visitor.ask("babbage", "/?int=2303")
        assert headers["content-type"] == "image/svg+xml" and headers["x-card"] == "store", headers
        assert b"3622939" in card and b"WRONG CARD" not in card
        listed = json.loads(node.call("GET", f"/accounts/{node.account}/storage/kv/namespaces?per_page=100")[2])["result"]
        cards = next(one["id"] for one in listed if one["title"] == "log cards")
        value = f"/accounts/{node.account}/storage/kv/namespaces/{cards}/values/2303"
        assert node.call("GET", value)[2] == b"3622939"
        node.call("PUT", value, b"<b>1234")
        status, headers, card = visitor.ask("babbage", "/?int=2303")
        assert "wrong card" in headers["x-louder-bell"] and b"&#60;b&#62;1234" in card, headers
        assert node.call("GET", value)[2] == b"3622939"
        assert "x-louder-bell" not in visitor.ask("babbage", "/?int=2303")[1]
        assert visitor.ask("babbage", "/?int=0")[0] == 400
    with case("static assets: first where a file matches, through env.ASSETS, and a page for what is missing"):
        files = {"/index.html": b"<h1>home</h1>", "/about.html": b"about", "/404.html": b"nothing here", "/a.css": b"a{}"}
        hashes = {path: hashlib.sha256(body).hexdigest()[:32] for path, body in files.items()}
        manifest = {path: {"hash": hashes[path], "size": len(body)} for path, body in files.items()}
        sessions = f"/accounts/{node.account}/workers/scripts/site/assets-upload-session"
        begun = json.loads(node.call("POST", sessions, json.dumps({"manifest": manifest}).encode())[2])["result"]
        token = begun["jwt"]
        for bucket in begun["buckets"]:
            form = [
                f'--b\r\nContent-Disposition: form-data; name="{hash}"; filename="{hash}"\r\nContent-Type: '
                f'{mimetypes.guess_type(path)[0]}\r\n\r\n{base64.b64encode(files[path]).decode()}\r\n'
                for path, hash in hashes.items() if hash in bucket
            ]
            headers = {"Content-Type": "multipart/form-data; boundary=b", "Authorization": f"Bearer {token}"}
            answer = node.call("POST", f"/accounts/{node.account}/workers/assets/upload?base64=true", ("".join(form) + "--b--\r\n").encode(), headers)
            token = (json.loads(answer[2])["result"] or {}).get("jwt") or token
        code = (
            "export default { async fetch(request, env) { const url = new URL(request.url);"
            " if (url.pathname === '/script') return new Response('script');"
            " if (url.pathname === '/indirect') return env.ASSETS.fetch(new URL('/about', url));"
            " return env.ASSETS.fetch(request); } };"
        )
        metadata = {
            "main_module": "worker.mjs", "compatibility_date": DATE, "bindings": [{"type": "assets", "name": "ASSETS"}],
            "assets": {"jwt": token, "config": {"not_found_handling": "404-page"}},
        }
        send(node, "site", metadata, [("worker.mjs", "application/javascript+module", code)])
        until(lambda: visitor.ask("site")[0] == 200)
        status, headers, body = visitor.ask("site")
        assert body == b"<h1>home</h1>" and headers["content-type"].startswith("text/html"), (headers, body)
        assert visitor.ask("site", headers={"If-None-Match": headers["etag"]})[0] == 304
        assert visitor.text("site", "/a.css") == "a{}" and visitor.text("site", "/script") == "script"
        assert visitor.text("site", "/indirect") == "about"
        status, headers, _ = visitor.ask("site", "/about.html")
        assert (status, headers["location"]) == (307, "/about"), (status, headers)
        status, _, body = visitor.ask("site", "/missing/page")
        assert (status, body) == (404, b"nothing here"), (status, body)
    with case("unknown hosts and the list of scripts"):
        assert visitor.ask("nobody")[0] == 404
        listed = visitor.ask(None, host="localhost")[2].decode()
        assert "good-1\thttp://good-1.workers.localhost" in listed, listed


def sharing(report, engine, node, visitor, elsewhere, namespace):
    def case(name):
        return report.case(f"serving{engine.suffix}", name)

    with case("deployed at one PoP it is live at another within a second"):
        took = []
        for n in range(5):
            upload(node, "fresh", f"export default {{ fetch() {{ return new Response('version {n}') }} }}")
            begun = time.monotonic()
            until(lambda: elsewhere.ask("fresh")[2] == f"version {n}".encode(), 20)
            took.append(time.monotonic() - begun)
        assert sorted(took)[2] < 1, took
        delete(node, "fresh")
        until(lambda: elsewhere.ask("fresh")[0] == 404)
    with case("of two versions each visitor's key keeps its own, at every PoP"):
        for n in (1, 2):
            upload(node, "split", f"export default {{ fetch() {{ return new Response('version {n}') }} }}")
        scripts = f"/accounts/{node.account}/workers/scripts/split"
        versions = json.loads(node.call("GET", f"{scripts}/versions")[2])["result"]["items"]
        assert len(versions) == 2, versions
        shares = [{"version_id": version["id"], "percentage": 50} for version in versions]
        body = json.dumps({"strategy": "percentage", "versions": shares}).encode()
        status, _, answer = node.call("POST", f"{scripts}/deployments", body, {"Content-Type": "application/json"})
        assert status == 200, answer
        for at in (visitor, elsewhere):
            until(lambda: {at.ask("split")[2] for _ in range(30)} == {b"version 1", b"version 2"})
        told = {}
        for n in range(40):
            headers = {"Cloudflare-Workers-Version-Key": f"visitor-{n}"}
            told[n] = {at.text("split", headers=headers) for at in (visitor, elsewhere) for _ in range(4)}
        assert all(len(answers) == 1 for answers in told.values()), told
        firsts = sum(answers == {"version 1"} for answers in told.values())
        assert 8 <= firsts <= 32, f"{firsts} of 40 at half each"
        delete(node, "split")
    with case("a cron trigger fires at one PoP"):
        schedules = f"/accounts/{node.account}/workers/scripts/good-2/schedules"
        status, _, answer = node.call("PUT", schedules, b'[{"cron":"* * * * *"}]', {"Content-Type": "application/json"})
        assert status == 200, answer
        keys = f"/accounts/{node.account}/storage/kv/namespaces/{namespace}/keys?prefix=cron"

        def fired():
            return [key["name"] for key in json.loads(node.call("GET", keys)[2])["result"]]

        def check():
            assert fired(), "nothing yet"
        eventually(check, 75)
        time.sleep(15)
        times = [name.split()[2] for name in fired()]
        assert len(times) == len(set(times)), f"a minute was handled twice: {fired()}"
        node.call("PUT", schedules, b"[]", {"Content-Type": "application/json"})


def swapping(report, engine, node, visitor, namespace, good):
    def case(name):
        return report.case(f"serving{engine.suffix}", name)

    with case("deploying again and again drops no request"):
        load = Load(visitor, [*good, "changing"], "/name")
        upload(node, "changing", engine.code, bindings(namespace, "changing"))
        time.sleep(1)
        load.told.clear()
        for n in range(12):
            upload(node, "changing", f"// {n}\n{engine.code}", bindings(namespace, "changing"))
            time.sleep(0.5)
        time.sleep(3)
        bad = load.stop()
        assert not bad and load.count() > 100, f"{bad} of {load.count()}"
    with case("a slow answer and waitUntil outlive the process's replacement"):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            slow = pool.submit(visitor.text, "changing", "/slow")
            time.sleep(0.2)
            assert visitor.text("changing", "/later?key=later") == "soon"
            upload(node, "changing", f"// again\n{engine.code}", bindings(namespace, "changing"))
            assert slow.result() == "slow"
        until(lambda: visitor.text("good-1", "/get?key=later") == "done", 10)
    with case("a bad deploy breaks nobody else, says why, and is rolled back by a good one"):
        load = Load(visitor, good)
        for code, why in [
            ("throw new Error('at the top')", "at the top"),
            ("syntax error here(", "SyntaxError"),
            ("import './nowhere.mjs'; export default {}", "nowhere.mjs"),
            ("for (;;);", "computed"),
        ]:
            if not engine.is_workerd and why in ("SyntaxError", "nowhere.mjs"):
                # The embedded engine has read it before it is deployed.
                refused = attempt(node, "changing", code)
                assert refused[0] == 400 and why in refused[1] and "10021" in refused[1], refused
                continue
            upload(node, "changing", code)

            def check():
                status, _, body = visitor.ask("changing")
                assert status == 500 and why in body.decode(), f"{status} {body}"
            eventually(check, 60)
        if engine.is_workerd:
            upload(node, "changing", bindings=bindings(namespace, "changing"), compatibility_flags=["experimental"])
            until(lambda: "--experimental" in visitor.ask("changing")[2].decode())
        upload(node, "changing", engine.code, bindings(namespace, "changing"))
        until(lambda: visitor.text("changing", "/name") == "changing")
        bad = load.stop()
        assert not bad, bad
    with case("no secret lies on the disk in the clear"):
        data = pathlib.Path(node.data)
        for path in data.rglob("*"):
            if path.is_file():
                assert b"hush \"hush\"" not in path.read_bytes(), path


def hostile(report, engine, node, visitor, namespace, foreign, good):
    def case(name):
        return report.case(f"hostile{engine.suffix}", name)

    upload(node, "evil", engine.code, bindings(namespace, "evil"))
    until(lambda: visitor.text("evil", "/name") == "evil")
    engine.settled(node)
    for path, code in [("/loop", 1102), ("/async-loop", 1102), ("/objects", 1102), ("/buffers", 1102)]:
        with case(f"{path} costs that script alone"):
            load = Load(visitor, good)
            time.sleep(0.5)
            status, _, body = visitor.ask("evil", path)
            answered = load.count()
            time.sleep(2)
            bad = load.stop()
            assert not bad, f"others: {bad}"
            assert load.count() > answered, "others go on"
            assert status in (502, 503) and (status == 502 or f"error code: {code}".encode() in body), f"{status} {body}"
            def check():
                assert visitor.ask("evil", "/name")[2] == b"evil"
            eventually(check, 70)
    if engine.is_workerd:
        with case("many long stretches, each within the limit, move a script into a process of its own"):
            until(lambda: visitor.ask("evil", "/name")[0] == 200, 70)
            settled(node)
            with concurrent.futures.ThreadPoolExecutor() as pool:
                choppy = pool.submit(visitor.ask, "evil", "/choppy")
                until(lambda: len(engines(node)) > 1)
                load = Load(visitor, good)
                time.sleep(3)
                bad = load.stop()
                assert not bad and load.slowest() < 1.5, f"{bad}, {load.slowest()} s at most"
                assert choppy.result()[0] in (200, 502, 503), choppy.result()
    with case("a second offence is told apart from the innocent, and rests"):
        load = Load(visitor, good)
        told = [visitor.ask("evil", "/objects") for _ in range(4)]
        assert any(status == 503 and b"1102" in body for status, _, body in told), told
        assert not load.stop()
    with case("a storm of KV operations is bounded"):
        until(lambda: visitor.ask("evil", "/name")[0] == 200, 70)
        said = visitor.text("evil", "/storm")
        done = int(said.split()[1])
        assert 0 < done <= 1000 and "Too many API requests" in said, said
        assert visitor.text("evil", "/put?key=k&value=v") == "v", "the next request has its own allowance"
    # Which engine it is makes no difference: the front counts.
    if not engine.is_workerd:
        with case("a script has a thousand visitors at a time, and no one else's place"):
            upload(node, "crowded", STAYS)
            until(lambda: visitor.ask("crowded")[0] == 200, 30)
            crowd = []
            try:
                def one_more():
                    stream = socket.create_connection(("127.0.0.1", visitor.port), 30)
                    crowd.append(stream)
                    stream.sendall(b"GET /stay HTTP/1.1\r\nHost: crowded.workers.localhost\r\n\r\n")

                for _ in range(1000):
                    one_more()
                # A system may lose some that come in such a hurry.
                end = time.monotonic() + 50
                while (asked := visitor.ask("crowded"))[0] != 503:
                    assert time.monotonic() < end and len(crowd) < 1100, f"{asked[0]} with {len(crowd)}: {heard_on(crowd)}"
                    time.sleep(1)
                    one_more()
                assert b"1000 requests" in asked[2], asked[2]
                assert visitor.text("good-1", "/name") == "good-1"
            finally:
                for stream in crowd:
                    stream.close()
            until(lambda: visitor.ask("crowded")[0] == 200, 30)
            delete(node, "crowded")
    with case("a script that calls itself gets nowhere"):
        assert visitor.text("evil", "/fork").startswith("refused: ")
    with case("neither this machine nor private networks can be reached"):
        api = urllib.parse.urlparse(node.url).port
        for url in [
            f"http://127.0.0.1:{api}/", f"http://localhost:{api}/", f"http://[::1]:{api}/", f"http://0.0.0.0:{api}/",
            f"http://[::ffff:127.0.0.1]:{api}/", "http://10.0.0.1/", "http://192.168.0.1/", "http://169.254.169.254/",
            f"unix:{node.data}/w/1/b0", f"http://2130706433:{api}/", f"http://0x7f.1:{api}/",
        ]:
            said = visitor.text("evil", f"/fetch?url={urllib.parse.quote(url)}")
            assert said.startswith("refused: "), f"{url}: {said}"
        for to in [f"127.0.0.1:{api}", f"localhost:{api}", f"[::1]:{api}"]:
            said = visitor.text("evil", f"/connect?to={urllib.parse.quote(to)}")
            assert said.startswith("refused: "), f"{to}: {said}"
    with case("no key leads out of the namespace"):
        for key in [
            f"../{foreign}/x", "..%2F..%2Fx", "/", "//", "bulk/get", "x?urlencoded=false", "x#y", "x\r\nX-KV-Namespace: " + foreign,
            "\u0000", "x y", "%", "?key_count_limit=1",
        ]:
            said = visitor.text("evil", f"/escape?key={urllib.parse.quote(key, safe='')}")
            assert said == 'done: ["mine",true]' or said.startswith("refused: "), f"{key!r}: {said}"
        _, _, listed = node.call("GET", f"/accounts/{node.account}/storage/kv/namespaces/{foreign}/keys")
        assert json.loads(listed)["result"] == []
    with case("giant headers do no harm"):
        assert visitor.ask("evil", headers={"X-Huge": "x" * 100_000})[0] == 431
        assert visitor.ask("evil", headers={f"X-{n}": "x" for n in range(500)})[0] == 431
        visitor.ask("evil", "/headers")
        status, _, _ = visitor.ask("evil", "/huge-headers")
        assert status in (200, 500, 502), status
        assert visitor.text("good-1").startswith("answer ")
    with case("the node's environment is not a script's"):
        assert visitor.text("evil", "/env") in ("done: null", "done: {}"), visitor.text("evil", "/env")


def measured(report, engine, node):
    with report.case(f"serving{engine.suffix}", "what was answered and what runs is measured, and shown by `starling status`"):
        samples = node.metrics()
        requests = lambda script, outcome: samples.get(
            f'starling_worker_requests_total{{script="{script}",outcome="{outcome}"}}', 0)
        assert requests("good-1", "answered") > 100 and requests("good-1", "exception") >= 1, samples
        assert requests("evil", "exceeded") >= 4 and requests("changing", "unloadable") >= 2, samples
        assert samples["starling_worker_scripts"] >= 4
        ended = lambda why: samples.get(f'starling_worker_ended_total{{why="{why}"}}', 0)
        assert ended("cpu") >= 1 and ended("memory") + ended("crash") >= 1, samples
        if engine.is_workerd:
            assert samples["starling_worker_processes"] == len(engines(node)) >= 1
            assert samples["starling_worker_memory_bytes"] > 20 << 20
        else:
            assert samples["starling_worker_processes"] == 0 and samples["starling_worker_runtimes"] >= 3, samples
            assert samples["starling_worker_memory_bytes"] > 500_000, samples
        assert samples["starling_worker_request_duration_seconds_count"] > 100
        shown = node.status()["workers"]
        kind = "processes" if engine.is_workerd else "runtimes"
        assert shown["answered"] > 100 and shown["failed"] > 4 and shown[kind] >= 1, shown
        command = [node.binary, "status", "--data", str(node.data)]
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
        line = next(line for line in said.splitlines() if line.strip().startswith("workers"))
        assert "scripts in" in line and "requests answered" in line and "before their time" in line, line


FORK = """let visits = 0, refusals = 0;
export default {
  async fetch(request) {
    const url = new URL(request.url);
    if (url.pathname === "/count") return Response.json({ visits, refusals });
    visits++;
    if (url.pathname === "/times") {
      const asked = Array.from({ length: Number(url.searchParams.get("n")) }, () => fetch(url.searchParams.get("url")));
      const told = await Promise.allSettled(asked);
      const refused = told.filter(({ status }) => status === "rejected");
      return Response.json([told.length - refused.length, refused[0]?.reason.message]);
    }
    const each = { length: Number(url.searchParams.get("each")) };
    const told = await Promise.allSettled(Array.from(each, () => fetch(request.url)));
    refusals += told.filter(({ reason }) => /Too many subrequests/.test(reason?.message)).length;
    return new Response(request.headers.get("cdn-loop"));
  },
};"""


def storms(report, binary, home, more):
    """Where scripts may fetch from this machine, and so from themselves."""
    node = Node(binary, home / "storms", "LON", more=[*more, "--workers-fetch-local"])
    try:
        visitor = Visitor(node)
        for name in ("fork", "good"):
            upload(node, name, FORK if name == "fork" else WORKER, bindings(node.create_namespace(name), name))
        body = json.dumps({"pattern": "127.0.0.1/*", "script": "fork"}).encode()
        zone = json.loads(node.call("GET", "/zones?name=127.0.0.1")[2])["result"][0]["id"]
        status, _, answer = node.call("POST", f"/zones/{zone}/workers/routes", body, {"Content-Type": "application/json"})
        assert status == 200, answer
        count = lambda: json.loads(visitor.text("fork", "/count"))
        until(lambda: visitor.ask("good", "/name")[2] == b"good" and visitor.ask("fork", "/count")[0] == 200, 30)
        settled(node)
        with report.case("hostile", "a request may fetch 1,000 times, whatever comes of it"):
            url = urllib.parse.quote(f"{node.url}/healthz", safe="")
            done, refused = json.loads(visitor.text("fork", f"/times?n=1200&url={url}"))
            assert (done, refused) == (1000, "Too many subrequests by single Worker invocation."), (done, refused)
            done, refused = json.loads(visitor.text("fork", f"/times?n=10&url={url}"))
            assert (done, refused) == (10, None), "the next one has its own"
            nowhere = urllib.parse.quote("http://127.0.0.1:1/", safe="")
            done, refused = json.loads(visitor.text("fork", f"/times?n=1&url={nowhere}"))
            assert done == 0 and "subrequests" not in refused, refused
        with report.case("hostile", "a script that asks itself, four times each time, comes to an end"):
            before, host = count()["visits"], f"127.0.0.1:{visitor.port}"
            visitor.text(None, "/?each=4", host=host)
            after = count()
            # The visitor's thousand, for all that are being answered, and what few each of those brings.
            assert 5 <= after["visits"] - before <= 10_000 and after["refusals"] > 0, after
            time.sleep(1)
            assert count() == after, "nothing goes on"
        with report.case("hostile", "a storm of a script's own requests ends, and costs that script alone"):
            load = Load(visitor, ["good"], "/name")
            status, _, body = visitor.ask(None, "/?each=30", host=host)
            bad = load.stop()
            assert status == 200 or b"error code: 1102" in body, f"{status} {body}"
            assert not bad and load.count() > 3, f"others: {bad} of {load.count()}"
            visits = lambda: sum(n for name, n in node.metrics().items() if 'requests_total{script="fork"' in name)
            until(lambda: (before := visits()) == (time.sleep(1), visits())[1] and before < 30_000)
            until(lambda: visitor.ask("fork", f"/times?n=10&url={url}")[2] == b"[10,null]", 70)
    finally:
        node.stop()


def encrypted(report, binary, home, more):
    node = Node(binary, home / "encrypted", "LON", more=[*more, "--tls-auto"])
    try:
        visitor = Visitor(node)
        upload(node, "good", bindings=bindings(node.create_namespace("encrypted"), "good"))
        until(lambda: visitor.ask("good", "/name")[0] == 200, 30)
        with report.case("serving", "a visit over HTTPS, whose certificate the cluster's authority has signed"):
            assert node.workers.startswith("https://"), node.workers
            seen = json.loads(visitor.text("good", "/seen?a=b"))
            assert seen["url"] == f"https://good.workers.localhost:{visitor.port}/seen?a=b", seen
            body = os.urandom(300_000)
            assert visitor.ask("good", "/echo", "POST", body)[2] == body
            assert visitor.text("good", "/put?key=k&value=v") == "v"
            raw = socket.create_connection(("localhost", visitor.port), 30)
            with visitor.tls.wrap_socket(raw, server_hostname="localhost") as stream:
                assert stream.version() == "TLSv1.3"
                reader = websocket(stream, "good.workers.localhost", "/socket")
                stream.sendall(bytes([0x81, 0x83, 0, 0, 0, 0]) + b"one")
                head = reader.read(2)
                assert reader.read(head[1]) == b"heard one"
        with report.case("serving", "plain HTTP where HTTPS is served gets nowhere"):
            plain = http.client.HTTPConnection("127.0.0.1", visitor.port, timeout=30)
            try:
                plain.request("GET", "/name", headers={"Host": "good.workers.localhost"})
                answered = plain.getresponse().status
            except (OSError, http.client.HTTPException):
                answered = None
            assert answered != 200, answered
            assert visitor.text("good", "/name") == "good"
    finally:
        node.stop()


CRON = """export default {
  fetch: () => new Response("ready"),
  async scheduled(controller, env) {
    await env.KV.put(`begun ${controller.scheduledTime} ${crypto.randomUUID()}`, "");
    await scheduler.wait(40_000);
    await env.KV.put(`done ${controller.scheduledTime} ${crypto.randomUUID()}`, "");
  },
};"""


def taking_over(report, binary, home, engine):
    """Takes up to two minutes: timers are a minute apart."""
    flock = Flock(binary, home / f"cron{engine.suffix}", 2, more=engine.more)
    try:
        node, namespace = flock.nodes[0], flock.nodes[0].create_namespace("cron")
        upload(node, "timer", CRON, [{"type": "kv_namespace", "name": "KV", "namespace_id": namespace}])
        for each in flock.nodes:
            until(lambda: Visitor(each).ask("timer")[2] == b"ready", 30)
            engine.settled(each)

        def notes(at, prefix):
            path = f"/accounts/{at.account}/storage/kv/namespaces/{namespace}/keys?prefix={prefix}"
            return [key["name"].split()[1] for key in json.loads(at.call("GET", path)[2])["result"]]

        written = lambda: {each.node: each.status()["last_write"] for each in flock.nodes}
        with report.case(f"serving{engine.suffix}", "the PoP that has a timer is lost: another one handles it"):
            schedules = f"/accounts/{node.account}/workers/scripts/timer/schedules"
            body, media = b'[{"cron":"* * * * *"}]', {"Content-Type": "application/json"}
            assert node.call("PUT", schedules, body, media)[0] == 200
            # What a node writes by itself, such as that a token was used, is written by then.
            for each in flock.nodes:
                notes(each, "begun")
            time.sleep(1)
            before = written()
            until(lambda: notes(node, "begun"), 75)
            time.sleep(0.5)
            after, minute = written(), notes(node, "begun")[0]
            wrote = {each.node: (after[each.node] or 0) - (before[each.node] or 0) for each in flock.nodes}
            # A note of its own, and what the script has put.
            owner = max(flock.nodes, key=lambda each: wrote[each.node])
            [heir] = [each for each in flock.nodes if each is not owner]
            assert wrote[owner.node] >= 2 and wrote[heir.node] < 2, wrote
            assert notes(heir, "begun") == [minute] and not notes(heir, "done")
            owner.process.kill()
            owner.process.wait()
            until(lambda: notes(heir, "begun").count(minute) == 2, 45)
            until(lambda: minute in notes(heir, "done"), 60)
            assert notes(heir, "done").count(minute) == 1 and notes(heir, "begun").count(minute) == 2
            # It is counted once the script has returned: a moment after it has said so itself.
            until(lambda: heir.metrics().get('starling_worker_timers_total{outcome="handled"}', 0) >= 1, 10)
    finally:
        flock.stop()


def ending(report, node, visitor, good, binary, home, more):
    def case(name):
        return report.case("serving", name)

    with case("workerd killed under load: requests that can be repeated are, and it is back"):
        load = Load(visitor, good)
        time.sleep(0.5)
        for _ in range(4):
            for pid in engines(node):
                os.kill(pid, signal.SIGKILL)
            time.sleep(1.5)
        bad = load.stop()
        assert not bad and load.count() > 50, f"{bad} of {load.count()}"
        assert visitor.text("good-1", "/name") == "good-1"
    with case("nothing outlives a node that is stopped or killed"):
        lone = Node(binary, home / "lone", "LON", more=more)
        try:
            upload(lone, "one", "export default { fetch() { return new Response('one') } }")
            until(lambda: Visitor(lone).text("one") == "one", 30)
            pids = engines(lone)
            assert pids
            lone.process.kill()
            lone.process.wait()
            def check():
                assert not any(pathlib.Path(f"/proc/{pid}/exe").exists() for pid in pids), pids
            eventually(check)
        finally:
            lone.stop()
        again = Node(binary, home / "again", "LON", more=more)
        upload(again, "one", "export default { fetch() { return new Response('one') } }")
        until(lambda: Visitor(again).text("one") == "one", 30)
        pids = engines(again)
        again.stop()
        assert pids and not any(pathlib.Path(f"/proc/{pid}/exe").exists() for pid in pids), pids
        assert not (again.data / "w").exists()


def installed(report, binary, home, more=()):
    """No workerd is named: it is where `starling workers install` puts it."""
    place = home / "installed"
    place.mkdir()
    with report.case("serving", "workerd is installed through npm, into a directory named from here, and a node there runs it"):
        command = [binary, "workers", "install", "--json", "--data", "data"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STARLING_")}
        for is_new in (True, False):
            done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["installed"] is is_new, done.stdout
        # One that is named nowhere else: neither on PATH nor in node_modules.
        node = Node(binary, place, "LON", more=["--worker-engine", "workerd"], exists=True)
        try:
            upload(node, "one", "export default { fetch() { return new Response('one') } }")
            until(lambda: Visitor(node).text("one") == "one", 30)
            ours = {os.readlink(f"/proc/{pid}/exe") for pid in engines(node)}
            assert ours and all(exe.startswith(str((place / "data").resolve())) for exe in ours), ours
        finally:
            node.stop()


def main():
    """This suite alone, with a workerd that is somewhere."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--workerd", required=True)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--only", choices=["embedded", "workerd", "storms", "encrypted", "installed"])
    options = parser.parse_args()
    report, home = Report(), pathlib.Path(tempfile.mkdtemp(prefix="starling-serving-"))
    try:
        if options.only in ("embedded", "workerd"):
            serve(report, options.binary, home, Engine(options.workerd if options.only == "workerd" else None))
        elif options.only:
            globals()[options.only](report, options.binary, home, on_workerd(options.workerd))
        else:
            run(report, options.binary, home, options.workerd)
    finally:
        if options.keep:
            print(f"kept {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

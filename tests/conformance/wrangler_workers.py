"""wrangler deploys to the flock: through one node, seen through the others."""

import json
import os
import re
import select
import signal
import subprocess
import time

from clients import MODULES, NODE, Wrangler
from flock import eventually

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MODULE = 'export default { async fetch(request, env) { return new Response("%s " + env.WHO) } }\n'


class Project:
    """A directory with a wrangler configuration, deployed through one node."""

    def __init__(self, wrangler, name):
        self.wrangler, self.name = wrangler, name
        self.directory = wrangler.home / "work" / name
        self.directory.mkdir(parents=True, exist_ok=True)

    def write(self, path, content):
        path = self.directory / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def configure(self, **settings):
        settings = {"name": self.name, "compatibility_date": "2026-07-01", **settings}
        self.write("wrangler.json", json.dumps({key: value for key, value in settings.items() if value is not None}))

    def run(self, *words, **more):
        return self.wrangler.run(*words, cwd=self.directory, **more)


def run(report, flock, home):
    first, second, third = flock.nodes
    writer, reader = Wrangler(first, f"{home}/w1"), Wrangler(second, f"{home}/w2")
    case = lambda name: report.case("wrangler, workers", name)

    def at(node, path, status=200):
        """A result below the account's Workers."""
        answered, _, text = node.call("GET", f"/accounts/{node.account}/workers/{path}")
        assert answered == status, f"{path}: {answered} {text[:500]!r}"
        return json.loads(text)["result"]

    def code(node, script):
        status, _, text = node.call("GET", f"/accounts/{node.account}/workers/scripts/{script}")
        assert status == 200, text
        return text.decode()

    def check(node, version):
        deployment = at(node, "scripts/hello/deployments")["deployments"][0]
        assert deployment["versions"] == [{"version_id": version, "percentage": 100}], deployment

    hello = Project(writer, "hello")
    hello.write("index.js", MODULE % "one")
    versions = []

    with case("deploy: the first time, with a variable, a KV namespace by id, served at its own name"):
        namespace = first.create_namespace("of hello")
        base = {"main": "index.js", "kv_namespaces": [{"binding": "KV", "id": namespace}], "workers_dev": True}
        hello.configure(**base, vars={"WHO": "me", "MORE": {"a": [1]}})
        shown = hello.run("deploy")
        versions.append(UUID.search(shown.split("Current Version ID")[1])[0])
        assert "hello.workers.localhost" in shown, shown

        def arrived():
            settings = at(third, "scripts/hello/settings")
            bindings = {binding["name"]: binding for binding in settings["bindings"]}
            assert bindings["WHO"] == {"name": "WHO", "type": "plain_text", "text": "me"}, bindings
            assert bindings["MORE"] == {"name": "MORE", "type": "json", "json": {"a": [1]}}, bindings
            assert bindings["KV"] == {"name": "KV", "type": "kv_namespace", "namespace_id": namespace}, bindings
            assert settings["compatibility_date"] == "2026-07-01", settings
            assert "one" in code(third, "hello")
            assert at(third, "scripts/hello/subdomain")["enabled"] is True

        eventually(arrived)

    with case("deploy: later, with a source map and more modules"):
        hello.write("index.js", 'import text from "./text.txt"; import page from "./page.html";\n' + MODULE % "two")
        hello.write("text.txt", "some text")
        hello.write("page.html", "<p>a page")
        hello.configure(**base, vars={"WHO": "you"}, upload_source_maps=True)
        shown = hello.run("deploy")
        versions.append(UUID.search(shown.split("Current Version ID")[1])[0])

        def arrived():
            text = code(second, "hello")
            assert "two" in text and "some text" in text and "<p>a page" in text, text[:2000]
            assert "source-map" not in text and '"mappings"' not in text, text[-500:]

        eventually(arrived)

    with case("deployments list, and status: elsewhere"):
        elsewhere = Project(reader, "hello")
        elsewhere.configure(**base)
        elsewhere.write("index.js", MODULE % "elsewhere")
        shown = elsewhere.run("deployments", "list")
        assert versions[0] in shown and versions[1] in shown, shown
        shown = elsewhere.run("deployments", "status")
        assert versions[1] in shown and versions[0] not in shown, shown

    with case("versions list and view: elsewhere"):
        shown = elsewhere.run("versions", "list")
        assert versions[0] in shown and versions[1] in shown, shown
        shown = elsewhere.run("versions", "view", versions[0], "--name", "hello")
        assert versions[0] in shown and "2026-07-01" in shown, shown

    with case("rollback: elsewhere, and everywhere"):
        shown = elsewhere.run("rollback", versions[0], "--message", "that was bad", "-y")
        assert versions[0] in shown, shown
        for node in flock.nodes:
            eventually(lambda: check(node, versions[0]))

    with case("versions upload: gets no requests yet"):
        hello.write("index.js", MODULE % "three")
        shown = hello.run("versions", "upload", "--message", "a try", "--tag", "v3")
        versions.append(UUID.search(shown.split("Worker Version ID")[1])[0])
        eventually(lambda: at(third, f"scripts/hello/versions/{versions[2]}"))
        check(third, versions[0])

    with case("versions deploy: two versions, then one"):
        hello.run("versions", "deploy", f"{versions[0]}@90%", f"{versions[2]}@10%", "-y")

        def shared():
            deployment = at(third, "scripts/hello/deployments")["deployments"][0]
            shares = {share["version_id"]: share["percentage"] for share in deployment["versions"]}
            assert shares == {versions[0]: 90, versions[2]: 10}, deployment

        eventually(shared)
        hello.run("versions", "deploy", f"{versions[2]}@100%", "-y")
        eventually(lambda: check(second, versions[2]))

    with case("secret put, list, bulk, delete: shown by name only"):
        shown = hello.run("secret", "put", "PASSWORD", stdin=b"correct horse\n")
        assert "Success! Uploaded secret PASSWORD" in shown, shown

        def listed(*names):
            assert {found["name"] for found in json.loads(elsewhere.run("secret", "list").stdout)} == set(names)

        eventually(lambda: listed("PASSWORD"))
        hello.write("more.json", json.dumps({"OTHER": "staple", "THIRD": "battery"}))
        hello.run("secret", "bulk", "more.json")
        eventually(lambda: listed("PASSWORD", "OTHER", "THIRD"))
        hello.run("secret", "delete", "OTHER", stdin=b"y\n")
        eventually(lambda: listed("PASSWORD", "THIRD"))
        for path in ("scripts/hello/settings", "scripts/hello/secrets", "scripts/hello/versions", "services/hello"):
            shown = json.dumps(at(second, path))
            assert "correct horse" not in shown and "battery" not in shown, shown
        for node in flock.nodes:
            log = (node.directory / "log").read_text()
            assert "correct horse" not in log and "battery" not in log

    with case("deploy: secrets stay, variables that are gone go"):
        hello.configure(**base)
        hello.run("deploy")
        names = {binding["name"] for binding in at(first, "scripts/hello/settings")["bindings"]}
        assert names == {"KV", "PASSWORD", "THIRD"}, names

    with case("versions secret put: a version that gets no requests yet"):
        shown = hello.run("versions", "secret", "put", "LATER", stdin=b"much later\n")
        made = UUID.search(shown.split("Created version")[1])[0]
        bindings = at(first, f"scripts/hello/versions/{made}")["resources"]["bindings"]
        assert {"name": "LATER", "type": "secret_text"} in bindings, bindings
        shown = hello.run("secret", "put", "PASSWORD", stdin=b"x", ok=False)
        assert "latest version of your Worker isn't currently deployed" in shown, shown
        hello.run("versions", "deploy", f"{made}@100%", "-y")

    with case("deploy: routes, a schedule, not at its own name"):
        routes = ["hello.example/*", {"pattern": "*.hello.example/api/*", "zone_name": "hello.example"}]
        hello.configure(**{**base, "workers_dev": False}, routes=routes, triggers={"crons": ["*/5 * * * *"]})
        shown = hello.run("deploy")
        assert "hello.example/*" in shown and "*/5 * * * *" in shown, shown

        def arrived():
            assert at(third, "scripts/hello/subdomain")["enabled"] is False
            patterns = {route["pattern"] for route in at(third, "scripts/hello/routes")}
            assert patterns == {"hello.example/*", "*.hello.example/api/*"}, patterns
            crons = [schedule["cron"] for schedule in at(third, "scripts/hello/schedules")["schedules"]]
            assert crons == ["*/5 * * * *"], crons

        eventually(arrived)
        hello.configure(**{**base, "workers_dev": False}, routes=["hello.example/only"])
        hello.run("deploy")
        patterns = [route["pattern"] for route in at(first, "scripts/hello/routes")]
        assert patterns == ["hello.example/only"], patterns

    with case("deploy: a route of another Worker is refused"):
        rival = Project(writer, "rival")
        rival.write("index.js", MODULE % "rival")
        rival.configure(main="index.js", routes=["hello.example/only"])
        shown = rival.run("deploy", ok=False)
        assert "already assigned" in shown and "hello" in shown, shown

    with case("deploy: a KV namespace without an id is made"):
        made = Project(writer, "made")
        made.write("index.js", MODULE % "made")
        made.configure(main="index.js", kv_namespaces=[{"binding": "STORE"}])
        made.run("deploy", "--experimental-auto-create")
        bindings = at(first, "scripts/made/settings")["bindings"]
        assert [binding["type"] for binding in bindings] == ["kv_namespace"], bindings
        titles = json.loads(writer.run("kv", "namespace", "list").stdout)
        assert bindings[0]["namespace_id"] in [found["id"] for found in titles], titles
        # Again: the one that is there stays.
        made.configure(main="index.js", kv_namespaces=[{"binding": "STORE"}])
        made.run("deploy")
        assert at(first, "scripts/made/settings")["bindings"] == bindings

    with case("deploy: a service worker"):
        old = Project(writer, "old")
        old.write("worker.js", 'addEventListener("fetch", event => event.respondWith(new Response(WHO)))\n')
        old.configure(main="worker.js", vars={"WHO": "me"})
        old.run("deploy")
        eventually(lambda: at(second, "scripts/old/settings"))
        assert "addEventListener" in code(second, "old")
        old.run("deploy")

    with case("deploy: Workers Sites"):
        site = Project(writer, "site")
        site.write("public/index.html", "<p>a site")
        site.write("public/deep/page.html", "<p>deep")
        site.write("index.js", 'import m from "__STATIC_CONTENT_MANIFEST";\n' + MODULE % "site")
        site.configure(main="index.js", site={"bucket": "./public"})
        site.run("deploy")
        bindings = {binding["name"]: binding for binding in at(first, "scripts/site/settings")["bindings"]}
        store = bindings["__STATIC_CONTENT"]["namespace_id"]
        status, _, text = first.call("GET", f"/accounts/{first.account}/storage/kv/namespaces/{store}/keys")
        names = [key["name"] for key in json.loads(text)["result"]]
        assert any(name.startswith("index.") for name in names) and len(names) == 2, names
        site.run("deploy")

    with case("deploy: static assets alone, and again with one changed"):
        assets = Project(writer, "assets")
        assets.write("public/index.html", "<p>assets")
        assets.write("public/style.css", "p { color: red }")
        assets.write("public/large.bin", bytes(range(256)) * 8192)
        assets.configure(assets={"directory": "./public"})
        shown = assets.run("deploy")
        assert "3 new or modified" in shown, shown
        eventually(lambda: at(third, "scripts/assets/settings"))
        assets.write("public/style.css", "p { color: blue }")
        shown = assets.run("deploy")
        assert "1 new or modified" in shown, shown
        shown = assets.run("deploy")
        assert "No updated asset files" in shown, shown

    with case("deploy: static assets with a script"):
        both = Project(writer, "both")
        both.write("public/index.html", "<p>assets")
        both.write("index.js", MODULE % "both")
        both.configure(main="index.js", assets={"directory": "./public", "binding": "FILES",
                                                "not_found_handling": "404-page", "run_worker_first": ["/api/*"]})
        both.run("deploy")
        bindings = at(first, "scripts/both/settings")["bindings"]
        assert bindings == [{"name": "FILES", "type": "assets"}], bindings
        both.run("versions", "upload")

    with case("deploy: what is not supported is named"):
        odd = Project(writer, "odd")
        odd.write("index.js", MODULE % "odd")
        odd.configure(main="index.js", services=[{"binding": "NEXT", "service": "hello"}])
        shown = odd.run("deploy", ok=False)
        assert "service" in shown and "not supported here" in shown, shown

    with case("deploy: a KV namespace that is not there"):
        odd.configure(main="index.js", kv_namespaces=[{"binding": "KV", "id": "0123456789abcdef0123456789abcdef"}])
        shown = odd.run("deploy", ok=False)
        assert "KV namespace '0123456789abcdef0123456789abcdef' not found" in shown, shown

    with case("tail: connects, stays connected, and leaves"):
        tail = Tail(hello)
        try:
            tail.until("Connected to hello", within_secs=60)
            lost = tail.hears("lost", within_secs=3)
            assert not lost, tail.shown.decode(errors="replace")
        finally:
            tail.stop()
        eventually(lambda: _none(at(first, "scripts/hello/tails")))

    with case("secret put: for a Worker that is not there yet"):
        draft = Project(writer, "draft")
        draft.configure()
        draft.run("secret", "put", "EARLY", "--name", "draft", stdin=b"bird")
        assert at(first, "scripts/draft/secrets") == [{"name": "EARLY", "type": "secret_text"}]

    with case("delete: gone everywhere, its routes too"):
        hello.run("delete", "--force")
        for node in flock.nodes:
            eventually(lambda: at(node, "scripts/hello/settings", status=404))
        status, _, text = second.call("GET", "/zones?name=hello.example")
        zone = json.loads(text)["result"][0]["id"]
        eventually(lambda: _none(json.loads(second.call("GET", f"/zones/{zone}/workers/routes")[2])["result"]))

    with case("delete: and deploy anew"):
        hello.write("index.js", MODULE % "anew")
        hello.configure(**base)
        hello.run("deploy")
        eventually(lambda: code(third, "hello").index("anew"))
        assert at(third, "scripts/hello/secrets") == []

    with case("delete: Workers Sites"):
        site.run("delete", "--force")
        eventually(lambda: at(third, "scripts/site/settings", status=404))


def _none(found):
    assert not found, found


class Tail:
    """`wrangler tail` in the background, its output line by line."""

    def __init__(self, project):
        command = [NODE, MODULES / "wrangler" / "bin" / "wrangler.js", "tail", "--format", "pretty"]
        self.process = subprocess.Popen(
            [str(word) for word in command], cwd=project.directory, env=project.wrangler.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        self.shown = b""

    def hears(self, text, within_secs):
        """Whether it says so in time."""
        deadline = time.monotonic() + within_secs
        while text.encode() not in self.shown:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, left))
            read = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not read:
                return False
            self.shown += read
        return True

    def until(self, text, within_secs):
        heard = self.hears(text, within_secs)
        assert heard, f"wrangler tail did not say {text!r}: {self.shown.decode(errors='replace')}"

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()

"""wrangler against the flock: writes through the first node, reads through the others."""

import json
import time

from clients import Wrangler
from flock import eventually


def run(report, flock, home, long):
    first, second, third = flock.nodes
    write, read = Wrangler(first, f"{home}/a"), Wrangler(second, f"{home}/b")
    case = lambda name: report.case("wrangler", name)
    work = write.home / "work"

    with case("whoami"):
        shown = write.run("whoami")
        assert "logged in with an User API Token" in shown and first.account in shown, shown

    with case("whoami, with a key and an email address"):
        keyed = Wrangler(third, f"{home}/d", email="someone@example.com")
        shown = keyed.run("whoami")
        assert "someone@example.com" in shown and first.account in shown, shown

    with case("kv namespace create"):
        shown = write.run("kv", "namespace", "create", "wrangled")
        assert "Success!" in shown, shown

    ns = None
    with case("kv namespace list, elsewhere"):
        listed = json.loads(read.run("kv", "namespace", "list").stdout)
        ns = next(found["id"] for found in listed if found["title"] == "wrangled")

    if ns is None:
        return
    at = ("--namespace-id", ns, "--remote")
    put = lambda key, *words, **more: write.run("kv", "key", "put", key, *words, *at, **more)

    def get(key, expected, wrangler=read):
        def check():
            found = wrangler.run("kv", "key", "get", key, *at).stdout
            assert found == expected, f"{found[:200]!r} is not {expected[:200]!r}"

        eventually(check)

    with case("kv namespace create: a taken title"):
        shown = read.run("kv", "namespace", "create", "wrangled", ok=False)
        assert 'A KV namespace with the title "wrangled" already exists.' in shown, shown

    with case("kv namespace rename"):
        shown = read.run("kv", "namespace", "rename", "--namespace-id", ns, "--new-name", "wrangled anew")
        assert 'Successfully renamed namespace to "wrangled anew"' in shown, shown
        listed = json.loads(write.run("kv", "namespace", "list").stdout)
        assert {"id": ns, "title": "wrangled anew", "supports_url_encoding": True} in listed, listed

    with case("kv key put and get: text"):
        put("plain", "a value")
        get("plain", b"a value")

    with case("kv key put: a key with spaces, slashes and non-ASCII"):
        key = "a key/with ü?#&=+%2F 雪/🦆"
        put(key, "odd")
        get(key, b"odd")

    with case("kv key put --path: binary"):
        blob = bytes(range(256)) * 4096
        (work / "blob").write_bytes(blob)
        put("blob", "--path", "blob")
        get("blob", blob)

    with case("kv key put --path --metadata: a large value"):
        large = b"\0large\xff" * 800_000
        (work / "large").write_bytes(large)
        put("large", "--path", "large", "--metadata", '{"kind":"large"}')
        get("large", large)

    with case("kv key put --ttl --metadata, and kv key list"):
        put("meta/1", "1", "--ttl", "3600", "--metadata", '{"wo":"Zürich","n":[1,2.5,null]}')
        put("meta/2", "2", "--expiration", "4000000000")
        now = time.time()
        listed = json.loads(write.run("kv", "key", "list", "--prefix", "meta/", *at).stdout)
        assert [found["name"] for found in listed] == ["meta/1", "meta/2"], listed
        assert listed[0]["metadata"] == {"wo": "Zürich", "n": [1, 2.5, None]}, listed
        assert abs(listed[0]["expiration"] - now - 3600) < 120, listed
        assert listed[1] == {"name": "meta/2", "expiration": 4000000000}, listed

    with case("kv key delete, seen elsewhere"):
        write.run("kv", "key", "delete", "plain", *at)
        eventually(lambda: missing(read, "plain", at))

    with case("kv key get: a missing key"):
        missing(read, "never written", at)

    with case("kv key put: a TTL that is too short"):
        shown = put("k", "v", "--ttl", "10", ok=False)
        assert "Invalid expiration_ttl of 10. Expiration TTL must be at least 60." in shown, shown

    with case("kv key put: an expiration in the past"):
        shown = put("k", "v", "--expiration", "1000", ok=False)
        words = "Invalid expiration of 1000. Please specify integer greater than the current number of seconds"
        assert words in shown, shown

    with case("kv key put: a key that is too long"):
        shown = put("k" * 513, "v", ok=False)
        assert "UTF-8 encoded length of 513 exceeds key length limit of 512." in shown, shown

    with case("kv key put: metadata that is too long"):
        shown = put("k", "v", "--metadata", json.dumps({"m": "x" * 1100}), ok=False)
        assert "Metadata length of 1108 exceeds limit of 1024." in shown, shown

    with case("kv key put --path: a value that is too large"):
        (work / "huge").write_bytes(bytes(26_214_401))
        shown = put("huge", "--path", "huge", ok=False)
        assert "Value length of 26214401 exceeds limit of 26214400." in shown, shown
        (work / "huge").unlink()

    with case("a namespace that is not there"):
        shown = read.run("kv", "key", "list", "--namespace-id", "0" * 31 + "1", "--remote", ok=False)
        assert "list keys: 'namespace not found' [code: 10013]" in shown, shown

    with case("a namespace id that is none"):
        shown = read.run("kv", "key", "list", "--namespace-id", "abc", "--remote", ok=False)
        words = "could not parse UUID from request's namespace_id: 'uuid: incorrect UUID length: abc' [code: 10011]"
        assert words in shown, shown

    with case("a wrong token"):
        wrong = Wrangler(third, f"{home}/c", token="W" * 40)
        shown = wrong.run("kv", "namespace", "list", ok=False)
        assert "Authentication error [code: 10000]" in shown, shown

    with case("kv bulk put, get, delete: 10,000 pairs"):
        bulk(write, read, at, work, 10_000)

    if long:
        with case("kv bulk put, get, delete: 56,300 pairs"):
            bulk(write, read, at, work, 56_300)

    with case("kv bulk put: base64, TTL and metadata"):
        pairs = [
            {"key": "b/1", "value": "AAH/", "base64": True, "metadata": {"a": 1}},
            {"key": "b/2", "value": "text", "expiration_ttl": 600},
        ]
        (work / "pairs.json").write_text(json.dumps(pairs))
        write.run("kv", "bulk", "put", "pairs.json", *at)
        get("b/1", b"\x00\x01\xff")

    with case("kv bulk put: a pair that can't be"):
        (work / "pairs.json").write_text(json.dumps([{"key": "fine", "value": "1"}, {"key": "..", "value": "2"}]))
        shown = write.run("kv", "bulk", "put", "pairs.json", *at, ok=False)
        assert "Illegal key name" in shown and "pair 1" in shown, shown

    with case("kv namespace delete"):
        shown = write.run("kv", "namespace", "delete", "--namespace-id", ns)
        assert "Deleted KV namespace" in shown or "Deleting KV namespace" in shown, shown

        def gone():
            listed = json.loads(read.run("kv", "namespace", "list").stdout)
            assert all(found["id"] != ns for found in listed), listed

        eventually(gone)


def missing(wrangler, key, at):
    shown = wrangler.run("kv", "key", "get", key, *at, ok=False)
    assert "404: Not Found" in shown, shown


def bulk(write, read, at, work, count):
    pairs = [{"key": f"bulk/{index:06}", "value": f"value {index}"} for index in range(count)]
    (work / "bulk.json").write_text(json.dumps(pairs))
    names = [pair["key"] for pair in pairs]
    begun = time.monotonic()
    shown = write.run("kv", "bulk", "put", "bulk.json", *at, timeout_secs=600)
    print(f"       put {count} pairs in {time.monotonic() - begun:.1f} s")
    assert "Success!" in shown, shown

    def listed():
        found = json.loads(read.run("kv", "key", "list", "--prefix", "bulk/", *at, timeout_secs=600).stdout)
        assert [key["name"] for key in found] == names, f"{len(found)} of {count} keys"

    eventually(listed, within_secs=60)
    some = names[:: max(1, count // 100)][:100]
    (work / "some.json").write_text(json.dumps(some))
    shown = read.run("kv", "bulk", "get", work / "some.json", *at)
    found = json.loads(shown.stdout[shown.stdout.index(b"{") : shown.stdout.rindex(b"}") + 1])
    for name in some:
        value = found[name]["value"] if isinstance(found[name], dict) else found[name]
        assert value == f"value {int(name.removeprefix('bulk/'))}", (name, found[name])
    (work / "names.json").write_text(json.dumps(names))
    begun = time.monotonic()
    write.run("kv", "bulk", "delete", "names.json", "--force", *at, timeout_secs=600)
    print(f"       deleted {count} keys in {time.monotonic() - begun:.1f} s")

    def empty():
        found = json.loads(read.run("kv", "key", "list", "--prefix", "bulk/", *at).stdout)
        assert found == [], f"{len(found)} keys are left"

    eventually(empty, within_secs=60)

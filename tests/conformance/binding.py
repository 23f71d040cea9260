"""workerd's `kvNamespace` binding: over a unix socket and over TCP, every method, limits and error texts, own writes at
once and another PoP's within the lag."""

import base64
import os
import stat
import time

from flock import Node, eventually
from workerd import Namespace, Workerd

VALUE_LEN_MAX = 26_214_400


def run(report, binary, flock, home):
    first, second = flock.nodes[0], flock.nodes[1]
    fourth, ns = None, first.create_namespace("bound")
    other = first.create_namespace("bound too")
    sockets = [node.bindings.removeprefix("unix:") for node in flock.nodes]
    try:
        with report.case("workerd, unix", "the socket is there for its owner alone"):
            assert all(stat.S_IMODE(os.stat(path).st_mode) == 0o600 for path in sockets)
        # A fourth PoP serves bindings over TCP.
        fourth = Node(binary, home / "tcp", "SIN", bindings="127.0.0.1:0", join=first.invite())
        wait_for(fourth, ns)
        wait_for(fourth, other)
        wait_for(second, ns)
        unix = Workerd(home / "workerd-unix", [
            Namespace("KV", first.bindings, ns), Namespace("OTHER", first.bindings, other),
            Namespace("ELSEWHERE", second.bindings, ns), Namespace("LOST", first.bindings, "0" * 32),
        ])
        try:
            methods(report, "workerd, unix", unix)
            between(report, "workerd, unix", unix)
        finally:
            unix.stop()
        tcp = Workerd(home / "workerd-tcp", [
            Namespace("KV", fourth.bindings, ns, fourth.token), Namespace("OTHER", fourth.bindings, other, fourth.token),
            Namespace("ELSEWHERE", second.bindings, ns), Namespace("LOST", fourth.bindings, "0" * 32, fourth.token),
            Namespace("WRONG", fourth.bindings, ns, "x" * 40), Namespace("NONE", fourth.bindings, ns),
        ])
        try:
            methods(report, "workerd, TCP", tcp)
            between(report, "workerd, TCP", tcp)
            with report.case("workerd, TCP", "without the right token nothing is served"):
                for binding, text in [
                    ("WRONG", "KV GET failed: 403 Authentication error"),
                    ("NONE", "KV GET failed: 400 Missing X-Auth-Key, X-Auth-Email or Authorization headers"),
                ]:
                    failed(tcp.one("get", "text", ns=binding), text)
        finally:
            tcp.stop()
        with report.case("workerd, unix", "the socket is removed when the node stops, and made anew"):
            path = home / "again.sock"
            node = Node(binary, home / "again", "CDG", bindings=f"unix:{path}")
            node.process.kill()
            node.process.wait()
            assert path.exists(), "killed, it can't remove it"
            node.stop()
            node = Node(binary, home / "again2", "CDG", bindings=f"unix:{path}")
            assert path.exists()
            node.stop()
            assert not path.exists()
    finally:
        if fourth:
            fourth.stop()


def wait_for(node, ns):
    """Until the namespace has arrived at a node."""

    def arrived():
        status, _, _ = node.call("GET", f"/accounts/{node.account}/storage/kv/namespaces/{ns}")
        assert status == 200

    eventually(arrived)


def ok(result, expected=None, **fields):
    assert "ok" in result, result
    expected = fields if expected is None else expected
    assert result["ok"] == expected, f"{result['ok']} is not {expected}"


def failed(result, message):
    assert result.get("error", {}).get("message") == message, f"{result} is not {message!r}"


def b64(data):
    return base64.b64encode(data).decode()


def methods(report, client, worker):
    case = lambda name: report.case(client, name)
    one = worker.one
    undefined, null = {"undefined": True}, {"json": None}
    put = lambda key, value, **more: ok(one("put", key, value=value, **more), undefined)

    with case("get: text, json, arrayBuffer, stream"):
        put("text", {"text": '{"a":["ü",1]}'})
        ok(one("get", "text"), json='{"a":["ü",1]}')
        ok(one("get", "text", type="text"), json='{"a":["ü",1]}')
        ok(one("get", "text", type="json"), json={"a": ["ü", 1]})
        for kind in ("arrayBuffer", "stream"):
            ok(one("get", "text", type=kind), base64=b64('{"a":["ü",1]}'.encode()))
        ok(one("get", "text", options={"type": "json", "cacheTtl": 3600}), json={"a": ["ü", 1]})

    with case("get: a missing key is null"):
        for kind in ("text", "json", "arrayBuffer", "stream"):
            ok(one("get", "never written", type=kind), null)

    with case("put: string, buffers, streams of known and unknown length"):
        data = bytes(range(256)) * 400
        for form in (None, "view", "stream", "fixed", "response"):
            put("bytes", {"base64": b64(data), "as": form})
            found = one("get", "bytes", type="arrayBuffer")["ok"]
            assert found["length"] == len(data), (form, found)
        put("empty", {"text": ""})
        ok(one("get", "empty"), json="")
        put("empty", {"base64": "", "as": "stream"})
        ok(one("get", "empty"), json="")

    with case("put: expiration, expirationTtl, metadata; getWithMetadata"):
        metadata = {"ort": "Zürich", "雪": ["🦆", None, 1.5]}
        put("meta", {"text": "v"}, options={"metadata": metadata, "expiration": 2_000_000_000})
        found = {"value": {"json": "v"}, "metadata": metadata, "cacheStatus": None}
        ok(one("getWithMetadata", "meta"), found)
        page = one("list", options={"prefix": "meta"})["ok"]["page"]
        key = {"name": "meta", "expiration": 2_000_000_000, "metadata": metadata}
        assert page == {"keys": [key], "list_complete": True, "cacheStatus": None}, page
        put("meta", {"text": "w"}, options={"expirationTtl": 600, "expiration": 2_000_000_000})
        page = one("list", options={"prefix": "meta"})["ok"]["page"]
        assert abs(page["keys"][0]["expiration"] - time.time() - 600) < 10, page
        ok(one("getWithMetadata", "meta"), {"value": {"json": "w"}, "metadata": None, "cacheStatus": None})
        ok(one("getWithMetadata", "never"), {"value": null, "metadata": None, "cacheStatus": None})

    with case("get and getWithMetadata of several keys"):
        put("several/a", {"text": '{"n":1}'}, options={"metadata": "ü"})
        put("several/b", {"text": "null"})
        keys = ["several/a", "several/missing", "several/b"]
        ok(one("get", keys=keys), map=[["several/a", {"json": '{"n":1}'}], ["several/missing", null],
                                      ["several/b", {"json": "null"}]])
        ok(one("get", keys=keys, type="json"), map=[["several/a", {"json": {"n": 1}}], ["several/missing", null],
                                                    ["several/b", null]])
        found = one("getWithMetadata", keys=keys, options={"type": "text", "cacheTtl": 60})["ok"]["map"]
        assert found[0] == ["several/a", {"json": {"value": '{"n":1}', "metadata": "ü"}}], found
        assert found[1] == ["several/missing", null], found

    with case("list: prefix, limit, cursor, byte order"):
        names = sorted(["l/é", "l/z", "l/a", "l/\U0001f986", "l/ａ", "l/B"], key=str.encode)
        for name in names:
            put(name, {"text": name})
        pages = one("listAll", options={"prefix": "l/", "limit": 4})["ok"]["pages"]
        assert [key["name"] for page in pages for key in page["keys"]] == names, pages
        assert [page["list_complete"] for page in pages] == [False, True], pages
        ok(one("list", options={"prefix": "nothing"}),
           page={"keys": [], "list_complete": True, "cacheStatus": None})

    with case("delete, also of a missing key"):
        ok(one("delete", "text"), undefined)
        ok(one("get", "text"), null)
        ok(one("delete", "text"), undefined)

    with case("keys with slashes, percent signs, spaces, non-ASCII"):
        for key in ["a/b", "100%25", "bulk/get", "a b+c&d=e?f#g", "ü/雪/🦆", "..a", "k" * 512]:
            put(key, {"text": key})
            ok(one("get", key), json=key)
            ok(one("delete", key), undefined)

    with case("namespaces are apart"):
        put("apart", {"text": "here"})
        ok(one("get", "apart", ns="OTHER"), null)
        missing = "There is no namespace with the id in X-KV-Namespace."
        failed(one("get", "apart", ns="LOST"), f"KV GET failed: 400 {missing}")

    with case("limits and mistakes, in the original's words"):
        limits(one)

    with case("a value of 25 MiB, and none larger"):
        for form in (None, "stream"):
            put("large", {"zeros": VALUE_LEN_MAX, "as": form})
            assert one("get", "large", type="stream")["ok"]["length"] == VALUE_LEN_MAX
            too_large = one("put", "large", value={"zeros": VALUE_LEN_MAX + 1, "as": form})
            failed(too_large, "KV PUT failed: 413 Value length of 26214401 exceeds limit of 26214400.")
        ok(one("delete", "large"), undefined)

    with case("own writes are read at once, a hundred times"):
        for batch in range(10):
            operations = []
            for index in range(10):
                value = f"{batch}.{index}"
                operations.append({"op": "put", "key": "hot", "value": {"text": value}})
                operations.append({"op": "get", "key": "hot"})
            for index, result in enumerate(worker.run(*operations)[1::2]):
                ok(result, json=f"{batch}.{index}")

    with case("deleteBulk is absent, as without the experimental flag"):
        ok(one("typeof", "deleteBulk"), json="undefined")


def limits(one):
    put = lambda **options: one("put", "k", value={"text": "v"}, options=options)
    failed(put(expirationTtl=59), "KV PUT failed: 400 Invalid expiration_ttl of 59. Expiration TTL must be at least 60.")
    failed(put(expirationTtl=0), "KV PUT failed: 400 Invalid expiration_ttl of 0. Please specify integer greater than 0.")
    failed(put(expirationTtl=-5), "KV PUT failed: 400 Invalid expiration_ttl of -5. Please specify integer greater than 0.")
    failed(put(expiration=1000), "KV PUT failed: 400 Invalid expiration of 1000. Please specify integer greater than the "
           "current number of seconds since the UNIX epoch.")
    soon = int(time.time()) + 30
    failed(put(expiration=soon), f"KV PUT failed: 400 Invalid expiration of {soon}. Expiration times must be at least 60 "
           "seconds in the future.")
    failed(put(metadata="m" * 1100), "KV PUT failed: 413 Metadata length of 1102 exceeds limit of 1024.")
    failed(one("get", "k", options={"cacheTtl": 5}), "KV GET failed: 400 Invalid cache_ttl of 5. Cache TTL must be at least 30.")
    failed(one("list", options={"limit": 1001}),
           "KV GET failed: 400 Invalid key_count_limit of 1001. Please specify an integer less than 1000.")
    too_long = "UTF-8 encoded length of 513 exceeds key length limit of 512."
    failed(one("list", options={"prefix": "p" * 513}), f"KV GET failed: 414 {too_long}")
    failed(one("put", "k" * 513, value={"text": "v"}), f"KV PUT failed: 414 {too_long}")
    failed(one("get", keys=["k"] * 101), "KV GET_BULK failed: 400 You can request a maximum of 100 keys")
    failed(one("get", keys=[]), "KV GET_BULK failed: 400 You must request a minimum of 1 key")
    failed(one("get", keys=["a", ""]), "KV GET_BULK failed: 400 Key names must not be empty")
    failed(one("get", keys=["a"], type="stream"),
           'KV GET_BULK failed: 400 "stream" is not a valid type. Use "json" or "text"')
    one("put", "several/bad", value={"text": "{"})
    failed(one("get", keys=["several/bad"], type="json"),
           "KV GET_BULK failed: 400 At least one of the requested keys corresponds to a non-json value")
    for value in ("", ".", ".."):
        assert one("get", value)["error"]["name"] == "TypeError"


def between(report, client, worker):
    with report.case(client, "another PoP's writes arrive within the lag"):
        lags = []
        for index in range(20):
            worker.one("put", "lag", value={"text": f"{index}"}, ns="ELSEWHERE")
            lags.append(eventually(lambda: ok(worker.one("get", "lag"), json=f"{index}"), within_secs=2))
        print(f"       seen after {sorted(lags)[10] * 1000:.1f} ms (median), {max(lags) * 1000:.1f} ms at most")

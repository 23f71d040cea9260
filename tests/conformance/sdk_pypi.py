"""The PyPI package `cloudflare`: cases of our own, and the KV part of the tests in its source distribution."""

import asyncio
import json
import os
import re
import subprocess
import sys
import tarfile
import time

import cloudflare
from cloudflare import AsyncCloudflare, Cloudflare

from clients import HERE, INSTALLED
from flock import eventually

# Tests of the distribution that don't hold here, each with the reason. Named exactly: one that passes after all, or
# is gone, is a failure too.
EXCEPTIONS = {}


def run(report, flock):
    first, second, third = flock.nodes
    case = lambda name: report.case("PyPI cloudflare", name)
    client = lambda node, **more: Cloudflare(base_url=node.api, api_token=node.token, **more)
    a, b, c = client(first), client(second), client(third)
    account = first.account

    with case("namespaces.create"):
        ns = a.kv.namespaces.create(account_id=account, title="pypi").id
        assert re.fullmatch("[0-9a-f]{32}", ns)
    at = {"account_id": account, "namespace_id": ns}
    values = lambda cloudflare: cloudflare.kv.namespaces.values

    def read(cloudflare, key):
        try:
            return values(cloudflare).get(key, **at).read()
        except cloudflare_not_found as missing:
            raise AssertionError(key) from missing

    cloudflare_not_found = cloudflare.NotFoundError

    def equals(found, expected):
        assert found == expected, f"{found!r:.200} is not {expected!r:.200}"

    with case("namespaces.get and update, elsewhere"):
        def renamed():
            try:
                equals(c.kv.namespaces.update(ns, account_id=account, title="pypi renamed").title, "pypi renamed")
            except cloudflare.NotFoundError as missing:
                raise AssertionError from missing

        eventually(renamed)
        eventually(lambda: equals(b.kv.namespaces.get(ns, account_id=account).title, "pypi renamed"))

    with case("values.update and get: bytes, a key with slashes and non-ASCII"):
        key = "a/b c?ü#雪🦆"
        values(a).update(key, value=bytes(range(256)), metadata={"ort": "Zürich"}, **at)
        eventually(lambda: equals(read(b, key), bytes(range(256))))
        equals(b.kv.namespaces.metadata.get(key, **at), {"ort": "Zürich"})

    with case("values.update: a file, an expiration"):
        values(a).update("file", value=(HERE / "package.json").open("rb"), expiration=4000000000, **at)
        answer = values(a).get("file", **at)
        equals(answer.read(), (HERE / "package.json").read_bytes())
        equals(answer.headers["expiration"], "4000000000")

    with case("values: raw and streamed responses"):
        large = b"0123456789" * 50_000
        raw = values(a).with_raw_response.update("large", value=large, **at)
        equals((raw.status_code, raw.json()["success"]), (200, True))
        with values(a).with_streaming_response.get("large", **at) as stream:
            equals(b"".join(stream.iter_bytes(8192)), large)
        raw = a.kv.namespaces.with_raw_response.get(ns, account_id=account)
        equals(raw.parse().id, ns)

    with case("bulk: update, get, delete; keys.list iterates to the end"):
        body = [{"key": f"bulk/{index:04}", "value": f"{index}"} for index in range(2500)]
        done = a.kv.namespaces.keys.bulk_update(ns, account_id=account, body=body)
        equals((done.successful_key_count, done.unsuccessful_keys), (2500.0, []))

        def listed():
            names = [key.name for key in c.kv.namespaces.keys.list(prefix="bulk/", limit=700, **at)]
            equals(names, [pair["key"] for pair in body])

        eventually(listed)
        got = c.kv.namespaces.bulk_get(ns, account_id=account, keys=["bulk/0007", "bulk/x"], with_metadata=True)
        equals(got.to_dict()["values"], {"bulk/0007": {"value": "7", "metadata": None}, "bulk/x": None})
        done = a.kv.namespaces.bulk_delete(ns, account_id=account, body=[pair["key"] for pair in body])
        equals(done.successful_key_count, 2500.0)
        equals([key.name for key in a.kv.namespaces.keys.list(prefix="bulk/", **at)], [])

    with case("namespaces.list iterates to the end"):
        made = [a.kv.namespaces.create(account_id=account, title=f"py {index}").id for index in range(25)]
        found = [namespace.id for namespace in a.kv.namespaces.list(account_id=account, per_page=10)]
        assert set(made) < set(found) and len(found) == len(set(found))
        for id in made:
            a.kv.namespaces.delete(id, account_id=account)

    with case("errors have their types"):
        for call, kind, code in [
            (lambda: values(a).get("never", **at), cloudflare.NotFoundError, 10009),
            (lambda: a.kv.namespaces.get("abc", account_id=account), cloudflare.BadRequestError, 10011),
            (lambda: a.kv.namespaces.create(account_id=account, title="pypi renamed"), cloudflare.BadRequestError, 10014),
            (lambda: values(a).update("k", value=b"", expiration_ttl=5, **at), cloudflare.BadRequestError, 10034),
            (lambda: client(first, max_retries=0).with_options().kv.namespaces.list(account_id="f" * 32),
             cloudflare.PermissionDeniedError, 10000),
        ]:
            try:
                call()
            except kind as error:
                equals(error.errors[0].code, code)
            else:
                raise AssertionError(f"{code} was not raised")

    with case("asynchronous: write, read, stream, list"):
        asyncio.run(asynchronous(second, at))

    with case("who asks: user, token, accounts, memberships, zones"):
        equals(b.user.tokens.verify().status, "active")
        equals([found.id for found in b.accounts.list()], [account])
        equals([found.account.id for found in b.memberships.list()], [account])
        equals(list(b.zones.list()), [])
        assert b.user.get().id

    with case("namespaces.delete"):
        a.kv.namespaces.delete(ns, account_id=account)

        def gone():
            try:
                b.kv.namespaces.get(ns, account_id=account)
            except cloudflare.NotFoundError:
                return
            raise AssertionError("it is still there")

        eventually(gone)


async def asynchronous(node, at):
    async with AsyncCloudflare(base_url=node.api, api_token=node.token) as client:
        values = client.kv.namespaces.values
        await asyncio.gather(*(values.update(f"async/{n}", value=f"{n}".encode(), **at) for n in range(50)))
        found = [key.name async for key in client.kv.namespaces.keys.list(prefix="async/", limit=20, **at)]
        assert found == sorted(f"async/{n}" for n in range(50)), found
        answer = await values.get("async/7", **at)
        assert await answer.read() == b"7"
        async with values.with_streaming_response.get("async/8", **at) as stream:
            assert b"".join([chunk async for chunk in stream.iter_bytes()]) == b"8"
        raw = await values.with_raw_response.delete("async/7", **at)
        assert raw.status_code == 200
        try:
            await values.get("async/7", **at)
        except cloudflare.NotFoundError as error:
            assert error.errors[0].code == 10009
        else:
            raise AssertionError("it is still there")


def run_own_tests(report, node, home):
    """The tests are unchanged. A plugin of ours makes what they take for granted, before each of them."""
    begun = time.monotonic()
    name = f"cloudflare-{cloudflare.__version__}"
    with tarfile.open(INSTALLED / f"{name}.tar.gz") as archive:
        archive.extractall(home, filter="data")
    results = home / "results.json"
    environment = {**os.environ, "TEST_API_BASE_URL": node.api, "PYTHONPATH": str(HERE), "RESULTS": str(results)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "sdist_seed", "-p", "no:cacheprovider", "-o", "addopts=",
         "tests/api_resources/kv"],
        cwd=home / name, env=environment, capture_output=True, text=True, timeout=600,
    )
    found = json.loads(results.read_text()) if results.exists() else {}
    counts = {outcome: sum(1 for result in found.values() if result == outcome) for outcome in set(found.values())}
    secs = time.monotonic() - begun
    failed = {test for test, outcome in found.items() if outcome == "failed"}
    unexpected, mended = failed - EXCEPTIONS.keys(), EXCEPTIONS.keys() - failed
    detail = f"{counts}"
    if unexpected or mended or not found:
        detail += f"\nfailed: {sorted(unexpected)}\nexpected to fail, but did not: {sorted(mended)}\n{done.stdout[-6000:]}"
    ok = not unexpected and not mended and counts.get("passed", 0) > 0
    report.add("PyPI cloudflare", "its own KV tests, against --dev", ok, detail, secs)

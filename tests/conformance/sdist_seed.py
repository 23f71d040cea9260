"""A pytest plugin for the tests of the SDK's source distribution, which take a mocked server for granted: before each
test there is the namespace of their fixed id, with their key in it, and none of the title that they create.

Namespace ids are given by the server, so the fixed one stands for the one that is there: it is replaced in the URL
of each request as the SDK builds it. Everything else about the request goes out as the SDK wrote it."""

import json
import os
import urllib.request

import httpx

ACCOUNT = "023e105f4ecef8ad9ca31a8372d0c353"
FIXED = "0f2ac74b498b48028cb68387c421e279"
BASE = f"{os.environ['TEST_API_BASE_URL']}/accounts/{ACCOUNT}/storage/kv/namespaces"
current = FIXED
results = {}


def call(method, path="", body=None, kind="application/json"):
    request = urllib.request.Request(BASE + path, data=body, method=method, headers={"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["result"]


def seed():
    global current
    for namespace in call("GET", "?per_page=1000"):
        call("DELETE", f"/{namespace['id']}")
    current = call("POST", body=b'{"title":"seeded"}')["id"]
    form = (
        b'--x\r\nContent-Disposition: form-data; name="value"\r\n\r\nvalue\r\n'
        b'--x\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{"seeded":"yes"}\r\n--x--\r\n'
    )
    call("PUT", f"/{current}/values/My-Key", form, "multipart/form-data; boundary=x")


def with_current_id(build):
    def build_request(self, method, url, **more):
        return build(self, method, httpx.URL(str(url).replace(FIXED, current)), **more)

    return build_request


httpx.Client.build_request = with_current_id(httpx.Client.build_request)
httpx.AsyncClient.build_request = with_current_id(httpx.AsyncClient.build_request)


def pytest_runtest_setup(item):
    seed()


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        results[report.nodeid] = report.outcome


def pytest_sessionfinish():
    with open(os.environ["RESULTS"], "w") as file:
        json.dump(results, file)

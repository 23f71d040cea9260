"""The npm package `cloudflare`. It ships no tests, so the cases are our own: sdk_npm.mjs."""

import json

from clients import HERE, INSTALLED, NODE


def run(report, flock):
    nodes = [{"api": node.api, "token": node.token, "account": node.account} for node in flock.nodes]
    command = [NODE, HERE / "sdk_npm.mjs", json.dumps(nodes), INSTALLED / "node_modules"]
    report.from_program("npm cloudflare", command, timeout_secs=300)

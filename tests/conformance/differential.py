"""The same random operations against a node, through workerd, and against miniflare's KV: compared answer by answer."""

import json

from clients import HERE, MODULES, NODE
from workerd import COMPATIBILITY_DATE, Namespace, Workerd


def run(report, dev, home, seeds, operations):
    namespace = dev.create_namespace("differential")
    worker = Workerd(home, [Namespace("KV", dev.bindings, namespace)])
    try:
        options = {
            "worker": worker.url, "seeds": seeds, "operations": operations, "script": str(HERE / "worker.mjs"),
            "compatibilityDate": COMPATIBILITY_DATE,
        }
        command = [NODE, HERE / "differential.mjs", json.dumps(options), MODULES]
        report.from_program("miniflare", command, timeout_secs=60 + len(seeds) * operations // 4)
    finally:
        worker.stop()

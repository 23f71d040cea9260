"""Runs the clients against nodes. Started by ./run, which installs them."""

import argparse
import pathlib
import shutil
import sys
import tempfile

import battery
import binding
import differential
import examples
import openapi
import sdk_npm
import sdk_pypi
import serving
import wrangler
import wrangler_workers
from clients import workerd
from flock import Flock, Node
from report import Report

SUITES = ["wrangler", "workers", "serving", "examples", "battery", "npm", "pypi", "workerd", "differential", "openapi"]


def main():
    parser = argparse.ArgumentParser(prog="tests/conformance/run", description=__doc__)
    parser.add_argument("--binary", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--long", action="store_true", help="also what takes minutes, such as 56,300 pairs in bulk")
    parser.add_argument("--seed", type=int, action="append", help="differential: this seed alone (may be repeated)")
    parser.add_argument("--operations", type=int, help="differential: operations a seed")
    parser.add_argument("--keep", action="store_true", help="keep data directories and logs")
    parser.add_argument("suites", nargs="*", choices=[[], *SUITES], help="which to run; all by default")
    options = parser.parse_args()
    suites = options.suites or SUITES
    report = Report()
    home = pathlib.Path(tempfile.mkdtemp(prefix="starling-conformance-"))
    flock, dev = None, None
    try:
        if {"wrangler", "workers", "npm", "pypi", "workerd"} & set(suites):
            flock = Flock(options.binary, home / "flock")
        if {"pypi", "openapi", "differential"} & set(suites):
            dev = Node(options.binary, home / "dev", "DEV", dev=True)
        if "wrangler" in suites:
            wrangler.run(report, flock, home / "wrangler", options.long)
        if "workers" in suites:
            wrangler_workers.run(report, flock, home / "workers")
        if "serving" in suites:
            serving.run(report, options.binary, home, workerd())
        if "examples" in suites:
            examples.run(report, options.binary, home, workerd())
        if "battery" in suites:
            battery.run(report, options.binary, workerd())
        if "npm" in suites:
            sdk_npm.run(report, flock)
        if "pypi" in suites:
            sdk_pypi.run(report, flock)
            sdk_pypi.run_own_tests(report, dev, home)
        if "workerd" in suites:
            binding.run(report, options.binary, flock, home / "workerd")
        if "differential" in suites:
            seeds = options.seed or list(range(1, 21 if options.long else 6))
            operations = options.operations or (2000 if options.long else 400)
            differential.run(report, dev, home / "differential", seeds, operations)
        if "openapi" in suites:
            openapi.run(report, dev, home, options.long)
        for node in [*(flock.nodes if flock else []), *([dev] if dev else [])]:
            with report.case("nodes", f"{node.pop} is still up and logged no failure"):
                assert node.process.poll() is None, "it has ended"
                log = (node.directory / "log").read_text(errors="replace")
                assert "panicked" not in log and " ERROR " not in log, log[-2000:]
    finally:
        if flock:
            flock.stop()
        if dev:
            dev.stop()
        if options.keep:
            print(f"kept {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

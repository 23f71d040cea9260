"""The battery: whether both engines answer as it is written down, and docs/COMPATIBILITY.md says how they differ."""

import pathlib
import subprocess
import sys

RECORD = pathlib.Path(__file__).resolve().parents[1] / "battery" / "record"


def run(report, binary, workerd):
    with report.case("battery", "both engines answer as recorded, and every difference is explained"):
        command = [sys.executable, str(RECORD), str(binary), str(workerd), "--check"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        print("       " + done.stdout.strip(), flush=True)

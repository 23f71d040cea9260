"""The API's description of itself, and schemathesis, which takes it at its word."""

import json
import subprocess
import time

from clients import INSTALLED

# Not asked: that whatever fits the schema is accepted (positive_data_acceptance). No schema can say that a title must
# be new and an expiration in the future.
EXCLUDED = "positive_data_acceptance"


def run(report, dev, home, long):
    with report.case("OpenAPI", "a description of version 3.1"):
        status, headers, text = dev.call("GET", "/openapi.json", headers={"Authorization": ""})
        described = json.loads(text)
        assert (status, headers["content-type"]) == (200, "application/json")
        assert described["openapi"].startswith("3.1") and described["paths"]
    for seed in range(1, 4 if long else 2):
        begun = time.monotonic()
        command = [
            INSTALLED / "venv" / "bin" / "schemathesis", "run", f"{dev.api}/openapi.json", "--no-color",
            "--seed", str(seed), "--max-examples", "200" if long else "25", "--checks", "all",
            "--exclude-checks", EXCLUDED, "--warnings", "off",
        ]
        done = subprocess.run(
            [str(word) for word in command], cwd=home, capture_output=True, text=True, timeout=1500 if long else 400
        )
        ok = done.returncode == 0 and "No issues found" in done.stdout
        detail = summary(done.stdout) if ok else done.stdout[-6000:] + done.stderr[-2000:]
        report.add("schemathesis", f"seed {seed}: no 5xx, undocumented status or schema violation", ok, detail,
                   time.monotonic() - begun)


def summary(text):
    return "\n".join(line.strip() for line in text.splitlines() if "generated" in line)

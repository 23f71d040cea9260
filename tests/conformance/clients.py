"""Where the installed clients are, and how to call them."""

import os
import pathlib
import re
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
INSTALLED = HERE / ".clients"
MODULES = INSTALLED / "node_modules"
NODE = MODULES / "node" / "bin" / "node"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def workerd():
    """The binary of the `workerd` package, for this machine."""
    return next(MODULES.glob("@cloudflare/workerd-*/bin/workerd"))


class Wrangler:
    """wrangler as a user runs it, pointed at a node."""

    def __init__(self, node, home, token=None, email=None):
        self.home = pathlib.Path(home)
        (self.home / "work").mkdir(parents=True, exist_ok=True)
        keep = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        self.environment = keep | {
            "CLOUDFLARE_API_BASE_URL": node.api,
            "CLOUDFLARE_ACCOUNT_ID": node.account,
            "WRANGLER_SEND_METRICS": "false",
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "NO_COLOR": "1",
            "FORCE_COLOR": "0",
            "CI": "true",
        }
        token = token or node.token
        if email:
            self.environment |= {"CLOUDFLARE_API_KEY": token, "CLOUDFLARE_EMAIL": email}
        else:
            self.environment |= {"CLOUDFLARE_API_TOKEN": token}

    def run(self, *words, ok=True, timeout_secs=120, cwd=None, stdin=None):
        """Its output (both streams, without colours); `.stdout` alone for values."""
        command = [NODE, MODULES / "wrangler" / "bin" / "wrangler.js", *words]
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd or self.home / "work",
            env=self.environment,
            capture_output=True,
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
            timeout=timeout_secs,
        )
        shown = Shown(COLOURS.sub("", (done.stdout + done.stderr).decode(errors="replace")))
        shown.stdout = done.stdout
        assert (done.returncode == 0) == ok, f"wrangler {' '.join(map(str, words))[:200]}: {done.returncode}\n{shown}"
        return shown


class Shown(str):
    stdout = b""

"""Cases and their results: one line each while they run, a table at the end."""

import contextlib
import json
import subprocess
import sys
import time
import traceback


class Report:
    def __init__(self, only=None):
        self.results = []
        self.only = only

    @contextlib.contextmanager
    def case(self, client, name):
        """Runs a case. Whatever goes wrong in it is its result, and the run goes on."""
        begun = time.monotonic()
        try:
            yield
        except Exception as failure:
            where = traceback.extract_tb(failure.__traceback__)[-1]
            text = str(failure) or f"line {where.lineno}: {where.line}"
            self.add(client, name, False, f"{type(failure).__name__}: {text}", time.monotonic() - begun)
        else:
            self.add(client, name, True, "", time.monotonic() - begun)

    def add(self, client, name, ok, detail="", secs=0.0):
        self.results.append((client, name, ok, detail, secs))
        mark = "ok  " if ok else "FAIL"
        print(f"  {mark} {client:<16} {name} ({secs:.1f} s)", flush=True)
        if detail:
            print("\n".join("       " + line for line in detail.splitlines()[:40]), flush=True)

    def from_program(self, client, command, timeout_secs, **options):
        """Runs a program that prints one JSON object a case: {"case", "ok", "detail"?, "secs"?}, and fails a case of
        its own if it ends badly or says nothing."""
        process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )
        try:
            out, err = process.communicate(timeout=timeout_secs)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += f"\nnot done after {timeout_secs} s"
        count = 0
        for line in out.splitlines():
            try:
                found = json.loads(line)
                self.add(client, found["case"], found["ok"], found.get("detail", ""), found.get("secs", 0.0))
                count += 1
            except (ValueError, KeyError, TypeError):
                print(f"       {line}", flush=True)
        if process.returncode != 0 or count == 0:
            self.add(client, "ran to its end", False, f"exit code {process.returncode}\n{err[-4000:]}")

    def finish(self):
        """Prints the table; the exit code."""
        width = max((len(result[0]) for result in self.results), default=6)
        names = max((len(result[1]) for result in self.results), default=4)
        print(f"\n{'client':<{width}}  {'case':<{names}}  result")
        print(f"{'-' * width}  {'-' * names}  ------")
        for client, name, ok, _, _ in self.results:
            print(f"{client:<{width}}  {name:<{names}}  {'passed' if ok else 'FAILED'}")
        failed = sum(not result[2] for result in self.results)
        print(f"\n{len(self.results) - failed} passed, {failed} failed")
        sys.stdout.flush()
        return 1 if failed or not self.results else 0

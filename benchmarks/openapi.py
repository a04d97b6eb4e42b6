"""The actions of a large OpenAPI document: time and memory of the first, of all, and of a check."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

_RUNS = 5
_TARGET_SECONDS = 2.0
_DOCUMENT = Path.home() / ".cache/automate-openapi-tests/node_modules/@octokit/openapi/generated"
_MEASURE = """
import json, resource, sys, time
from automate_kernel import Kernel
from automate_openapi import OpenApiConnector

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

clock = time.process_time  # what other processes do is no part of it
kernel = Kernel(discover=False, config={"api": {"document": sys.argv[1], "pages": {}}})
kernel.register(OpenApiConnector, key="api")
before, began = memory(), clock()
name = next(iter(kernel.operations.own_operations("connector", "api")))
read, with_document = clock(), memory()
spec = kernel.operation(f"api.{name}")
one = clock()
found = kernel.operations.matching("api.*")
every, with_all = clock(), memory()
times = [(read - began) * 1e3, (one - read) * 1e3, (every - one) * 1e3]
print(json.dumps([*times, len(found), with_document - before, with_all - with_document]))
"""


def openapi() -> str:
    """Measure GitHub's document in processes of its own, and return the figures in words."""
    document = _DOCUMENT / "api.github.com.json"
    if not document.exists():
        return f"there is no {document}: run the tests of automate-openapi once, which install it"
    runs = [_run(document) for _ in range(_RUNS)]
    read, one, every, actions, held, more = (median(each) for each in zip(*runs, strict=True))
    return (
        f"{document.stat().st_size / 1e6:.0f} MB, {actions:.0f} actions, {_RUNS} processes, medians"
        f" of processor time: read {read:.0f} ms, one action {one:.1f} ms, all others"
        f" {every:.0f} ms; memory at its peak {held:.0f} MiB, with all actions {more:.0f} MiB more."
        f" To stay below {_TARGET_SECONDS:.0f} s."
    )


def _run(document: Path) -> list[float]:
    command = [sys.executable, "-c", _MEASURE, str(document)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[float] = json.loads(done.stdout)
    return found

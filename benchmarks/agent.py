"""
The process of one contender, in its own environment: `python -m benchmarks.agent SPEC`.

As a producer it takes calls as lines of JSON on its standard input and answers each with its
result, how long it took and what CPU time it used. As a worker it prepares, waits at the gate and
works until it is ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import signal
import sys
import time
from typing import Any

from benchmarks import counter
from benchmarks.contender import Contender, Database
from benchmarks.contenders import load

_PATIENCE_SECONDS = 30.0


def main() -> None:
    """Be what the first argument describes."""
    _die_with_parent()
    spec = json.loads(sys.argv[1])
    contender = load(spec["contender"])(Database(**spec["database"]), spec["variant"])
    if spec["purpose"] is None:
        _serve(contender, spec["counter"])
    else:
        counter.use(spec["counter"], spec["slot"])
        work = contender.worker(spec["purpose"])
        counter.wait_for_gate()
        work()


def _die_with_parent() -> None:
    # Workers that outlive a benchmark that was killed would spoil the next one.
    parent = os.getppid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _serve(contender: Contender, path: str) -> None:
    # What a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    watched = counter.Counter(path)
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        if method == "pick_up":
            call, arguments = _pick_up, [contender, watched, *arguments]
        else:
            call = getattr(contender, method)
        print(json.dumps(_answer(call, arguments)), file=answers, flush=True)


def _answer(call: Any, arguments: list[Any]) -> dict[str, Any]:
    cpu, began = _cpu(), time.perf_counter()
    try:
        result = call(*arguments)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:2000]}
    seconds = time.perf_counter() - began
    return {"result": result, "seconds": seconds, "cpu": _cpu() - cpu}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _pick_up(contender: Contender, watched: counter.Counter, samples: int) -> list[float]:
    """Milliseconds from the return of the enqueuing call to the handler, for single items."""
    pause = random.Random(samples).uniform
    taken = []
    for _ in range(samples):
        time.sleep(pause(0.01, 0.04))
        before = watched.count
        contender.enqueue_each(1)
        committed = time.monotonic_ns()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while watched.count == before:
            if time.monotonic() > deadline:
                raise TimeoutError("an item was not picked up")
            time.sleep(0.0003)
        taken.append((watched.last - committed) / 1e6)
    return taken


if __name__ == "__main__":
    main()

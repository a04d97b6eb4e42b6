"""
Processes that kill themselves at a place of their work, for scripts that have others finish it.

A script forks a process for each place, so that what they need is imported once: by the script, or
by the first of them that came to its end.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa


def die() -> None:
    """Kill this process, as the system does that has no memory left: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def ends(work: Callable[[], object]) -> bool:
    """Do *work* in a forked process; True if it came to its end, False if it has killed itself."""
    known = set(sys.modules)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            os.write(writing, "\n".join(each for each in sys.modules if each not in known).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)  # without the cleaning up that belongs to the parent
    os.close(writing)
    with open(reading) as told:
        imported = told.read().split()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"a process failed with {code}")
    for name in imported:
        with contextlib.suppress(Exception):  # some are made, and in no file
            importlib.import_module(name)
    return code == 0


def die_at_commit(engine: sa.Engine, when: str, number: int) -> None:
    """Let this process die ``before`` or ``after`` the commit of that *number*, from 1."""
    own, commits = engine.dialect.do_commit, 0

    def commit(connection: Any) -> None:
        nonlocal commits
        commits += 1
        place = commits
        if (when, number) == ("before", place):
            die()
        own(connection)
        if (when, number) == ("after", place):
            die()

    engine.dialect.do_commit = commit  # type: ignore[method-assign]


def die_around(
    owner: type, name: str, place: int, concerns: Callable[..., bool] = lambda *_: True
) -> None:
    """
    Let this process die at a *place* around calls of an asynchronous method.

    Odd places are before a call, even ones after its answer, which then is in no commit. Only calls
    whose arguments it *concerns* are counted.
    """
    own, seen = getattr(owner, name), 0

    def step() -> None:
        nonlocal seen
        seen += 1
        if seen == place:
            die()

    async def call(self: Any, *args: Any, **more: Any) -> Any:
        if not concerns(*args):
            return await own(self, *args, **more)
        step()
        answer = await own(self, *args, **more)
        step()
        return answer

    setattr(owner, name, call)


def die_everywhere(survives: Callable[[Path, str, int], bool]) -> None:
    """
    Have a process die at each place, from 1, until one *survives*, which has met them all.

    The script is called with a URL and a folder. `survives` gets a folder of its own, the URL and
    the place. The number of places goes to ``result.json`` in the folder.
    """
    url, folder, number = sys.argv[1], Path(sys.argv[2]), 1
    while not survives(folder / str(number), url, number):
        number += 1
    (folder / "result.json").write_text(json.dumps(number))

"""
Processes that tests start: they hear the signals that are sent to them, and end with the test.

A shell without job control (a script's ``pytest &``, ``nohup``, many CI runners) has what it starts
in the background ignore SIGINT. Whoever is started by that inherits it, and then no Ctrl-C stops a
worker or a server. So the first who imports this module listens to these signals again: a signal
that has a handler here has its usual effect in every process that is started from here on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any


def listen_to_signals() -> None:
    """Have the processes that are started from now on hear SIGINT, SIGTERM and SIGHUP."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])


DEVNULL, PIPE = subprocess.DEVNULL, subprocess.PIPE

listen_to_signals()


def start(command: Sequence[Any], **options: Any) -> subprocess.Popen[Any]:
    """A process in a session of its own, for `end`; *options* are those of `Popen`."""
    options.setdefault("start_new_session", True)
    return subprocess.Popen(command, **options)


def end(process: Any) -> None:
    """Kill what is left of *process* and of all that it started, and close its pipes."""
    try:
        # The group is there as long as anyone of it is, though its first may be gone; one that
        # began in our own group leads none.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait(30)
    finally:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@contextlib.contextmanager
def running(command: Sequence[Any], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """`start` a process, and `end` it after the block, however the block ends."""
    process = start(command, **options)
    try:
        yield process
    finally:
        end(process)

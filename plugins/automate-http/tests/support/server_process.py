"""A server of somebody else's, run in a process of its own on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ports import free_ports
from waiting import listening, until

_START_SECONDS, _END_SECONDS = 90, 10


@contextmanager
def server_process(command: Callable[[int], Sequence[str]], log: Path) -> Iterator[str]:
    """Run the *command* for a free port, and give the URL once it listens; its words go to *log*."""
    (port,) = free_ports(1)
    with log.open("wb") as output:
        process = subprocess.Popen(command(port), stdout=output, stderr=output)
    try:
        _wait_for(process, port, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until(lambda: listening(port), _START_SECONDS, process=process, why=log.read_text)

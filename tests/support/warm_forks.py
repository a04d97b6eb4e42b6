"""
Python programs that begin within milliseconds: forks of a process that has imported what they need.

``python warm_forks.py ADDRESS MODULE…`` imports the modules and listens on a Unix socket. Each program
has the folder, the arguments and the environment of a process of its own, and ends like one. Only what
the modules do at their import was done before, in the environment of that process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import json
import os
import random
import runpy
import select
import shlex
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import processes

# By `automate`, whatever the command: each would take longer to import them than for its own work.
COMMAND_LINE = (
    "automate_cli.app",
    "automate_cli.session",
    "automate_kernel.kernel",
    "automate_kernel.triggers.polls.poller",
    "automate_kernel.triggers.webhooks.receiver",
    "automate_kernel.workflows.drive.engine",
    "automate_kernel.workflows.steer.notices",
    "automate_kernel.workflows.steer.schedule",
    "automate_sqlalchemy",
    "yaml",
)


@contextlib.contextmanager
def serving(address: Path, modules: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """The address at which programs are forked, with *modules* imported, while the block runs."""
    with processes.running(
        [sys.executable, __file__, address, *modules],
        env=environment, stdin=processes.PIPE, stdout=processes.PIPE, text=True,
    ) as server:  # fmt: skip
        assert server.stdout.readline() == "ready\n"
        yield str(address)


def run(
    address: str, arguments: Sequence[str], environment: Mapping[str, str],
    output: IO[str], errors: IO[str], *, folder: Path, seconds: float,
) -> int:  # fmt: skip
    """
    How the program with these *arguments*, as of ``python``, ended: its exit code or minus a signal.

    Raises `TimeoutError` after *seconds*, when the program has written to *errors* what each of its
    threads does. What it has started and not stopped ends with it.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        connection.connect(address)
        socket.send_fds(connection, [b"!"], [output.fileno(), errors.fileno()])
        order = json.dumps([list(arguments), str(folder), dict(environment)])
        connection.sendall(f"{order}\n".encode())
        with connection.makefile() as answers:
            pid = int(answers.readline())
            try:
                return int(answers.readline())
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError, TimeoutError):
                    os.kill(pid, signal.SIGABRT)  # see `faulthandler` below
                    connection.settimeout(10)
                    connection.recv(1)
                text = f"{shlex.join(arguments)} did not end within {seconds:.0f} s"
                raise TimeoutError(text) from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)


def ended(
    address: str, arguments: Sequence[str], environment: Mapping[str, str],
    *, folder: Path, seconds: float,
) -> tuple[int, str, str]:  # fmt: skip
    """How the program ended, as of `run`, what it printed, and its errors."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:

        def printed() -> Iterator[str]:
            for file in (output, errors):
                file.seek(0)
                yield file.read()

        try:
            code = run(
                address, arguments, environment, output, errors, folder=folder, seconds=seconds
            )
        except TimeoutError as late:
            raise TimeoutError("\n".join([str(late), *printed()])) from None
        return (code, *printed())


def _serve(address: str, modules: Sequence[str]) -> None:
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else each fork's collector copies all of it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        print("ready", flush=True)
        # Its standard input ends when whoever has started it does.
        while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                return _attend(connection)
            connection.close()


def _attend(connection: socket.socket) -> None:
    """Fork the program that is asked for, which returns from here, and report how it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, (output, errors), *_ = socket.recv_fds(connection, 1, 2)
    with connection, connection.makefile() as orders:
        arguments, folder, environment = json.loads(orders.readline())
        pid = os.fork()
        if pid:
            os.close(output)
            os.close(errors)
            with contextlib.suppress(OSError):  # nobody waits any more
                connection.sendall(f"{pid}\n".encode())
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                connection.sendall(f"{code}\n".encode())
            os._exit(0)
    os.setsid()
    for number, file in enumerate([os.open(os.devnull, os.O_RDONLY), output, errors]):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    random.seed()
    _run(arguments)


def _run(arguments: list[str]) -> None:
    """Be ``python`` with these arguments."""
    faulthandler.enable(2)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in paths if path]
    if arguments[0] == "-m":
        sys.path[0], sys.argv = os.getcwd(), arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv = str(Path(arguments[0]).resolve().parent), arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2:])

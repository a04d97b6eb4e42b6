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
import io
import json
import os
import random
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

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
DJANGO = (
    "django.core.management",
    "django.contrib.messages.api",
    "django.db.models.fields.json",
    "django.template.response",
    "django.test.signals",
    "django.utils.autoreload",
    "psycopg",
)
"""What Django and its parts import without settings."""


@contextlib.contextmanager
def serving(address: Path, modules: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """The address at which programs are forked, with *modules* imported, while the block runs."""
    with processes.running(
        [sys.executable, __file__, address, *modules],
        env=environment, stdin=processes.PIPE, stdout=processes.PIPE, text=True,
    ) as server:  # fmt: skip
        assert server.stdout.readline() == "ready\n"
        yield str(address)


class Forked:
    """A program that was forked, with what tests use of `subprocess.Popen`."""

    def __init__(
        self, address: str, arguments: Sequence[str], *, cwd: Path | None = None,
        env: Mapping[str, str] | None = None, stdin: Any = None, stdout: Any = None,
        stderr: Any = None, text: bool = False,
    ) -> None:  # fmt: skip
        self.args, self.returncode = list(arguments), None
        with contextlib.ExitStack() as theirs:

            def pipe(given: Any, number: int) -> tuple[int, IO[Any] | None]:
                """The descriptor of the program, and our end if it is a pipe."""
                if given is None:
                    return number, None
                if given == processes.DEVNULL:
                    return theirs.enter_context(open(os.devnull, "r+b", buffering=0)).fileno(), None
                if given != processes.PIPE:
                    return (given if isinstance(given, int) else given.fileno()), None
                ends = os.pipe()
                theirs.callback(os.close, ends[number > 0])
                mode = ("r" if number else "w") + ("" if text else "b")
                return ends[number > 0], open(ends[number == 0], mode)

            read, self.stdin = pipe(processes.DEVNULL if stdin is None else stdin, 0)
            out, self.stdout = pipe(stdout, 1)
            errors, self.stderr = (
                (out, None) if stderr == subprocess.STDOUT else pipe(stderr, 2)
            )  # fmt: skip
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.settimeout(60)
            self._connection.connect(address)
            socket.send_fds(self._connection, [b"!"], [read, out, errors])
            order = [self.args, str(cwd or Path.cwd()), dict(os.environ if env is None else env)]
            self._connection.sendall(f"{json.dumps(order)}\n".encode())
            self._answers = self._connection.makefile()
            self.pid = int(self._answers.readline())

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit code, or minus the signal that has ended it."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """Return what `wait` does, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        """Wait for its end; return what it has printed, and its errors, where these are pipes."""
        pipes = [self.stdout, self.stderr]
        with ThreadPoolExecutor() as pool:
            read = [pool.submit(each.read) if each is not None else None for each in pipes]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)  # else the pipes never end
                raise
            printed, errors = (each.result(timeout) if each is not None else None for each in read)
        return printed, errors

    def send_signal(self, number: int) -> None:
        """Send it a signal if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(address: str, command: Sequence[Any], **options: Any) -> Forked:
    """As `processes.start` does, for a *command* that begins with ``sys.executable``."""
    program, *arguments = map(str, command)
    assert program == sys.executable
    return Forked(address, arguments, **options)


@contextlib.contextmanager
def running(address: str, command: Sequence[Any], **options: Any) -> Iterator[Forked]:
    """As `processes.running` does, for a *command* that begins with ``sys.executable``."""
    process = start(address, command, **options)
    try:
        yield process
    finally:
        processes.end(process)


def run(
    address: str, arguments: Sequence[str], environment: Mapping[str, str],
    output: IO[str], errors: IO[str], *, folder: Path, seconds: float,
) -> int:  # fmt: skip
    """
    How the program with these *arguments*, as of ``python``, ended: its exit code or minus a signal.

    Raises `TimeoutError` after *seconds*, when the program has written to *errors* what each of its
    threads does. What it has started and not stopped ends with it.
    """
    process = Forked(address, arguments, cwd=folder, env=environment, stdout=output, stderr=errors)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # see `faulthandler` below
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        text = f"{shlex.join(arguments)} did not end within {seconds:.0f} s"
        raise TimeoutError(text) from None
    finally:
        processes.end(process)


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
    _, files, *_ = socket.recv_fds(connection, 1, 3)
    with connection, connection.makefile() as orders:
        arguments, folder, environment = json.loads(orders.readline())
        pid = os.fork()
        if pid:
            for file in files:
                os.close(file)
            with contextlib.suppress(OSError):  # nobody waits any more
                connection.sendall(f"{pid}\n".encode())
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                connection.sendall(f"{code}\n".encode())
            os._exit(0)
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    random.seed()
    if environment.get("PYTHONUNBUFFERED"):
        sys.stdout = io.TextIOWrapper(open(1, "wb", 0, closefd=False), write_through=True)
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

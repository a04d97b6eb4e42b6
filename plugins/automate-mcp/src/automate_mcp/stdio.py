"""
The transport to a server that is a process of ours: bounded, and with no environment but the given.

The SDK's own lets the process see variables of its parent, and reads lines of any length.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import ByteReceiveStream, Process
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage

from automate_kernel.errors import ConfigError
from automate_mcp.messages import parsed

_CHUNK = 65_536
# Between the end of its input and SIGTERM, and between that and SIGKILL.
_GRACE_SECONDS = 1.0
_LOOK_SECONDS = 0.02
_LONGEST_LOG_LINE = 2_000
# A server that logs more than so many lines in as many seconds is cut short.
_MOST_LOG_LINES, _LOG_SECONDS = 200, 10.0

T = TypeVar("T")
Incoming = SessionMessage | Exception
Streams = tuple[MemoryObjectReceiveStream[Incoming], MemoryObjectSendStream[SessionMessage]]


@dataclass(frozen=True, slots=True)
class EndReason:
    """The reason why a server can't be talked to any more, with a *text* for people."""

    text: str
    too_large: bool = False
    """True if it sent more at once than is allowed: the same call would get the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessServer:
    """
    A server to be started. *log* gets the lines of its standard error.

    *started* is called with the number of its process, and *ended* once with the reason when it
    can't be talked to any more.
    """

    command: str
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    max_message_bytes: int = 1_048_576
    log: Callable[[str], None]
    started: Callable[[int], None]
    ended: Callable[[EndReason], None]


@asynccontextmanager
async def process_transport(server: ProcessServer) -> AsyncIterator[Streams]:
    """
    Start *server*, and yield the streams to it; end it and its children after the block.

    Raises `ConfigError` if there is no such program.
    """
    process = await _started(server)
    server.started(process.pid)
    to_session, incoming = anyio.create_memory_object_stream[Incoming](0)
    outgoing, from_session = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_read, server, process, to_session)
            tasks.start_soon(_write, server, process, from_session)
            tasks.start_soon(_log, server, process)
            try:
                yield incoming, outgoing
            finally:
                with anyio.CancelScope(shield=True):
                    await _end(process)
                tasks.cancel_scope.cancel()
    finally:
        for stream in (to_session, incoming, outgoing, from_session):
            stream.close()


async def _started(server: ProcessServer) -> Process:
    # Looked for in our own PATH: the process may have none.
    program = shutil.which(server.command)
    if program is None:
        raise ConfigError(
            f"there is no program {server.command!r}", hint="give its full path, or install it"
        )
    try:
        return await anyio.open_process(
            [program, *server.args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(server.env),
            cwd=server.cwd,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        kind = error.strerror if isinstance(error, OSError) else "an argument can't be passed"
        raise ConfigError(f"the program {server.command!r} can't be started: {kind}") from None


def is_gone(pid: int) -> bool:
    """Return True if the child *pid* has ended, also before the event loop has learnt of it."""
    try:
        # It stays for who waits for it.
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


async def _read(
    server: ProcessServer, process: Process, to_session: MemoryObjectSendStream[Incoming]
) -> None:
    reason = EndReason("it has ended")
    async with to_session:
        try:
            async for line in _lines(_pipe(process.stdout), server.max_message_bytes):
                if not line.strip():
                    continue
                try:
                    message: Incoming = SessionMessage(parsed(line))
                except (ValueError, RecursionError):
                    # Not its text, nor pydantic's that quotes it: it may hold anything.
                    server.log(f"a line of {len(line):,} bytes on its output is no message")
                    continue
                await to_session.send(message)
        except _LineTooLongError:
            text = f"it sent a message of more than {server.max_message_bytes:,} bytes"
            reason = EndReason(text, too_large=True)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            reason = EndReason("its output was closed")
        finally:
            server.ended(reason)


def _pipe(stream: T | None) -> T:
    if stream is None:
        raise RuntimeError("the process was started without a pipe")
    return stream


class _LineTooLongError(Exception):
    """A line is longer than a message may be."""


async def _lines(stream: ByteReceiveStream, most: int) -> AsyncIterator[bytes]:
    kept = bytearray()
    while True:
        try:
            chunk = await stream.receive(_CHUNK)
        except anyio.EndOfStream:
            return
        first, *rest = chunk.split(b"\n")
        kept += first
        for part in rest:
            if len(kept) > most:
                raise _LineTooLongError
            yield bytes(kept)
            kept = bytearray(part)
        if len(kept) > most:
            raise _LineTooLongError


async def _write(
    server: ProcessServer, process: Process, from_session: MemoryObjectReceiveStream[SessionMessage]
) -> None:
    stdin = _pipe(process.stdin)
    async with from_session:
        try:
            async for sent in from_session:
                text = sent.message.model_dump_json(by_alias=True, exclude_unset=True)
                await stdin.send(text.encode() + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            server.ended(EndReason("its input was closed"))


async def _log(server: ProcessServer, process: Process) -> None:
    """Hand the lines of its standard error on, in bounds; read all, or it would block."""
    stderr = _pipe(process.stderr)
    since, count, kept = time.monotonic(), 0, b""
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        while True:
            *lines, kept = (kept + await stderr.receive(_CHUNK)).split(b"\n")
            kept = kept[:_LONGEST_LOG_LINE]
            if time.monotonic() - since > _LOG_SECONDS:
                since, count = time.monotonic(), 0
            for line in filter(bytes.strip, lines):
                count += 1
                if count <= _MOST_LOG_LINES:
                    server.log(line[:_LONGEST_LOG_LINE].decode("utf-8", "replace").rstrip())
                elif count == _MOST_LOG_LINES + 1:
                    server.log("it logs too much: what follows is left out")
    if kept.strip():
        server.log(kept.decode("utf-8", "replace").rstrip())


async def _end(process: Process) -> None:
    """Close its input, and end it and its children if it doesn't go."""
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        await _pipe(process.stdin).aclose()
    for way in (None, signal.SIGTERM, signal.SIGKILL):
        if way is not None:
            # The group: a wrapper such as npx leaves its child behind.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, way)
        with anyio.move_on_after(_GRACE_SECONDS):
            # Not wait(): on some Pythons it waits for the pipes too, which a child may hold.
            while process.returncode is None:  # noqa: ASYNC110  (nothing tells of it)
                await anyio.sleep(_LOOK_SECONDS)
        if process.returncode is not None:
            break
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # children that have outlived it
    _close_transport(process)
    await anyio.lowlevel.checkpoint()


def _close_transport(process: Process) -> None:
    """
    Close asyncio's own object for the process, which would complain when it is collected.

    Nothing public leads to it. Its pipes may be held open by a child that has outlived all signals.
    """
    transport = getattr(getattr(process, "_process", None), "_transport", None)
    close = getattr(transport, "close", None)
    if callable(close):
        with suppress(PermissionError):
            close()

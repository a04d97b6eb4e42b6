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
from mcp.types import INTERNAL_ERROR, ErrorData, JSONRPCError

from automate_kernel.base.errors import ConfigError, ErrorCodes
from automate_mcp.messages import MARK, Outline, parsed

_CHUNK = 65_536
# A message that is too long is read to its end, up to so many bytes and times what is allowed.
_LEAST_DRAINED, _DRAINED = 64_000_000, 64
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
            async for line in _lines(server, _pipe(process.stdout)):
                message = _message_in(server, line)
                if message is not None:
                    await to_session.send(message)
        except _EndlessLineError:
            text = "it sent a message without an end, of far more than"
            text += f" {server.max_message_bytes:,} bytes"
            reason = EndReason(text, too_large=True)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            reason = EndReason("its output was closed")
        finally:
            server.ended(reason)


def _pipe(stream: T | None) -> T:
    if stream is None:
        raise RuntimeError("the process was started without a pipe")
    return stream


def _message_in(server: ProcessServer, line: bytes | _LongLine) -> Incoming | None:
    if isinstance(line, _LongLine):
        # It fails the request that it answers, and nobody else's.
        request_id = line.outline.request_id
        server.log(f"a message of {line.size:,} bytes is more than max_result_bytes")
        return None if request_id is None else SessionMessage(_too_large(server, request_id))
    if not line.strip():
        return None
    try:
        return SessionMessage(parsed(line))
    except (ValueError, RecursionError):
        # Not its text, nor pydantic's that quotes it: it may hold anything.
        server.log(f"a line of {len(line):,} bytes on its output is no message")
        return None


def _too_large(server: ProcessServer, request_id: int | str) -> JSONRPCError:
    data = {
        "code": ErrorCodes.RESOURCE_EXHAUSTED.value,
        "hint": "ask for less, or raise max_result_bytes in the config; if a tool was called, it"
        " may have done its work",
        "retryable": False,
    }
    text = f"it answered with more than {server.max_message_bytes:,} bytes"
    error = ErrorData(code=INTERNAL_ERROR, message=text, data={MARK: data})
    return JSONRPCError(jsonrpc="2.0", id=request_id, error=error)


def _longest(server: ProcessServer) -> int:
    return max(_LEAST_DRAINED, server.max_message_bytes * _DRAINED)


class _EndlessLineError(Exception):
    """A line goes on and on: who waits for its end may wait for ever."""


@dataclass(slots=True)
class _LongLine:
    """A line that is longer than a message may be, and is not kept."""

    outline: Outline = field(default_factory=Outline)
    size: int = 0

    def feed(self, part: bytes) -> None:
        """Take the next part of it."""
        self.outline.feed(part)
        self.size += len(part)


async def _lines(
    server: ProcessServer, stream: ByteReceiveStream
) -> AsyncIterator[bytes | _LongLine]:
    kept, long = bytearray(), None
    while True:
        try:
            chunk = await stream.receive(_CHUNK)
        except anyio.EndOfStream:
            return
        *ended, last = chunk.split(b"\n")
        for part in ended:
            kept += part
            if long is None and len(kept) <= server.max_message_bytes:
                yield bytes(kept)
            else:
                long = long or _LongLine()
                long.feed(bytes(kept))
                yield long
            kept, long = bytearray(), None
        kept += last
        if long is not None or len(kept) > server.max_message_bytes:
            long = long or _LongLine()
            long.feed(bytes(kept))
            kept = bytearray()
            if long.size > _longest(server):
                raise _EndlessLineError


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

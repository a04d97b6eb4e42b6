"""
One session with a server, kept open, and opened again when it was lost.

It lives on an event loop of its own, because calls come from several: a process is started once,
whoever calls. A task keeps the session, for the SDK's contexts end in the task that began them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp import Client, MCPError, types
from mcp.client.streamable_http import streamable_http_client
from pydantic import ValidationError

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.call_rates import ServiceWait
from automate_kernel.secrets.logs import guard_loggers, quiet
from automate_mcp.config import McpConfig
from automate_mcp.http import http_client
from automate_mcp.messages import MARK
from automate_mcp.readable_tools import with_readable_lists
from automate_mcp.restart_pause import RestartPause
from automate_mcp.results import UNSURE, error_of, unreadable
from automate_mcp.signing import RequestSigning
from automate_mcp.stdio import EndReason, ProcessServer, is_gone, process_transport

T = TypeVar("T")

# A call waits so long for a pause to end; with more it fails, and says when to come back.
_PATIENCE_SECONDS = 1.0
# A session that nobody has used for so long is tried before the next call.
_IDLE_SECONDS = 30.0
_PING_SECONDS = 5.0
_CLOSE_SECONDS = 8.0
_UNKNOWN = EndReason("the server has ended the session")
# Turns of the loop until the end of a process's output is noticed.
_LOOKS = 5


@dataclass(eq=False)
class _KeptSession:
    """A session as its task keeps it. All on the connection's loop."""

    ready: anyio.Event = field(default_factory=anyio.Event)
    stop: anyio.Event = field(default_factory=anyio.Event)
    client: Client | None = None
    failure: BaseException | None = None
    pid: int | None = None
    """The number of the server's process, if it is one of ours."""
    ended: EndReason | None = None
    """The reason why it can't be used any more."""
    used_at: float = field(default_factory=time.monotonic)
    suspect: bool = False
    """True if a call got no answer in time."""
    task: asyncio.Task[None] | None = None

    @property
    def live(self) -> Client:
        """The client of a session that was opened."""
        if self.client is None:
            raise RuntimeError("the session isn't open")
        return self.client

    @property
    def protocol_version(self) -> str | None:
        """The version that was agreed on; None before that."""
        return None if self.client is None else self.client.session.protocol_version

    def started(self, pid: int) -> None:
        """Note the number of the server's process."""
        self.pid = pid

    def end(self, reason: EndReason) -> None:
        """Let its task end, for the first *reason* that is given."""
        self.ended = self.ended or reason
        self.stop.set()


class Connection:
    """
    The session with the server of *config*, opened at the first `use`. *key* names it in errors.

    *changed* is called when the server has other tools than before, also after it was lost. *log*
    gets the lines that a process writes to its standard error. *signing* is for a server with
    accounts.
    """

    def __init__(
        self,
        key: str,
        config: McpConfig,
        *,
        environment: Callable[[], dict[str, str]],
        changed: Callable[[], None],
        log: Callable[[str], None],
        logger: logging.Logger,
        signing: RequestSigning | None = None,
        wait: ServiceWait | None = None,
    ) -> None:
        # "client" is what the SDK calls the logger of its sessions.
        guard_loggers("mcp", "client", "httpx2", "httpcore2")
        self.key: str = key
        """The provider's key."""
        self._signing, self._wait = signing, wait
        self._users = 0
        self._config = config
        self._environment = environment
        self._changed = changed
        self._log = log
        self._logger = logger
        self._pause = RestartPause()
        self._guard = threading.Lock()
        self._stack: ExitStack | None = None
        self._portal: BlockingPortal | None = None
        self._opening: anyio.Lock | None = None
        self._session: _KeptSession | None = None
        # With those that are being opened, and those that were lost and whose processes still end.
        self._kept: set[_KeptSession] = set()

    async def use(
        self,
        work: Callable[[Client], Awaitable[T]],
        *,
        idempotent: bool = True,
        proves: bool = False,
    ) -> T:
        """
        Return what *work* does with the session, from any event loop.

        A cancelled caller cancels the work, and the server learns of that. Raises `AutomateError`;
        after a loss during the work it is worth another attempt only if that is *idempotent*.
        Work that *proves* that the server does what it is for ends its pauses.
        """
        with self._guard:
            self._users += 1
        try:
            future = self._running_portal().start_task_soon(self._quietly, work, idempotent, proves)
            return await asyncio.wrap_future(future)
        finally:
            with self._guard:
                self._users -= 1

    @property
    def busy(self) -> bool:
        """True while somebody uses it."""
        return self._users > 0

    def close(self) -> None:
        """End the session and its process. The next `use` opens another."""
        with self._guard:
            portal, stack = self._portal, self._stack
            self._portal = self._stack = None
        if portal is None or stack is None:
            return
        with suppress(Exception):
            portal.start_task_soon(self._end_session).result(_CLOSE_SECONDS)
        with suppress(Exception):
            portal.start_task_soon(portal.stop, True)
            stack.close()

    def _running_portal(self) -> BlockingPortal:
        with self._guard:
            if self._portal is None:
                self._stack = ExitStack()
                portal = start_blocking_portal("asyncio", name=f"automate-mcp-{self.key}")
                self._portal = self._stack.enter_context(portal)
                self._opening, self._session = None, None
            return self._portal

    # -- on the connection's loop ------------------------------------------------------------

    async def _quietly(
        self, work: Callable[[Client], Awaitable[T]], idempotent: bool, proves: bool
    ) -> T:
        # They write addresses and what is sent into the log, with the secrets in them, and with a
        # traceback what was answered and can't be read. The tasks of a session that is opened here
        # keep silent too. What happened is in the error of the call.
        with quiet(logging.CRITICAL):
            return await self._use(work, idempotent, proves)

    async def _use(
        self, work: Callable[[Client], Awaitable[T]], idempotent: bool, proves: bool
    ) -> T:
        session = await self._live_session()
        try:
            try:
                result = await work(session.live)
            except MCPError as error:
                if not _is_unknown(error):
                    raise
                # The server was restarted, say. It did nothing: the call is made in a new session.
                session.end(_UNKNOWN)
                self._forget(session)
                session = await self._live_session()
                result = await work(session.live)
        except MCPError as error:
            raise self._failed(session, error, idempotent=idempotent) from None
        except ValidationError as error:
            # The kernel would call again after what is no error of its own.
            raise unreadable(error, f"the server of {self.key!r}") from None
        session.used_at, session.suspect = time.monotonic(), False
        if proves:
            self._pause.worked()
        return result

    def _failed(self, session: _KeptSession, error: MCPError, *, idempotent: bool) -> AutomateError:
        session.used_at = time.monotonic()
        if error.code == types.REQUEST_TIMEOUT:
            session.suspect = True
        lost = _is_closed(error) or session.ended is not None
        if error.code == types.INVALID_REQUEST and error.message == "Session terminated":
            lost = True
        if not lost:
            return error_of(error, f"the server of {self.key!r}", idempotent=idempotent)
        reason = session.ended or EndReason("the session has ended")
        if session.ended is None:
            session.end(reason)
        self._forget(session)
        text = f"the server of {self.key!r} was lost during the call: {reason.text}"
        hint: str | None = None if idempotent else UNSURE
        # The next attempt would get the same; of several calls nobody knows whose answer it was.
        if reason.too_large and self._users == 1:
            less = "ask for less, or raise max_result_bytes in the config"
            hint = f"{less}; {hint}" if hint else less
            return AutomateError(ErrorCodes.RESOURCE_EXHAUSTED, text, hint=hint, retryable=False)
        return AutomateError(ErrorCodes.UNAVAILABLE, text, hint=hint, retryable=idempotent)

    async def _live_session(self) -> _KeptSession:
        self._opening = self._opening or anyio.Lock()
        async with self._opening:
            for _ in range(_LOOKS):
                # What has ended meanwhile is noticed before the call, and not in it.
                await anyio.lowlevel.checkpoint()
            session = self._session
            if session is not None and session.pid is not None and is_gone(session.pid):
                session.end(EndReason("it has ended"))
            if session is not None and session.ended is None and await self._answers(session):
                return session
            if session is not None:
                self._forget(session)
                await self._finish(session)
            pause = self._pause.remaining
            if pause > _PATIENCE_SECONDS:
                raise AutomateError(
                    ErrorCodes.UNAVAILABLE,
                    f"the server of {self.key!r} has failed, and is tried again in {pause:.0f} s",
                    hint="the log has what it wrote to its standard error",
                    retry_after=pause,
                )
            await anyio.sleep(pause)
            self._session = session = await self._open()
            return session

    async def _answers(self, session: _KeptSession) -> bool:
        """Return True if the session works, as far as one need to know."""
        idle = time.monotonic() - session.used_at
        if not session.suspect and idle < _IDLE_SECONDS:
            return True
        mcp = session.live.session
        try:
            with anyio.fail_after(_PING_SECONDS):
                if mcp.initialize_result is not None or mcp.protocol_version is None:
                    await mcp.send_ping()
                else:  # the newer protocol has no ping
                    await mcp.send_discover(mcp.protocol_version)
        except (MCPError, TimeoutError):
            session.end(EndReason("it doesn't answer"))
            self._logger.warning("the server of %r doesn't answer, and is started again", self.key)
            return False
        session.used_at, session.suspect = time.monotonic(), False
        return True

    def _forget(self, session: _KeptSession) -> None:
        if self._session is session:
            self._session = None
            self._pause.failed()
            self._changed()

    async def _open(self) -> _KeptSession:
        session = _KeptSession()
        session.task = asyncio.get_running_loop().create_task(self._keep(session))
        self._kept.add(session)
        session.task.add_done_callback(lambda _: self._kept.discard(session))
        try:
            with anyio.fail_after(self._config.start_timeout_seconds):
                await session.ready.wait()
        except TimeoutError:
            session.failure = AutomateError(
                ErrorCodes.DEADLINE_EXCEEDED,
                f"the server of {self.key!r} didn't answer within"
                f" {self._config.start_timeout_seconds:g} s",
                hint="is its command right, and does it speak MCP?",
            )
        except BaseException:
            session.task.cancel()  # the caller was cancelled
            raise
        if session.failure is None and session.client is not None:
            return session
        session.task.cancel()
        await self._finish(session)
        self._pause.failed()
        raise self._unopened(session)

    def _unopened(self, session: _KeptSession) -> AutomateError:
        error = session.failure
        while isinstance(error, BaseException) and hasattr(error, "exceptions"):
            error = error.exceptions[0]  # a group: the first says what happened
        if isinstance(error, AutomateError):
            return error
        what = f"the server of {self.key!r} can't be used"
        if isinstance(error, MCPError) and not _is_closed(error):
            return error_of(error, what, idempotent=True)
        if isinstance(error, ValidationError):
            return unreadable(error, f"the server of {self.key!r}")
        reason = type(error).__name__ if error else "it has ended"
        if session.ended is not None:
            reason = session.ended.text
        if str(error).startswith("Unsupported protocol version"):
            reason = str(error)  # the process ended since the SDK let go of it
        return AutomateError(
            ErrorCodes.UNAVAILABLE,
            f"{what}: {reason}",
            hint="the log has what it wrote to its standard error"
            if self._config.command
            else None,
        )

    async def _keep(self, session: _KeptSession) -> None:
        """Hold the session open until it is told to stop, or lost."""
        try:
            async with self._client(session) as client:
                # Its own check runs the regular expressions of the server's schemas.
                setattr(client.session, "validate_tool_result", _unchecked)  # noqa: B010
                session.client = client
                if self._listens(client):
                    session.ready.set()
                    await self._listen(session, client)
                session.ready.set()
                await session.stop.wait()
        except asyncio.CancelledError:
            session.failure = session.failure or ConnectionError("it was given up")
        except BaseException as error:
            session.failure = session.failure or error
            self._logger.debug("the session of %r ended: %s", self.key, type(error).__name__)
        finally:
            session.end(EndReason("the session has ended"))
            session.ready.set()

    def _listens(self, client: Client) -> bool:
        """Return True if changes of the tools are told on a stream that we have to ask for."""
        tools = client.server_capabilities.tools
        return client.session.initialize_result is None and bool(tools and tools.list_changed)

    async def _listen(self, session: _KeptSession, client: Client) -> None:
        async def tell() -> None:
            with suppress(MCPError, RuntimeError, TimeoutError):
                async with client.listen(tools_list_changed=True) as events:
                    async for _ in events:
                        self._changed()
            # Nobody tells of changes any more: the next call asks.
            self._changed()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tell)
            await session.stop.wait()
            tasks.cancel_scope.cancel()

    def _client(self, session: _KeptSession) -> Client:
        async def handle(message: object) -> None:
            if isinstance(message, types.ToolListChangedNotification):
                self._changed()

        return Client(
            self._transport(session),
            message_handler=handle,
            client_info=types.Implementation(
                name="automate-kernel", version=version("automate-kernel-mcp")
            ),
            read_timeout_seconds=self._config.start_timeout_seconds,
            # The provider keeps the list of tools itself.
            cache=None,
        )

    def _transport(self, session: _KeptSession) -> AbstractAsyncContextManager[Any]:
        config = self._config
        transport: AbstractAsyncContextManager[Any]
        if config.url is not None:
            transport = _http_transport(config, config.url, self._signing, self._wait)
        else:
            transport = process_transport(
                ProcessServer(
                    command=config.command or "",
                    args=config.args,
                    env=self._environment(),
                    cwd=config.cwd,
                    max_message_bytes=config.max_result_bytes,
                    log=self._log,
                    started=session.started,
                    ended=session.end,
                )
            )
        return with_readable_lists(transport, lambda: session.protocol_version)

    async def _end_session(self) -> None:
        self._session = None
        for session in self._kept:
            session.end(EndReason("it was closed"))
            if session.task is not None and not session.ready.is_set():
                session.task.cancel()  # it waits for the server's first answer
        await self._ended({each.task for each in self._kept if each.task is not None})

    async def _finish(self, session: _KeptSession) -> None:
        session.stop.set()
        if session.task is not None:
            await self._ended({session.task})

    async def _ended(self, tasks: set[asyncio.Task[None]]) -> None:
        """Wait until *tasks*, which were told to stop, have; then cancel them."""
        if not tasks:
            return
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await asyncio.wait(tasks)
        for task in tasks:
            task.cancel()


def _is_closed(error: MCPError) -> bool:
    """Return True if the connection is closed: servers use the same code for errors of theirs."""
    return error.code == types.CONNECTION_CLOSED and error.message == "Connection closed"


def _is_unknown(error: MCPError) -> bool:
    """Return True if the server knows the session no more, and so has done nothing."""
    ours = error.data.get(MARK) if isinstance(error.data, dict) else None
    return isinstance(ours, dict) and ours.get("lost") is True


async def _unchecked(name: str, result: types.CallToolResult) -> None:
    """Leave the check of a result to the provider."""


@asynccontextmanager
async def _http_transport(
    config: McpConfig, url: str, signing: RequestSigning | None, wait: ServiceWait | None
) -> AsyncIterator[Any]:
    async with (
        http_client(config, signing, wait) as client,
        streamable_http_client(
            url, http_client=client, max_sse_event_size=config.max_result_bytes
        ) as streams,
    ):
        yield streams

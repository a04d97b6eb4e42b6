"""The context of a plugin, and the call that it serves."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from automate_kernel.base.errors import AutomateError, ErrorCodes, SecretNotFoundError
from automate_kernel.secrets.handles import SecretReader
from automate_kernel.secrets.logs import get_plugin_logger
from automate_kernel.storage.rows import in_transaction

if TYPE_CHECKING:
    from automate_kernel.operations.budgets import Budgets
    from automate_kernel.operations.call_rates import CallRates
    from automate_kernel.operations.reports import CallReport, Ending
    from automate_kernel.outbox.item import OutboxItem

__all__ = [
    "Call",
    "ConnectorContext",
    "NoSecrets",
    "PluginContext",
    "ProviderContext",
    "SecretReader",
    "calling",
    "current_call",
    "current_item",
    "handled_item",
]


@dataclass(frozen=True, slots=True)
class Call:
    """
    One call of an action or a capability, as seen by the code that serves it.

    *operation* is the full name (``slack.post_message``). *idempotency_key* is the same for every
    attempt of a step, so a service that takes such keys does the work once: pass it on.

    *transaction* is for a transactional operation: the application's transaction, which commits
    together with the step. With SQLAlchemy it is a ``Connection``, in Django the database
    connection, whose ``atomic()`` block is open. Don't commit it.
    """

    operation: str
    tenant_id: str | None = None
    execution_id: str | None = None
    step_id: str | None = None
    attempt: int = 1
    idempotency_key: str | None = None
    transaction: Any = field(default=None, repr=False, compare=False)
    reports: CallReport | None = field(default=None, repr=False, compare=False)
    """The kernel's own side of `progress`; None outside a workflow."""
    written: Any = field(default=None, repr=False, compare=False)
    """The step's input as its author wrote it, with templates; None where none are
    rendered, and nothing for arguments that an agent's model or a client of MCP made."""
    failed_attempts: int = 0
    """The attempts of the step that have failed. Those whose worker died don't count, and neither
    does what was before a resume."""
    begun_before: bool = field(default=False, repr=False, compare=False)
    """The kernel's own side of `repeated`: what *attempt* doesn't count."""
    parts: dict[str, int] = field(default_factory=dict, repr=False, compare=False)
    """The kernel's own side of `part`: how often each was made in this attempt."""

    @property
    def repeated(self) -> bool:
        """
        True if a call with this idempotency key may have been made before.

        An attempt of the step has failed, its worker has died, or was stopped in the call, which
        spends no attempt, however soon that was; or the execution was resumed, where *attempt*
        begins at 1 again. Outside a workflow it is True for each call with a key, since nobody
        counts them. Where a service takes no keys, look then for what an earlier call has made.
        """
        outside = self.execution_id is None and self.idempotency_key is not None
        return self.attempt > 1 or self.begun_before or outside

    def part(self, operation: str, data: Any = None) -> Call:
        """
        Return the call of *operation* with the input *data* that is made as a part of this call.

        For code that makes several, by `Kernel.perform`: each needs a key of its own, or a service
        takes the second for a repetition of the first. It has the same key in each attempt that
        makes the same calls; of several with the same input, the first has that of the first.
        Raises ``INVALID_ARGUMENT`` for an input that is no JSON.
        """
        if self.idempotency_key is None:
            return replace(self, operation=operation)
        try:
            text = json.dumps([operation, data], sort_keys=True)
        except (TypeError, ValueError, RecursionError):
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT, f"the input of {operation!r} is no JSON"
            ) from None
        key = f"{self.idempotency_key}:{hashlib.sha256(text.encode()).hexdigest()[:32]}"
        made = self.parts[key] = self.parts.get(key, 0) + 1
        return replace(self, operation=operation, idempotency_key=f"{key}:{made}")

    def require_written(self, field: str, value: Any) -> None:
        """
        Raise ``INVALID_ARGUMENT`` unless *value* stands in the workflow as it is.

        For an input *field* that data must not become part of, such as the text of a query. What
        an agent's model made, or a client of MCP, is refused too. What comes by another way was
        written by its caller, and passes.
        """
        if self.written is None:
            return
        if not isinstance(self.written, Mapping) or self.written.get(field) != value:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"the field {field!r} is made by a template or a model, and must be written in the"
                " workflow as it is",
                hint="write the text itself in the workflow, and give values by parameters",
            )

    def progress(self, value: Any, message: str | None = None) -> None:
        """
        Report how far the call has come: ``call.progress(0.4, "page 40 of 100")``.

        *value* is any small JSON, with *message* at most 4,000 bytes; secrets are taken out. It may
        be called as often as you like: about once in a second the newest is written to the step's
        row, where people see it. Raises `PayloadError` if it can't be stored.
        """
        if self.reports is not None:
            self.reports.report(value, message)

    def label(self, **labels: str | int | UUID) -> None:
        """
        Give the execution labels by which it is found: ``call.label(shipment=4711)``.

        They are saved together with the step's output, if the call does well; a label that is there
        is changed. Raises `PayloadError` if it can't be one. Outside a workflow nothing happens.
        """
        if self.reports is not None:
            self.reports.label(labels)

    @property
    def last_progress(self) -> Any:
        """The value that an earlier attempt of this step reported last, to go on from; or None."""
        found = self.reports.previous if self.reports is not None else None
        return found["value"] if found is not None else None

    @property
    def cancelled(self) -> bool:
        """
        True once the call should stop, from any thread.

        The execution was cancelled, its worker stops, or the attempt has taken longer than its
        timeout. An ``async def`` is cancelled anyway; a plain function looks here now and then.
        `ending` is the reason.
        """
        return self.reports is not None and self.reports.cancelled

    @property
    def ending(self) -> Ending | None:
        """
        The reason why the call should stop, or None while it may go on.

        ``stopping``: its worker stops, and another one makes the call again. What goes on elsewhere
        may be left to it. ``cancelled``: nobody wants the result. ``timeout``: the attempt has
        taken too long, or was silent for too long.
        """
        return None if self.reports is None else self.reports.ending


_current: ContextVar[Call | None] = ContextVar("automate_current_call", default=None)


def current_call() -> Call | None:
    """Return the call being served here, or None. Each thread and task has its own."""
    return _current.get()


handled_item: ContextVar[OutboxItem | None] = ContextVar("automate_handled_item", default=None)
"""The item that is being handled. Its setters reset it themselves: this runs for each item."""


def current_item() -> OutboxItem | None:
    """Return the outbox item being handled here, or None, as `current_call` does."""
    return handled_item.get()


class calling:  # noqa: N801  (it is used as a function)
    """Makes *call* the current call for the block. The kernel does this around each call."""

    # No generator: this is entered for each call, and a generator takes longer than some calls.
    __slots__ = ("_call", "_outer", "_token")

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> Call:
        self._token = _current.set(self._call)
        if self._call.transaction is not None:
            self._outer = in_transaction.set(True)
        return self._call

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
        if self._call.transaction is not None:
            in_transaction.reset(self._outer)


class NoSecrets:
    """A `SecretReader` without secrets, for a plugin that is used without a kernel."""

    def get(self, key: str) -> str:
        """Raise `SecretNotFoundError`."""
        raise SecretNotFoundError(
            key, hint="this plugin was given no secrets; pass ctx=… with a reader of them"
        )

    async def aget(self, key: str) -> str:
        """Raise `SecretNotFoundError`."""
        return self.get(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginContext:
    """
    The things that the application lends to one plugin instance.

    *settings* are the application's own, and can't be changed. *redact* takes the secrets out of a
    text that leaves the plugin. *approvals*, *budgets* and *call_rates* are the kernel's
    `Approvals`, `Budgets` and `CallRates`; without a kernel, or without its database, they are
    None. *perform* calls another operation as a part of this call, and returns its output.

    In a test ``PluginContext(key="x")`` is enough. A test that needs secrets lets a kernel make
    the plugin: ``Kernel(secrets={"KEY": "value"}).connector("x")``.
    """

    key: str
    # Never in the repr: a reader may hold values, and settings are the application's.
    secrets: SecretReader = field(default_factory=NoSecrets, repr=False)
    logger: logging.Logger = field(default=None, repr=False)  # type: ignore[assignment]
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    tenant_id: str | None = None
    redact: Callable[[str], str] = field(default=str, repr=False)
    approvals: Any = field(default=None, repr=False)
    budgets: Budgets | None = field(default=None, repr=False)
    call_rates: CallRates | None = field(default=None, repr=False)
    perform: Callable[[str, Any], Awaitable[Any]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.secrets, SecretReader):
            # A mapping has a `get` too, and would fail only where a plugin reads a secret.
            raise TypeError(
                f"secrets={type(self.secrets).__name__} is no reader of secrets with get and aget;"
                ' a kernel makes a plugin with a mapping: Kernel(secrets={…}).connector("key")'
            )
        if self.logger is None:
            object.__setattr__(self, "logger", get_plugin_logger(self.key))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderContext(PluginContext):
    """The context of a provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorContext(PluginContext):
    """The context of a connector."""

"""The context of a workflow in code: its first argument, through which it does all that lasts."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload
from uuid import UUID

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.operations.spec import NAME_PATTERN, OperationSpec
from automate_kernel.secrets.handles import SecretRef
from automate_kernel.workflows.code.calls import (
    LEAVING,
    Gather,
    Pending,
    StepRequest,
    place_of,
)
from automate_kernel.workflows.code.function import Values, step_function
from automate_kernel.workflows.definition.duration import parse_duration
from automate_kernel.workflows.definition.fields import RetryPolicy
from automate_kernel.workflows.execution import Event

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
_FIRST_VERSION = 1


class Driver(Protocol):
    """The engine's side of a context: it begins calls, and answers from the record."""

    @property
    def event(self) -> Event:
        """The event that started the execution."""

    @property
    def execution_id(self) -> str:
        """The execution's id."""

    @property
    def tenant_id(self) -> str | None:
        """The execution's tenant."""

    def find(self, function: Callable[..., Any]) -> OperationSpec | None:
        """Return the spec of an action of the host that was made from *function*."""

    def note(self, pending: Pending[Any]) -> None:
        """Note a call that must be awaited before the workflow ends."""

    def ask(self, pending: Awaitable[T]) -> T:
        """Make the calls of a plain workflow, and return their value."""

    def undo_later(self, request: StepRequest[Any]) -> None:
        """Have a call made before the next one, or at the end: it undoes what was done."""

    def now(self, place: str) -> datetime:
        """Return the time, and record it."""

    def draw(self) -> bytes:
        """Return 32 bytes that follow from the execution and the number of draws before."""

    def version(self, change: str, newest: int, place: str) -> int:
        """Return the version of a change that this execution follows, and record it."""


class _CommonContext:
    """The parts of a context that are the same for ``def`` and ``async def``."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @property
    def event(self) -> Event:
        """The event that started the execution."""
        return self._driver.event

    @property
    def execution_id(self) -> str:
        """The execution's id."""
        return self._driver.execution_id

    @property
    def tenant_id(self) -> str | None:
        """The tenant that the execution belongs to."""
        return self._driver.tenant_id

    def now(self) -> datetime:
        """Return the time in UTC. It is recorded with the next step, and the same in a replay."""
        return self._driver.now(place_of(sys._getframe(1)))

    def random(self) -> float:
        """Return a random number from 0 up to 1, the same in a replay."""
        return int.from_bytes(self._driver.draw()[:7], "big") / 2**56

    def uuid(self) -> UUID:
        """Return a random UUID, the same in a replay."""
        return UUID(bytes=self._driver.draw()[:16], version=4)

    def secret(self, key: str) -> Any:
        """
        Return a reference to a secret, to pass to a step.

        The step gets the value. The workflow itself never sees it, and nothing stores it.
        """
        return SecretRef(key)

    def patched(self, change: str) -> bool:
        """
        Return True if this execution follows the new code of *change*.

        It does unless it had come past this line before the change: then it goes on as it began.
        """
        return self._driver.version(_named(change), 2, place_of(sys._getframe(1))) > _FIRST_VERSION

    def version(self, change: str, newest: int) -> int:
        """
        Return the version of *change* that this execution follows: *newest* where it comes first.

        An execution that had come past this line before there was a version follows 1.
        """
        if newest < _FIRST_VERSION:
            raise _refused("a version is 1 or more", "count the versions of a change from 1")
        return self._driver.version(_named(change), newest, place_of(sys._getframe(1)))

    def compensate(
        self,
        function: Callable[[Unpack[Ts]], object],
        *args: Unpack[Ts],
        name: str | None = None,
        retry: int | RetryPolicy | None = None,
        timeout: float | str | None = None,
    ) -> Compensation:
        """
        Call *function* as a step if the ``with`` block is left by an error or a cancellation.

        Inner blocks are undone before outer ones. The steps run before the next step of the
        workflow, or at its end.
        """
        request = _of_function(self._driver, function, args, sys._getframe(1), name, retry, timeout)
        request.recovers = True
        return Compensation(self._driver, request)


class WorkflowContext(_CommonContext):
    """
    The context of an ``async def`` workflow.

    Whatever it awaits comes from here: the workflow is no task of an event loop.
    """

    @overload
    def step(
        self,
        function: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: Unpack[Ts],
        name: str | None = None,
        retry: int | RetryPolicy | None = None,
        timeout: float | str | None = None,
    ) -> Awaitable[T]: ...
    @overload
    def step(
        self,
        function: Callable[[Unpack[Ts]], T],
        *args: Unpack[Ts],
        name: str | None = None,
        retry: int | RetryPolicy | None = None,
        timeout: float | str | None = None,
    ) -> Awaitable[T]: ...
    def step(  # type: ignore[misc]  # mypy: *args of Any take what Ts does
        self,
        function: Callable[..., Any],
        *args: Any,
        name: str | None = None,
        retry: int | RetryPolicy | None = None,
        timeout: float | str | None = None,
    ) -> Any:
        """
        Call *function*, ``def`` or ``async def``, as a step, and return its result.

        The result is the one that a replay reads from the record: JSON, made into the type that the
        function's annotation names. *retry* is a number of attempts or a `RetryPolicy`, *timeout*
        bounds one attempt. Keywords of the function go into a `functools.partial`. Raises
        `StepFailedError` if no attempt is left.
        """
        request = _of_function(self._driver, function, args, sys._getframe(1), name, retry, timeout)
        self._driver.note(request)
        return request

    def call(
        self,
        action: str,
        /,
        *,
        step_name: str | None = None,
        retry: int | RetryPolicy | None = None,
        timeout: float | str | None = None,
        **fields: Any,
    ) -> Awaitable[Any]:
        """Call an action or a capability by its name, as a step, with the *fields* of its input."""
        request = _of_action(action, fields, sys._getframe(1), step_name, retry, timeout)
        self._driver.note(request)
        return request

    @overload
    def gather(self, one: Awaitable[T1], two: Awaitable[T2], /) -> Awaitable[tuple[T1, T2]]: ...
    @overload
    def gather(
        self, one: Awaitable[T1], two: Awaitable[T2], three: Awaitable[T3], /
    ) -> Awaitable[tuple[T1, T2, T3]]: ...
    @overload
    def gather(
        self, one: Awaitable[T1], two: Awaitable[T2], three: Awaitable[T3], four: Awaitable[T4], /
    ) -> Awaitable[tuple[T1, T2, T3, T4]]: ...
    @overload
    def gather(self, *awaitables: Awaitable[T]) -> Awaitable[tuple[T, ...]]: ...
    def gather(self, *awaitables: Awaitable[Any]) -> Any:
        """
        Run steps, and coroutines that call steps, side by side; return their results in order.

        It waits for all of them. If some have failed, the error of the first in the list is raised.
        """
        return Gather(awaitables)


class SyncWorkflowContext(_CommonContext):
    """
    The context of a plain ``def`` workflow, whose calls return when their steps have ended.

    The workflow runs on a thread of its own, which it holds while a worker has it.
    """

    @overload
    def step(
        self,
        function: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: Unpack[Ts],
        name: str | None = None,
        retry: int | RetryPolicy | None = None,
        timeout: float | str | None = None,
    ) -> T: ...
    @overload
    def step(
        self,
        function: Callable[[Unpack[Ts]], T],
        *args: Unpack[Ts],
        name: str | None = None,
        retry: int | RetryPolicy | None = None,
        timeout: float | str | None = None,
    ) -> T: ...
    def step(  # type: ignore[misc]  # mypy: *args of Any take what Ts does
        self,
        function: Callable[..., Any],
        *args: Any,
        name: str | None = None,
        retry: int | RetryPolicy | None = None,
        timeout: float | str | None = None,
    ) -> Any:
        """Call *function* as a step and return its result; see `WorkflowContext.step`."""
        request = _of_function(self._driver, function, args, sys._getframe(1), name, retry, timeout)
        return self._driver.ask(request)

    @overload
    def later(
        self,
        function: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: Unpack[Ts],
        name: str | None = None,
        retry: int | RetryPolicy | None = None,
        timeout: float | str | None = None,
    ) -> Awaitable[T]: ...
    @overload
    def later(
        self,
        function: Callable[[Unpack[Ts]], T],
        *args: Unpack[Ts],
        name: str | None = None,
        retry: int | RetryPolicy | None = None,
        timeout: float | str | None = None,
    ) -> Awaitable[T]: ...
    def later(  # type: ignore[misc]  # mypy: *args of Any take what Ts does
        self,
        function: Callable[..., Any],
        *args: Any,
        name: str | None = None,
        retry: int | RetryPolicy | None = None,
        timeout: float | str | None = None,
    ) -> Any:
        """Return a step for `gather`, which begins it."""
        request = _of_function(self._driver, function, args, sys._getframe(1), name, retry, timeout)
        self._driver.note(request)
        return request

    def call(
        self,
        action: str,
        /,
        *,
        step_name: str | None = None,
        retry: int | RetryPolicy | None = None,
        timeout: float | str | None = None,
        **fields: Any,
    ) -> Any:
        """Call an action or a capability by its name, as a step, with the *fields* of its input."""
        return self._driver.ask(
            _of_action(action, fields, sys._getframe(1), step_name, retry, timeout)
        )

    @overload
    def gather(self, one: Awaitable[T1], two: Awaitable[T2], /) -> tuple[T1, T2]: ...
    @overload
    def gather(
        self, one: Awaitable[T1], two: Awaitable[T2], three: Awaitable[T3], /
    ) -> tuple[T1, T2, T3]: ...
    @overload
    def gather(self, *steps: Awaitable[T]) -> tuple[T, ...]: ...
    def gather(self, *steps: Awaitable[Any]) -> Any:
        """Run steps from `later` side by side, and return their results in order."""
        return self._driver.ask(Gather(steps))


class Compensation:
    """A step that undoes what was done, if its ``with`` block is left by an error."""

    def __init__(self, driver: Driver, request: StepRequest[Any]) -> None:
        self._driver = driver
        self._request = request

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None and not issubclass(kind, LEAVING):
            self._driver.undo_later(self._request)


def _of_function(
    driver: Driver,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    caller: FrameType,
    name: str | None,
    retry: int | RetryPolicy | None,
    timeout: float | str | None,
) -> StepRequest[Any]:
    called, before, named = step_function(function, driver.find)
    return StepRequest(
        called.name if name is None else _named(name),
        place_of(caller),
        called.read,
        options=_options(called.spec.name, retry, timeout),
        input=called.input((*before, *arguments), named),
        spec=None if called.registered else called.spec,
    )


def _of_action(
    action: str,
    fields: Mapping[str, Any],
    caller: FrameType,
    name: str | None,
    retry: int | RetryPolicy | None,
    timeout: float | str | None,
) -> StepRequest[Any]:
    if not isinstance(action, str) or not NAME_PATTERN.fullmatch(action):
        raise _refused(f"{action!r} is no action's name", 'for example "slack.post_message"')
    values = Values(Any, action)
    return StepRequest(
        action if name is None else _named(name),
        place_of(caller),
        values.read,
        options=_options(action, retry, timeout),
        input={key: values.write(value) for key, value in fields.items()},
    )


def _options(
    action: str, retry: int | RetryPolicy | None, timeout: float | str | None
) -> tuple[tuple[str, Any], ...]:
    options: list[tuple[str, Any]] = [("action", action)]
    if retry is not None:
        policy = RetryPolicy(attempts=retry) if isinstance(retry, int) else retry
        options.append(("retry", policy))
    if timeout is not None:
        try:
            options.append(("timeout", parse_duration(timeout)))
        except ValueError as error:
            raise _refused(f"the timeout: {error}") from None
    return tuple(options)


def _named(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _refused(f"{name!r} is no name for a step", "use letters, digits, _ and -")
    return name


def _refused(problem: str, hint: str | None = None) -> AutomateError:
    return AutomateError(ErrorCodes.INVALID_ARGUMENT, problem, hint=hint)

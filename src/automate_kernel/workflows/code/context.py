"""The context of a workflow in code: its first argument, through which it does all that lasts."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from types import FrameType, TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    NoReturn,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    overload,
)
from uuid import UUID

from pydantic import ValidationError

from automate_kernel.base.durations import parse_duration
from automate_kernel.base.errors import AutomateError, ErrorCodes, WorkflowError
from automate_kernel.operations.annotated import Values
from automate_kernel.operations.spec import NAME_PATTERN, OperationSpec
from automate_kernel.outbox.labels import checked_labels
from automate_kernel.secrets.handles import SecretRef
from automate_kernel.workflows.code.calls import (
    UNFAILED,
    ContinuedAsNewError,
    Gather,
    Pending,
    StepRequest,
    place_of,
)
from automate_kernel.workflows.code.function import step_function
from automate_kernel.workflows.code.workflow import WorkflowFunction
from automate_kernel.workflows.definition.approval import Approval
from automate_kernel.workflows.definition.fields import RetryPolicy
from automate_kernel.workflows.definition.problems import in_one_line
from automate_kernel.workflows.definition.waits import SleepUntil, WaitFor
from automate_kernel.workflows.execution import Event

if TYPE_CHECKING:
    from typing import Concatenate

    from typing_extensions import TypeVarTuple, Unpack

    from automate_kernel.operations.context import Call

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")
P = TypeVar("P")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")
T7 = TypeVar("T7")
T8 = TypeVar("T8")
Params = ParamSpec("Params")


class ChildOptions(TypedDict, total=False):
    """The options of a sub-workflow."""

    name: str | None
    retry: int | RetryPolicy | None
    timeout: float | str | timedelta | None


class StepCallOptions(ChildOptions, total=False):
    """The options of a step that calls a function."""

    heartbeat: float | str | timedelta | None
    runs_on: str | None


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
_FIRST_VERSION = 1


@dataclass(frozen=True, slots=True)
class ApprovalAnswer:
    """The answer to `WorkflowContext.approve`: by whom, with a comment and a form."""

    approved: bool
    by: str | None = None
    comment: str = ""
    form: Mapping[str, Any] = field(default_factory=dict, hash=False)
    at: str | None = None
    timed_out: bool = False


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
        """Return the spec of an action of the application that was made from *function*."""

    def workflow(self, function: Callable[..., Any]) -> WorkflowFunction:
        """Return the workflow that was made of *function*; raises ``NOT_FOUND``."""

    def note(self, pending: Pending[Any]) -> None:
        """Note a call that must be awaited before the workflow ends."""

    def ask(self, pending: Awaitable[T]) -> T:
        """Make the calls of a plain workflow, and return their value."""

    def be_ready(self, request: StepRequest[Any]) -> None:
        """Note that a call stands ready that undoes what was done."""

    def undo_later(self, request: StepRequest[Any]) -> None:
        """Have a call made before the next one, or at the end: it undoes what was done."""

    def now(self, place: str) -> datetime:
        """Return the time, and record it."""

    def draw(self) -> bytes:
        """Return 32 bytes that follow from the execution and the number of draws before."""

    def version(self, change: str, newest: int, place: str) -> int:
        """Return the version of a change that this execution follows, and record it."""

    def label(self, labels: Mapping[str, str]) -> None:
        """Set labels of the execution, which are saved with the next checkpoint."""


class BaseWorkflowContext:
    """The part of a workflow's context that makes no calls."""

    # Which functions get it; both do where nothing is said.
    _asynchronous: ClassVar[bool | None] = None

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def _give(self, call: Awaitable[T]) -> Awaitable[T]:
        """Return what a workflow gets for a *call*."""
        raise NotImplementedError

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

    def label(self, **labels: str | int | UUID) -> None:
        """
        Set labels of this execution, by which it is found: ``ctx.label(order=order.id)``.

        They are saved before the next step begins, or with the end; a label that is there is
        changed. An execution has ten at most. Raises `PayloadError` for what can't be a label.
        """
        self._driver.label(checked_labels(labels))

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

    def continue_as_new(self, payload: Any = None) -> NoReturn:
        """
        End this execution, and let another one of the same workflow begin with *payload*.

        Both happen in one transaction. The new execution has an empty record, and the tenant,
        labels, priority, concurrency key and parent of this execution. It raises an exception that
        is no `Exception`: nothing after it runs, and nothing is undone.
        """
        raise ContinuedAsNewError(payload)

    @overload
    def compensate(
        self,
        function: Callable[[Unpack[Ts]], object],
        *args: Unpack[Ts],
        **options: Unpack[StepCallOptions],
    ) -> CompensationBlock: ...
    @overload
    def compensate(
        self,
        function: Callable[[Unpack[Ts], Call], object],
        *args: Unpack[Ts],
        **options: Unpack[StepCallOptions],
    ) -> CompensationBlock: ...
    def compensate(  # type: ignore[misc]  # mypy: *args of Any take what Ts does
        self,
        function: Callable[..., object],
        *args: Any,
        name: str | None = None,
        retry: int | RetryPolicy | None = None,
        timeout: float | str | timedelta | None = None,
        heartbeat: float | str | timedelta | None = None,
        runs_on: str | None = None,
    ) -> CompensationBlock:
        """
        Call *function* as a step if the ``with`` block is left by an error or a cancellation.

        Inner blocks are undone before outer ones. The steps run before the next step of the
        workflow, or at its end.
        """
        options = _CallOptions(retry, timeout, heartbeat, runs_on)
        caller = sys._getframe(1)
        request = _of_function(self._driver, function, args, caller, name, options, undoes=True)
        return CompensationBlock(self._driver, request)


class WorkflowContext(BaseWorkflowContext):
    """
    The context of an ``async def`` workflow.

    Whatever it awaits comes from here: the workflow is no task of an event loop.
    """

    _asynchronous = True

    def _give(self, call: Awaitable[T]) -> Awaitable[T]:
        if isinstance(call, Pending):
            self._driver.note(call)
        return call

    @overload
    def step(
        self,
        function: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: Unpack[Ts],
        **options: Unpack[StepCallOptions],
    ) -> Awaitable[T]: ...
    @overload
    def step(
        self,
        function: Callable[[Unpack[Ts]], T],
        *args: Unpack[Ts],
        **options: Unpack[StepCallOptions],
    ) -> Awaitable[T]: ...
    @overload
    def step(
        self,
        function: Callable[[Unpack[Ts], Call], Awaitable[T]],
        *args: Unpack[Ts],
        **options: Unpack[StepCallOptions],
    ) -> Awaitable[T]: ...
    @overload
    def step(
        self,
        function: Callable[[Unpack[Ts], Call], T],
        *args: Unpack[Ts],
        **options: Unpack[StepCallOptions],
    ) -> Awaitable[T]: ...
    def step(  # type: ignore[misc]  # mypy: *args of Any take what Ts does
        self,
        function: Callable[..., Any],
        *args: Any,
        name: str | None = None,
        retry: int | RetryPolicy | None = None,
        timeout: float | str | timedelta | None = None,
        heartbeat: float | str | timedelta | None = None,
        runs_on: str | None = None,
    ) -> Any:
        """
        Call *function*, ``def`` or ``async def``, as a step, and return its result.

        A replay reads the same result from the record: JSON, made into the type that the function's
        annotation names. *retry* is a number of attempts or a `RetryPolicy`, *timeout*
        bounds one attempt, and *heartbeat* the time in it without a `Call.progress`. *runs_on* is
        the executor that makes the call, for a function that is an action. Keywords of the function
        go into a `functools.partial`. Raises `StepFailedError` if no attempt is left.
        """
        options = _CallOptions(retry, timeout, heartbeat, runs_on)
        request = _of_function(self._driver, function, args, sys._getframe(1), name, options)
        return self._give(request)

    def call(
        self,
        action: str,
        /,
        *,
        step_name: str | None = None,
        retry: int | RetryPolicy | None = None,
        timeout: float | str | timedelta | None = None,
        heartbeat: float | str | timedelta | None = None,
        runs_on: str | None = None,
        **fields: Any,
    ) -> Awaitable[Any]:
        """Call an action or a capability by its name, as a step, with the *fields* of its input."""
        options = _CallOptions(retry, timeout, heartbeat, runs_on)
        request = _of_action(action, fields, sys._getframe(1), step_name, options)
        return self._give(request)

    @overload
    def gather(self, one: Awaitable[T1], two: Awaitable[T2], /) -> Awaitable[tuple[T1, T2]]: ...
    @overload
    def gather(
        self, one: Awaitable[T1], two: Awaitable[T2], three: Awaitable[T3], /
    ) -> Awaitable[tuple[T1, T2, T3]]: ...
    @overload
    def gather(
        self,
        one: Awaitable[T1],
        two: Awaitable[T2],
        three: Awaitable[T3],
        four: Awaitable[T4],
        /,
    ) -> Awaitable[tuple[T1, T2, T3, T4]]: ...
    @overload
    def gather(
        self,
        one: Awaitable[T1],
        two: Awaitable[T2],
        three: Awaitable[T3],
        four: Awaitable[T4],
        five: Awaitable[T5],
        /,
    ) -> Awaitable[tuple[T1, T2, T3, T4, T5]]: ...
    @overload
    def gather(
        self,
        one: Awaitable[T1],
        two: Awaitable[T2],
        three: Awaitable[T3],
        four: Awaitable[T4],
        five: Awaitable[T5],
        six: Awaitable[T6],
        /,
    ) -> Awaitable[tuple[T1, T2, T3, T4, T5, T6]]: ...
    @overload
    def gather(
        self,
        one: Awaitable[T1],
        two: Awaitable[T2],
        three: Awaitable[T3],
        four: Awaitable[T4],
        five: Awaitable[T5],
        six: Awaitable[T6],
        seven: Awaitable[T7],
        /,
    ) -> Awaitable[tuple[T1, T2, T3, T4, T5, T6, T7]]: ...
    @overload
    def gather(
        self,
        one: Awaitable[T1],
        two: Awaitable[T2],
        three: Awaitable[T3],
        four: Awaitable[T4],
        five: Awaitable[T5],
        six: Awaitable[T6],
        seven: Awaitable[T7],
        eight: Awaitable[T8],
        /,
    ) -> Awaitable[tuple[T1, T2, T3, T4, T5, T6, T7, T8]]: ...
    @overload
    def gather(self, *awaitables: Awaitable[T]) -> Awaitable[tuple[T, ...]]: ...
    def gather(self, *awaitables: Awaitable[Any]) -> Any:
        """
        Run steps, and coroutines that call steps, side by side; return their results in order.

        In a ``def`` the steps come from `SyncWorkflowContext.later`. It waits for all of them. If
        some have failed, the error of the first in the list is raised.
        """
        return self._give(Gather(awaitables))

    def sleep(
        self, duration: float | str | timedelta | datetime, *, name: str | None = None
    ) -> Awaitable[None]:
        """
        Wait for a duration (``"3d"``, seconds, a `timedelta`), or until a time.

        Nothing is held meanwhile: neither a thread, nor a lease, nor memory.
        """
        return self._give(_sleep(duration, sys._getframe(1), name))

    @overload
    def wait_for(
        self,
        event: str | None = None,
        *,
        signal: str | None = None,
        match: Mapping[str, Any] | None = None,
        timeout: float | str | timedelta | None = None,
        on_timeout: Literal["fail"] = "fail",
        name: str | None = None,
    ) -> Awaitable[Event]: ...
    @overload
    def wait_for(
        self,
        event: str | None = None,
        *,
        signal: str | None = None,
        match: Mapping[str, Any] | None = None,
        timeout: float | str | timedelta | None = None,
        on_timeout: Literal["continue"],
        name: str | None = None,
    ) -> Awaitable[Event | None]: ...
    def wait_for(
        self,
        event: str | None = None,
        *,
        signal: str | None = None,
        match: Mapping[str, Any] | None = None,
        timeout: float | str | timedelta | None = None,
        on_timeout: Literal["fail", "continue"] = "fail",
        name: str | None = None,
    ) -> Any:
        """
        Wait for an event, or for a *signal* to this execution, and return it.

        *match* has fields of its payload and the values that they must have; dots go into objects.
        An event that has come since the execution began counts. After *timeout* it raises
        `StepFailedError`, or with ``continue`` as *on_timeout* returns None.
        """
        request = _wait_for(event, signal, match, timeout, on_timeout, sys._getframe(1), name)
        return self._give(request)

    def approve(
        self,
        title: str,
        *,
        description: str | None = None,
        by: str | Sequence[str] = (),
        form: Sequence[Mapping[str, Any]] = (),
        timeout: float | str | timedelta | None = None,
        on_timeout: Literal["fail", "continue", "approve", "reject"] = "fail",
        on_reject: Literal["fail", "continue"] = "fail",
        notify: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> Awaitable[ApprovalAnswer]:
        """
        Ask a person, and wait for the decision.

        *by* names people and roles (``role:managers``), *form* has the fields that come with the
        answer. *notify* is a call that tells people: ``{"action": …, "input": …}``, in whose texts
        ``{{ approval.link }}`` is the link. A rejection raises `StepFailedError`, unless
        *on_reject* is ``continue``.
        """
        given = {
            "description": description, "by": by, "form": form, "timeout": timeout,
            "on_timeout": on_timeout, "on_reject": on_reject, "notify": notify,
        }  # fmt: skip
        return self._give(_approve(title, sys._getframe(1), name, given))

    @overload
    def child(
        self,
        workflow: Callable[[Any, P], Awaitable[T]],
        payload: P,
        **options: Unpack[ChildOptions],
    ) -> Awaitable[T]: ...
    @overload
    def child(
        self,
        workflow: Callable[[Any], Awaitable[T]],
        payload: None = None,
        **options: Unpack[ChildOptions],
    ) -> Awaitable[T]: ...
    @overload
    def child(
        self,
        workflow: Callable[[Any, P], T],
        payload: P,
        **options: Unpack[ChildOptions],
    ) -> Awaitable[T]: ...
    @overload
    def child(
        self,
        workflow: Callable[[Any], T],
        payload: None = None,
        **options: Unpack[ChildOptions],
    ) -> Awaitable[T]: ...
    @overload
    def child(
        self,
        workflow: str,
        payload: Any = None,
        **options: Unpack[ChildOptions],
    ) -> Awaitable[Any]: ...
    def child(
        self,
        workflow: Any,
        payload: Any = None,
        *,
        name: str | None = None,
        retry: int | RetryPolicy | None = None,
        timeout: float | str | timedelta | None = None,
    ) -> Any:
        """
        Run another workflow, given by its name or function, and return its output.

        It is cancelled with this execution. If it fails, `StepFailedError` is raised.
        """
        options = {"retry": retry, "timeout": timeout}
        request = _child(self._driver, workflow, payload, sys._getframe(1), name, options)
        return self._give(request)

    @overload
    def start(
        self, workflow: Callable[[Any, P], Any], payload: P, *, name: str | None = None
    ) -> Awaitable[str]: ...
    @overload
    def start(
        self, workflow: Callable[[Any], Any], payload: None = None, *, name: str | None = None
    ) -> Awaitable[str]: ...
    @overload
    def start(
        self, workflow: str, payload: Any = None, *, name: str | None = None
    ) -> Awaitable[str]: ...
    def start(
        self,
        workflow: str | Callable[..., Any],
        payload: Any = None,
        *,
        name: str | None = None,
    ) -> Awaitable[str]:
        """Start another workflow and go on; returns the id of its execution."""
        request = _child(self._driver, workflow, payload, sys._getframe(1), name, {"wait": False})
        return self._give(request)


def _returned(
    call: Callable[Concatenate[Any, Params], Awaitable[T]],
) -> Callable[Concatenate[Any, Params], T]:
    """Return *call* for a context that makes it at once: its type has no `Awaitable`."""
    # A checker keeps the overloads of a call. The function is the same: see `_give`.
    return call  # type: ignore[return-value]


def _unbound(call: Callable[Concatenate[Any, Params], T]) -> Callable[Concatenate[Any, Params], T]:
    return call


class SyncWorkflowContext(BaseWorkflowContext):
    """
    The context of a plain ``def`` workflow, whose calls return when their steps have ended.

    It has the calls of `WorkflowContext`. The workflow runs on a thread of its own, which it holds
    while a worker has it.
    """

    _asynchronous = False

    def _give(self, call: Awaitable[Any]) -> Any:
        return self._driver.ask(call)

    step = _returned(WorkflowContext.step)
    call = _returned(WorkflowContext.call)
    gather = _returned(WorkflowContext.gather)
    sleep = _returned(WorkflowContext.sleep)
    wait_for = _returned(WorkflowContext.wait_for)
    approve = _returned(WorkflowContext.approve)
    child = _returned(WorkflowContext.child)
    start = _returned(WorkflowContext.start)

    later = _unbound(WorkflowContext.step)
    """Return a step for `gather`, which begins it; see `WorkflowContext.step`."""

    if not TYPE_CHECKING:

        def later(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
            """Return a step for `gather`, which begins it; see `WorkflowContext.step`."""
            name, caller = options.pop("name", None), sys._getframe(1)
            chosen = _CallOptions(**options)
            request = _of_function(self._driver, function, args, caller, name, chosen)
            self._driver.note(request)
            return request


class CompensationBlock:
    """A step that undoes what was done, if its ``with`` block is left by an error."""

    def __init__(self, driver: Driver, request: StepRequest[Any]) -> None:
        self._driver = driver
        self._request = request

    def __enter__(self) -> None:
        self._driver.be_ready(self._request)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None and not issubclass(kind, UNFAILED):
            self._driver.undo_later(self._request)


def _of_function(
    driver: Driver,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    caller: FrameType,
    name: str | None,
    options: _CallOptions,
    *,
    undoes: bool = False,
) -> StepRequest[Any]:
    called, before, named = step_function(function, driver.find)
    spec = called.undoing if undoes else called.spec
    return StepRequest(
        _name(name, called.name),
        place_of(caller),
        _same if undoes else called.read,
        options=options.of(called.spec.name),
        input=called.input((*before, *arguments), named),
        spec=None if called.registered else spec,
        recovers=undoes,
    )


def _of_action(
    action: str,
    fields: Mapping[str, Any],
    caller: FrameType,
    name: str | None,
    options: _CallOptions,
) -> StepRequest[Any]:
    if not isinstance(action, str) or not NAME_PATTERN.fullmatch(action):
        raise _refused(f"{action!r} is no action's name", 'for example "slack.post_message"')
    values = Values(Any, f"input of {action!r}")
    return StepRequest(
        _name(name, action),
        place_of(caller),
        values.read,
        options=options.of(action),
        input={key: values.write(value) for key, value in fields.items()},
    )


class _CallOptions(NamedTuple):
    """The options of a call, as its step takes them."""

    retry: int | RetryPolicy | None = None
    timeout: float | str | timedelta | None = None
    heartbeat: float | str | timedelta | None = None
    runs_on: str | None = None

    def of(self, action: str) -> dict[str, Any]:
        """Return the fields of the step that calls *action*."""
        options: dict[str, Any] = {"action": action}
        if self.retry is not None:
            options["retry"] = _policy(self.retry)
        if self.timeout is not None:
            options["timeout"] = _limit(self.timeout, "the timeout")
        if self.heartbeat is not None:
            options["heartbeat"] = _limit(self.heartbeat, "the heartbeat")
        if self.runs_on is not None:
            options["runs_on"] = self.runs_on
        return options


def _policy(retry: int | RetryPolicy) -> RetryPolicy:
    """Return the policy that a call's *retry* means."""
    # Here, and not in the engine: the step is made of it without another look.
    if isinstance(retry, RetryPolicy):
        return retry
    try:
        return RetryPolicy(attempts=retry)
    except WorkflowError:
        hint = "a number of attempts from 1 to 1,000, or a RetryPolicy"
        raise _refused(f"{retry!r} is no retry", hint) from None


def _limit(duration: float | str | timedelta, what: str) -> float:
    """Return the seconds of a limit, which must leave time for something."""
    seconds = _seconds(duration, what)
    if not seconds:
        raise _refused(f"{what} must be above 0", "leave it out for none")
    return seconds


def _seconds(duration: float | str | timedelta, what: str) -> float:
    try:
        if isinstance(duration, timedelta):
            duration = duration.total_seconds()
        return parse_duration(duration)
    except ValueError as error:
        raise _refused(f"{what}: {error}") from None


def _sleep(
    duration: float | str | timedelta | datetime, caller: FrameType, name: str | None
) -> StepRequest[None]:
    if isinstance(duration, datetime):
        if duration.tzinfo is None:
            raise _refused("a time to sleep until needs an offset from UTC", "ctx.now() has one")
        until: Any = SleepUntil(until=duration.isoformat())
    else:
        until = _seconds(duration, "the sleep")
    return StepRequest(_name(name, "sleep"), place_of(caller), _same, options={"sleep": until})


def _wait_for(
    event: str | None,
    signal: str | None,
    match: Mapping[str, Any] | None,
    timeout: float | str | timedelta | None,
    on_timeout: str,
    caller: FrameType,
    name: str | None,
) -> StepRequest[Event | None]:
    values = Values(Any, "match")
    given: dict[str, Any] = {"event": event, "signal": signal}
    if match is not None and not isinstance(match, Mapping):
        raise _refused(f"wait_for: match is a {type(match).__name__}", "fields with their values")
    if match:
        given["match"] = {key: values.write(value) for key, value in match.items()}
    if timeout is not None:
        given |= {"timeout": _seconds(timeout, "the timeout"), "on_timeout": on_timeout}
    try:
        waited = WaitFor(**given)
    except ValidationError as error:
        raise _refused(f"wait_for: {in_one_line(error, given)}") from None
    return StepRequest(
        _name(name, "wait_for"), place_of(caller), _event, options={"wait_for": waited}
    )


def _approve(
    title: str, caller: FrameType, name: str | None, given: dict[str, Any]
) -> StepRequest[ApprovalAnswer]:
    values, timeout = Values(Any, "the approval"), given.pop("timeout")
    known = {key: values.write(value) for key, value in given.items() if value is not None}
    if timeout is not None:
        known["timeout"] = _seconds(timeout, "the timeout")
    else:
        known.pop("on_timeout")
    try:
        asked = Approval.model_validate({"title": title, **known})
    except ValidationError as error:
        raise _refused(f"approve: {in_one_line(error, known)}") from None
    return StepRequest(
        _name(name, "approve"), place_of(caller), _answer, options={"approval": asked}
    )


def _answer(stored: Any) -> ApprovalAnswer:
    return ApprovalAnswer(**{each.name: stored[each.name] for each in fields(ApprovalAnswer)})


def _child(
    driver: Driver,
    workflow: str | Callable[..., Any],
    payload: Any,
    caller: FrameType,
    name: str | None,
    options: Mapping[str, Any],
) -> StepRequest[Any]:
    if isinstance(workflow, str):
        called, given = workflow, Values(Any, "payload").write(payload)
        read: Callable[[Any], Any] = _same
    else:
        function = driver.workflow(workflow)
        called, given = function.definition.name, function.payload(payload)
        read = function.read
    if options.get("wait") is False:
        read = _execution_id
    known = {key: value for key, value in options.items() if value is not None}
    if "retry" in known:
        known["retry"] = _policy(known["retry"])
    if "timeout" in known:
        known["timeout"] = _limit(known["timeout"], "the timeout")
    known |= {"workflow": called, "input": given}
    step_name = re.sub("[^A-Za-z0-9_-]+", "-", called).strip("-")[:100] or "child"
    return StepRequest(_name(name, step_name), place_of(caller), read, options=known)


def _name(name: str | None, usual: str) -> str:
    return usual if name is None else _named(name)


def _same(stored: Any) -> Any:
    return stored


def _event(stored: Any) -> Event | None:
    return None if stored is None else Event.from_json(stored)


def _execution_id(stored: Any) -> str:
    return str(stored["execution_id"])


def _named(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _refused(f"{name!r} is no name for a step", "use letters, digits, _ and -")
    return name


def _refused(problem: str, hint: str | None = None) -> AutomateError:
    return AutomateError(ErrorCodes.INVALID_ARGUMENT, problem, hint=hint)

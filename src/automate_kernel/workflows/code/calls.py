"""The calls that a workflow in code asks for: what it awaits, before the engine has begun it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePath
from types import FrameType
from typing import Any, Generic, TypeVar

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.workflows.definition.model import Step

T = TypeVar("T")


class StepFailedError(AutomateError):
    """
    A step of a workflow in code has failed, and no attempt is left.

    `code` and `message` are those of its last error.
    """

    def __init__(self, step_id: str, code: ErrorCodes, message: str, group: str | None) -> None:
        super().__init__(code, message)
        self.step_id: str = step_id
        self.group = group


class WorkflowInterruptedError(BaseException):
    """
    The execution is cancelled, or its time is over: raised where the workflow waits.

    Like `asyncio.CancelledError` it is no `Exception`, so that ``except Exception`` does not hold
    it up. Steps that are called while it is on its way still run.
    """

    def __init__(self, reason: AutomateError) -> None:
        super().__init__(str(reason))
        self.reason: AutomateError = reason


class ContinuedAsNewError(BaseException):
    """The workflow goes on as a new execution, with another *payload*: this one has ended well."""

    def __init__(self, payload: Any) -> None:
        super().__init__("the workflow goes on as a new execution")
        self.payload: Any = payload


class UnwoundError(BaseException):
    """A plain workflow is left for now, and will go on from its record."""


LEAVING: tuple[type[BaseException], ...] = (GeneratorExit, UnwoundError)
"""The exceptions in a workflow that is left for now, and will go on from its record."""

UNFAILED: tuple[type[BaseException], ...] = (*LEAVING, ContinuedAsNewError)
"""The exceptions that leave a workflow without a failure: nothing is undone."""


@dataclass(eq=False)
class Pending(Awaitable[T], Generic[T]):
    """
    A call that has been asked for, and begins when it is awaited.

    *name* is that of its step, *place* the line that asks for it. *read* makes the value of the
    stored output.
    """

    name: str
    place: str
    read: Callable[[Any], T]
    asked: bool = False
    """True once it has been awaited."""
    result: tuple[Any, BaseException | None] | None = None
    """The value and the error that it has ended with."""

    def __await__(self) -> Generator[Any, Any, T]:
        value: T = yield self
        return value


@dataclass(eq=False)
class StepRequest(Pending[T]):
    """
    A step: the call of an operation, or a wait.

    *options* are the fields of its `Step`; *spec* is the operation, if the kernel has none by that
    name. One that *recovers* undoes what was done before; it is ready *since* so many calls.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    input: Any = None
    spec: OperationSpec | None = None
    recovers: bool = False
    since: int | None = None

    @property
    def kind(self) -> str:
        """The kind of thing that it waits for; empty for the call of an operation."""
        waited = self.options.get("wait_for")
        if waited is not None:
            return "event" if waited.event is not None else "signal"
        if "workflow" in self.options:
            return "workflow" if self.options.get("wait", True) else "start"
        return next((kind for kind in ("sleep", "approval") if kind in self.options), "")

    def step(self, step_id: str) -> Step:
        """Return the step that the engine runs."""
        try:
            return _step(step_id, tuple(self.options.items()))
        except TypeError:  # an option that can't be a key: a payload, say
            return Step.model_construct(id=step_id, **self.options)


@lru_cache(maxsize=2_000)
def _step(step_id: str, options: tuple[tuple[str, Any], ...]) -> Step:
    # Not validated: its id may have a number, and the rest was.
    return Step.model_construct(id=step_id, **dict(options))


@dataclass(eq=False)
class Gather(Awaitable[tuple[Any, ...]]):
    """Calls, and coroutines that make calls, side by side."""

    members: Sequence[Awaitable[Any]]

    def __await__(self) -> Generator[Any, Any, tuple[Any, ...]]:
        found: tuple[Any, ...] = yield self
        return found


def place_of(frame: FrameType) -> str:
    """Return the line that *frame* is at, as ``shop/flows.py:12``: the same on every machine."""
    module = str(frame.f_globals.get("__name__", ""))
    return f"{_file_of(frame.f_code.co_filename, module)}:{frame.f_lineno}"


@lru_cache(maxsize=1_000)
def _file_of(filename: str, module: str) -> str:
    path = PurePath(filename)
    packages = module.split(".")
    if path.name == "__init__.py":
        packages.append("__init__")
    # The module's name leads to the file, except for a script.
    known = len(packages) if packages[-1] == path.stem else 1
    return "/".join(path.parts[-known:])[-120:]

"""Tasks: calls on their way to another process, and the outcomes that come back."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes, OutputError, PayloadError
from automate_kernel.operations.context import Call
from automate_kernel.outbox.item import new_id
from automate_kernel.secrets.handles import Sealed, SecretRef
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.values import encode_json, read_json

__all__ = ["Declined", "RemoteTask", "TaskOutcome"]

FORMAT = 1
"""The version of the text of tasks and outcomes; another one is left to a newer process."""

LARGEST = 64_000_000
"""The most bytes of a task or an outcome, with an output store for what a broker refuses."""

_Path = list[str | int]
_Places = list[tuple[_Path, list[Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteTask:
    """
    One call for another process.

    *input* has handles in the place of secrets: references travel, never values. *id* is the same
    for each delivery of one attempt, whoever submits it. *timeout* and *heartbeat* are the seconds
    that the attempt may take and be silent, from where it begins. Nobody waits for it any more
    after *ends_at*, a time in seconds since 1970.
    """

    id: str
    operation: str
    input: Any = None
    input_ref: str | None = None
    """The key of the input in the output store, if it is too large for the broker."""
    tenant_id: str | None = None
    execution_id: str | None = None
    step_id: str | None = None
    attempt: int = 1
    failed_attempts: int = 0
    idempotency_key: str | None = None
    repeated: bool = False
    """True if a call with this key may have been made before; see `Call.repeated`."""
    written: tuple[str, ...] | None = None
    """The fields whose values stand in the workflow as they are; None where nobody wrote them."""
    progress: Any = None
    """The last report of an earlier attempt."""
    timeout: float | None = None
    heartbeat: float | None = None
    ends_at: float | None = None
    durable: bool = False
    """True if its outcome is delivered, and not waited for."""
    headers: dict[str, str] = field(default_factory=dict)
    """Texts that hooks have added, such as a trace context."""
    _text: JsonText | None = field(default=None, init=False, repr=False, compare=False)

    def to_text(self) -> JsonText:
        """Return the task as JSON; raises `PayloadError` for an input that is no JSON."""
        if self._text is None:
            # Once: a host looks at its length, and an executor sends it.
            object.__setattr__(self, "_text", self._written())
        return self._text or JsonText("")

    def _written(self) -> JsonText:
        about = {name: value for name in _TASK_FIELDS if (value := getattr(self, name))}
        about["input"], about["secrets"] = _split(self.input)
        if self.written is not None:
            about["written"] = list(self.written)
        return encode_json({"v": FORMAT, **about}, "input", LARGEST, inside=1)

    @classmethod
    def from_text(cls, text: str | bytes) -> RemoteTask:
        """Read the task that `to_text` wrote; raises `PayloadError` for any other text."""
        about = _read(text, "task")
        known = {name: about[name] for name in _TASK_FIELDS if name in about}
        if wrong := _misfit(known, _TASK_TYPES, ("id", "operation")):
            raise PayloadError(f"this is no task: {wrong}")
        written = known.get("written")
        try:
            known["input"] = _joined(known.get("input"), about.get("secrets"))
        except (LookupError, TypeError, ValueError):
            raise PayloadError("this is no task: its secrets have no place in the input") from None
        known["written"] = None if written is None else tuple(written)
        return cls(**known)

    def call(self, *, reports: Any = None, again: bool = False) -> Call:
        """Return the call that the task is, *again* if it was delivered before."""
        written = None
        if self.written is not None:
            given = self.input if isinstance(self.input, Mapping) else {}
            written = {name: given[name] for name in self.written if name in given}
        return Call(
            self.operation, self.tenant_id, self.execution_id, self.step_id, self.attempt,
            self.idempotency_key, reports=reports, written=written,
            begun_before=self.repeated or again, failed_attempts=self.failed_attempts,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOutcome:
    """The outcome of a task: an output, or an error whose texts are redacted."""

    task_id: str
    execution_id: str | None = None
    output: Any = None
    output_ref: str | None = None
    """The key of the output in the output store, if it is too large for the broker."""
    error: dict[str, Any] | None = None
    labels: dict[str, str] = field(default_factory=dict)
    progress: Any = None
    """The last report of the call: its ``value`` and ``message``."""
    worker: str | None = None
    """The process that made the call."""
    durable: bool = False

    def to_text(self) -> JsonText:
        """Return the outcome as JSON."""
        about = {name: value for name in _OUTCOME_FIELDS if (value := getattr(self, name))}
        about["output"] = self.output
        return encode_json({"v": FORMAT, **about}, "output", LARGEST, inside=1)

    @classmethod
    def from_text(cls, text: str | bytes) -> TaskOutcome:
        """
        Read the outcome that `to_text` wrote; raises `PayloadError` for any other text.

        If only the task's id can be read, the outcome is a ``DATA_LOSS``: the first outcome
        counts, and nobody may wait for another.
        """
        about = _read(text, "outcome")
        known = {name: about[name] for name in _OUTCOME_FIELDS if name in about}
        if wrong := _misfit(known, _OUTCOME_IDS, ("task_id",)):
            raise PayloadError(f"this is no outcome: {wrong}")
        if wrong := _misfit(known, _OUTCOME_TYPES):
            lost = AutomateError(ErrorCodes.DATA_LOSS, f"its outcome can't be read: {wrong}")
            known = {name: known[name] for name in _OUTCOME_IDS if name in known}
            known["error"] = error_data(lost)
        return cls(**known)

    @classmethod
    def failed(cls, task: RemoteTask, error: AutomateError, **about: Any) -> TaskOutcome:
        """Return the outcome of a *task* that ended with *error*, which is redacted."""
        return cls(
            task_id=task.id, execution_id=task.execution_id, error=error_data(error),
            durable=task.durable, **about,
        )  # fmt: skip

    def failure(self) -> AutomateError | None:
        """Return its error, or None."""
        return None if self.error is None else error_of(self.error)


@dataclass(frozen=True, slots=True)
class Declined:
    """A task that this process can't perform, and another one may: it lacks a plugin, say."""

    reason: str


_TASK_FIELDS = tuple(each.name for each in fields(RemoteTask) if each.init)
_OUTCOME_FIELDS = tuple(each.name for each in fields(TaskOutcome))
# The other side may be another release, or a stranger who writes to the broker.
_Types = Mapping[str, "type | tuple[type, ...]"]
_NUMBER = (int, float)
_TASK_TYPES: _Types = {
    **dict.fromkeys(("id", "operation", "input_ref", "tenant_id", "execution_id", "step_id"), str),
    "attempt": int, "failed_attempts": int, "idempotency_key": str, "repeated": bool,
    "written": list, "timeout": _NUMBER, "heartbeat": _NUMBER, "ends_at": _NUMBER, "durable": bool,
    "headers": dict,
}  # fmt: skip
_OUTCOME_IDS: _Types = {"task_id": str, "execution_id": str, "durable": bool}
_OUTCOME_TYPES: _Types = {"output_ref": str, "error": dict, "labels": dict, "worker": str}


def _misfit(about: Mapping[str, Any], types: _Types, needed: Sequence[str] = ()) -> str:
    """Return what is wrong with the types of a document's fields, in words; "" if nothing is."""
    for name in needed:
        if about.get(name) is None:
            return f"{name!r} is missing"
    for name, wanted in types.items():
        if (value := about.get(name)) is not None and not isinstance(value, wanted):
            return f"{name!r} is of the type {type(value).__name__}"
    return ""


def task_id(call: Call, generation: str = "") -> str:
    """
    Return the id of the task that *call* becomes: 40 characters of hexadecimal.

    It follows from the idempotency key and the number of failed attempts. Attempts that died with
    their worker don't count: their task goes on, and is attached to. *generation* tells the runs of
    an execution that was resumed from those before. A call without a key has a new id.
    """
    if call.idempotency_key is None:
        return hashlib.sha256(new_id().encode()).hexdigest()[:40]
    parts = [
        call.tenant_id, call.operation, call.idempotency_key, generation, call.failed_attempts,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


def error_data(error: AutomateError) -> dict[str, Any]:
    """Return *error* as JSON."""
    return {
        "code": str(error.code),
        "message": error.message,
        "hint": error.hint,
        "retryable": error.retryable,
        "retry_after": error.retry_after,
        "problems": error.details.get("problems"),
        "trace": error.trace,
        "group": error.group,
        "output": isinstance(error, OutputError),
    }


def error_of(data: Mapping[str, Any]) -> AutomateError:
    """Return the error that `error_data` wrote."""
    code = ErrorCodes.of(_text(data, "code"))
    retryable, after = data.get("retryable"), data.get("retry_after")
    options: dict[str, Any] = {
        "hint": _text(data, "hint"),
        "retryable": retryable if isinstance(retryable, bool) else None,
        "retry_after": after if isinstance(after, _NUMBER) and 0 <= after < math.inf else None,
    }
    message = str(data.get("message") or "")
    if data.get("output"):
        error: AutomateError = OutputError(message, code=code, **options)
    else:
        error = AutomateError(code, message, **options)
    if isinstance(problems := data.get("problems"), list) and problems:
        error.details["problems"] = problems
    error.trace, error.group = _text(data, "trace"), _text(data, "group")
    return error


def _text(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    return value if isinstance(value, str) else None


def with_input(task: RemoteTask, value: Any) -> RemoteTask:
    """Return *task* with the input that `input_text` wrote to the output store."""
    return replace(task, input=_joined(value["input"], value["secrets"]), input_ref=None)


def input_text(task: RemoteTask) -> JsonText:
    """Return the input of *task* as JSON, with its references to secrets, for the output store."""
    plain, places = _split(task.input)
    return encode_json({"input": plain, "secrets": places}, "input", LARGEST, inside=1)


def _read(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        about = read_json(text.decode() if isinstance(text, bytes) else text)
    except (ValueError, PayloadError):
        about = None
    if not isinstance(about, dict):
        raise PayloadError(f"this is no {what}", hint="somebody else writes to its subject")
    if about.get("v") != FORMAT:
        raise PayloadError(
            f"this {what} has the format {about.get('v')!r}, and this process reads {FORMAT}",
            hint="install the same version of automate-kernel on both sides",
        )
    return about


def _split(tree: Any) -> tuple[Any, _Places]:
    """Return *tree* with None in the place of each handle, and the handles with their places."""
    # Beside the input, and not in it: data can't be made to look like a reference.
    places: _Places = []

    def plain(value: Any, path: _Path) -> Any:
        if isinstance(value, (SecretRef, Sealed)):
            parts = Sealed(value).parts
            places.append(
                (path, [[part.key] if isinstance(part, SecretRef) else part for part in parts])
            )
            return None
        if isinstance(value, Mapping):
            return {key: plain(each, [*path, key]) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(each, [*path, number]) for number, each in enumerate(value)]
        return value

    return plain(tree, []), places


def _joined(tree: Any, places: Any) -> Any:
    """Return *tree* with the handles in their places."""
    around: Any = [tree]
    for path, parts in places or ():
        read = [SecretRef(part[0]) if isinstance(part, list) else str(part) for part in parts]
        single = len(read) == 1 and isinstance(read[0], SecretRef)
        way, holder = [0, *path], around
        for step in way[:-1]:
            holder = holder[step]
        holder[way[-1]] = read[0] if single else Sealed(*read)
    return around[0]

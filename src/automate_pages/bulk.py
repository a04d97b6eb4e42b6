"""Bulk actions: what there is to do with many items or executions, and its course on the pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from automate_kernel.outbox import BulkAction
from automate_pages.exchange import OrderAnswer, PageAnswer, PageError, PageLink, PageRequest

MOST_TICKED = 200
"""The number of ticked rows that one action takes."""
RATES: list[tuple[int, str]] = [
    (0, "all at once"),
    (1, "1 a second"),
    (10, "10 a second"),
    (50, "50 a second"),
    (200, "200 a second"),
    (1000, "1,000 a second"),
]
"""The rates to choose from: items, or executions, a second."""

DELAYS: list[tuple[int, str]] = [
    (0, "now"),
    (60, "in a minute"),
    (600, "in 10 minutes"),
    (3600, "in an hour"),
    (43_200, "in 12 hours"),
    (86_400, "tomorrow"),
]
"""The times to choose from, in seconds from now."""

_SECONDS = 1.0
_PROGRESS = ("began_at", "after", "seen", "done")


@dataclass(frozen=True, slots=True)
class BulkActionKind:
    """
    Something that can be done with items, or with executions.

    *command* is the kernel's word for it. A *safe* action on one item needs no confirmation. With
    *paced* it can be done at a rate.
    """

    name: str
    command: str
    label: str
    done: str
    explanation: str
    tone: str = ""
    safe: bool = False
    paced: bool = False
    target: str = "items"

    @property
    def noun(self) -> str:
        """The word for what it changes: ``item`` or ``execution``."""
        return self.target.removesuffix("s")


_ITEMS: dict[str, BulkActionKind] = {
    one.name: one
    for one in (
        BulkActionKind(
            "retry",
            "requeue",
            "Retry",
            "put back to wait",
            "They wait for a worker again, with all their attempts. A workflow goes on at the step"
            " that failed.",
            safe=True,
            paced=True,
        ),
        BulkActionKind(
            "reschedule",
            "reschedule",
            "Reschedule",
            "rescheduled",
            "They become due at another time. Their attempts and their priority stay.",
            safe=True,
        ),
        BulkActionKind(
            "cancel",
            "cancel",
            "Cancel",
            "cancelled, or asked to stop",
            "What waits is cancelled, and so are the executions of workflows that it belongs to."
            " What runs is asked to stop; if it succeeds first, that stands. A cancelled item can"
            " be retried.",
            tone="bad",
        ),
        BulkActionKind(
            "discard",
            "discard",
            "Discard",
            "deleted",
            "They are deleted from the outbox, with their payload and error. This can't be undone.",
            tone="bad",
        ),
    )
}
_EXECUTIONS: dict[str, BulkActionKind] = {
    one.name: one
    for one in (
        BulkActionKind(
            "resume",
            "resume",
            "Resume",
            "resumed",
            "Each goes on at the step that failed. Steps that are done are not repeated.",
            paced=True,
            target="executions",
        ),
        BulkActionKind(
            "cancel",
            "cancel",
            "Cancel",
            "cancelled, or being cancelled",
            "Nothing new begins in them. What they have done is undone and cleaned up first, if"
            " their workflow says how. A plain step that runs is not interrupted.",
            tone="bad",
            target="executions",
        ),
        BulkActionKind(
            "pause",
            "pause",
            "Pause",
            "paused",
            "What runs ends, and nothing follows until they are let go on.",
            target="executions",
        ),
        BulkActionKind(
            "unpause",
            "unpause",
            "Go on with",
            "resumed",
            "They go on where they were paused.",
            target="executions",
        ),
    )
}
BULK_ACTIONS: Mapping[str, Mapping[str, BulkActionKind]] = {
    "items": _ITEMS, "executions": _EXECUTIONS
}  # fmt: skip
"""The bulk actions by what they change, and by their names."""


@dataclass(frozen=True, slots=True)
class BulkScope:
    """
    The rows that a bulk action is about: what *matching* finds, which *words* describe.

    *fields* ask for the same in a form, *back* is their list, and *rest* the address to look at
    when all is done.
    """

    target: Literal["items", "executions"]
    matching: Mapping[str, Any]
    fields: Mapping[str, str]
    words: str
    back: PageLink
    rest: str
    ids: tuple[str, ...] = ()


def offered(target: str, names: Iterable[str]) -> list[BulkActionKind]:
    """Return the bulk actions *names* on *target*."""
    return [BULK_ACTIONS[target][name] for name in names]


def carry_out(request: PageRequest, scope: BulkScope) -> PageAnswer | OrderAnswer:
    """
    Carry a bulk action out: ask first, then work for a second in each request, to its end.

    What is done stays done if the browser is closed; the list shows what is left.
    """
    request.require("steer")
    kind = BULK_ACTIONS[scope.target].get(request.form.get("order", ""))
    if kind is None:
        raise PageError(400, "there is no such order")
    if kind.name == "discard":
        request.require("discard")
    if "ids" in scope.matching and not scope.ids:
        return OrderAnswer(scope.back.url, f"Tick some {scope.target} first.", "warn")
    action = _action(request, kind, scope)
    total = _number(request, "total")
    if request.form.get("sure") != "yes":
        total = _count(request, action)
        if not total:
            text = f"There are no {scope.words} that it can be done to."
            return OrderAnswer(scope.back.url, text, "warn")
        return _page(request, kind, scope, action, total)
    store = request.kernel.outbox if scope.target == "items" else request.kernel.executions
    try:
        action = store.run_bulk(action, seconds=_SECONDS)
    except ValueError:  # of a time or a place that none of our forms has sent
        raise PageError(400, "the form was changed on its way: begin again") from None
    if not action.finished:
        return _page(request, kind, scope, action, max(total, action.seen))
    plural = "" if action.done == 1 else "s"
    text = f"{action.done:,} {kind.noun}{plural} {kind.done}."
    if action.seen > action.done:
        text += f" {action.seen - action.done:,} had changed meanwhile and stay as they are."
    if action.per_second:
        text += f" They become due at {action.per_second:g} a second."
    return OrderAnswer(scope.rest, text, "ok" if action.done else "warn")


def _action(request: PageRequest, kind: BulkActionKind, scope: BulkScope) -> BulkAction:
    # Times as text, which an action takes along.
    matching = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in scope.matching.items()
    }
    rate = _number(request, "per_second")
    return BulkAction(
        kind.command,
        matching,
        per_second=float(rate) if rate and kind.paced else None,
        target=scope.target,
        delay=float(_number(request, "delay")),
        began_at=request.form.get("began_at", ""),
        after=request.form.get("after", ""),
        seen=_number(request, "seen"),
        done=_number(request, "done"),
    )


def _number(request: PageRequest, name: str) -> int:
    text = request.form.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0


def _count(request: PageRequest, action: BulkAction) -> int:
    if action.target == "executions":
        return request.kernel.executions.count_bulk(action)
    return request.kernel.outbox.count(**action.matching)


def _page(
    request: PageRequest, kind: BulkActionKind, scope: BulkScope, action: BulkAction, total: int
) -> PageAnswer:
    begun = bool(action.began_at)
    plural = "" if total == 1 else "s"
    asked = f"{kind.label} {total:,} {kind.noun}{plural}"
    state = {name: str(getattr(action, name)) for name in _PROGRESS}
    return PageAnswer(
        "bulk.html",
        f"{asked}: {action.seen:,} done" if begun else f"{asked}?",
        {
            "kind": kind,
            "scope": scope,
            "action": action,
            "total": total,
            "begun": begun,
            "rates": RATES if kind.paced and not begun and not scope.ids else (),
            "delays": DELAYS if kind.name == "reschedule" and not begun else (),
            "kept": {
                name: text
                for name in ("per_second", "delay")
                if begun and (text := request.form.get(name, ""))
            },
            "state": {**scope.fields, **(state if begun else {}), "total": str(total)},
            "here": request.url(*filter(None, request.path.split("/"))),
        },
        crumbs=[scope.back],
        done=bool(action.done),
    )

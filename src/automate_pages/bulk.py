"""Bulk actions: what there is to do with many items or executions, and its course on the pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from automate_kernel.outbox import BulkAction
from automate_kernel.workflows.steer.bulk_runner import BulkProgress, BulkRequest
from automate_pages.exchange import (
    OrderAnswer,
    PageAnswer,
    PageError,
    PageLink,
    PageRequest,
    sent_text,
)
from automate_pages.formats import shown_text

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

_PLACES = {"items": "outbox", "executions": "executions"}
_NARROW = ("kind", "workflow", "code", "group")
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
        BulkActionKind(
            "fork",
            "fork",
            "Copy",
            "copied",
            "Another execution begins for each. It takes over the steps before the one that you"
            " name, and runs that and all that follows. The executions themselves stay as they are;"
            " those without such a step get no copy.",
            paced=True,
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

    *fields* ask for the same in a form, and *back* is the address of their list. *steps* are those
    that copies may begin from.
    """

    target: Literal["items", "executions"]
    matching: Mapping[str, Any]
    fields: Mapping[str, str]
    words: str
    back: PageLink
    ids: tuple[str, ...] = ()
    steps: Sequence[str] = ()


def offered(target: str, names: Iterable[str]) -> list[BulkActionKind]:
    """Return the bulk actions *names* on *target*."""
    return [BULK_ACTIONS[target][name] for name in names]


def carry_out(request: PageRequest, scope: BulkScope) -> PageAnswer | OrderAnswer:
    """
    Carry a bulk action out: ask first, work for a second, and leave the rest to a worker.

    Where no worker is there, each request works for a second, while the page is open. What is done
    stays done; the list shows what is left.
    """
    request.require("steer")
    kind = BULK_ACTIONS[scope.target].get(request.form.get("order", ""))
    if kind is None:
        raise PageError(400, "there is no such order")
    if kind.name == "discard":
        request.require("discard")
    if kind.name == "fork":
        request.require("start")
    if "ids" in scope.matching and not scope.ids:
        return OrderAnswer(scope.back.url, f"Tick some {scope.target} first.", "warn")
    action, bulk = _action(request, kind, scope), request.kernel.bulk
    total = _number(request, "total")
    if request.form.get("sure") != "yes" or (kind.name == "fork" and not action.step):
        total = bulk.total(action)
        if not total:
            text = f"There are no {scope.words} that it can be done to."
            return OrderAnswer(scope.back.url, text, "warn")
        return _page(request, kind, scope, action, total)
    user = request.user
    asked = BulkRequest(
        kind.name, user.id or user.name, user.tenant, scope.words, dict(scope.fields), total,
        action, by=user.name, session=request.session,
    )  # fmt: skip
    try:
        asked = bulk.carry_on(asked)
    except ValueError:  # of a time or a place that none of our forms has sent
        raise PageError(400, "the form was changed on its way: begin again") from None
    if asked.action.finished:
        done = bool(asked.action.done)
        rest = scope.back.url if scope.ids else _rest(request, scope.target, scope.fields)
        return OrderAnswer(rest, _told(kind, asked.action), "ok" if done else "warn")
    if bulk.has_worker():
        request_id = bulk.hand_over(asked)
        text = "A worker carries it on, also when this page is closed."
        return OrderAnswer(request.url(_PLACES[scope.target], "bulk", request_id), text)
    return _page(request, kind, scope, asked.action, max(total, asked.action.seen))


def _rest(request: PageRequest, target: str, fields: Mapping[str, str]) -> str:
    """Return the list of what is left: of the one cause or kind there is nothing any more."""
    left = {name: text for name, text in fields.items() if name not in _NARROW}
    return request.url(_PLACES[target], **left)


def _told(kind: BulkActionKind, action: BulkAction) -> str:
    plural = "" if action.done == 1 else "s"
    text = f"{action.done:,} {kind.noun}{plural} {kind.done}."
    if action.seen > action.done:
        text += f" {action.seen - action.done:,} had changed meanwhile and stay as they are."
    if action.per_second:
        text += f" They become due at {action.per_second:g} a second."
    return text


# -- what a worker carries on ------------------------------------------------------------------


def under_way(request: PageRequest, target: str) -> list[PageLink]:
    """Return the bulk actions on *target* that workers carry on, with the pages that stop them."""
    return [
        PageLink(
            f"{BULK_ACTIONS[target][each.request.kind].label}: {each.request.label}",
            request.url(_PLACES[target], "bulk", each.id),
        )
        for each in request.kernel.bulk.under_way(target, tenant_id=request.user.tenant)
    ]


def show_progress(request: PageRequest, request_id: str) -> PageAnswer:
    """Show how far a bulk action has come that a worker carries on, or how it ended."""
    found = _find(request, request_id)
    asked = found.request
    target = asked.action.target
    kind, place = BULK_ACTIONS[target][asked.kind], _PLACES[target]
    return PageAnswer(
        "bulk_progress.html",
        f"{kind.label} {asked.total:,} {kind.noun}{'' if asked.total == 1 else 's'}",
        {
            "kind": kind,
            "found": found,
            "asked": asked,
            "total": max(asked.total, asked.action.seen),
            "told": _told(kind, asked.action),
            "problem": shown_text(request.kernel, found.problem, 500),
            "back": _rest(request, target, asked.fields),
            "here": request.url(place, "bulk", request_id),
            "steers": request.may("steer"),
        },
        crumbs=[PageLink(place.capitalize(), request.url(place))],
        live=not found.over,
    )


def stop(request: PageRequest, request_id: str) -> OrderAnswer:
    """Have nothing more done of a bulk action that a worker carries on."""
    request.require("steer")
    _find(request, request_id)
    stopped = request.kernel.bulk.stop(UUID(request_id))
    here = request.url(_place(request), "bulk", request_id)
    if stopped:
        return OrderAnswer(here, "It is stopped. What is done stays done.")
    return OrderAnswer(here, "It was over.", "warn")


def _find(request: PageRequest, request_id: str) -> BulkProgress:
    target = next(name for name, place in _PLACES.items() if place == _place(request))
    with suppress(ValueError):
        found = request.kernel.bulk.find_progress(
            UUID(request_id), target=target, tenant_id=request.user.tenant
        )
        if found is not None:
            return found
    raise PageError(404, "there is no such action")


def _place(request: PageRequest) -> str:
    return request.path.strip("/").partition("/")[0]


def _action(request: PageRequest, kind: BulkActionKind, scope: BulkScope) -> BulkAction:
    rate = _number(request, "per_second")
    return BulkAction(
        kind.command,
        scope.matching,
        per_second=float(rate) if rate and kind.paced else None,
        target=scope.target,
        delay=float(_number(request, "delay")),
        began_at=request.form.get("began_at", ""),
        after=request.form.get("after", ""),
        seen=_number(request, "seen"),
        done=_number(request, "done"),
        step=sent_text(request.form, "step") if kind.name == "fork" else "",
        current=kind.name == "fork" and request.form.get("definition") == "current",
    )


def _number(request: PageRequest, name: str) -> int:
    text = request.form.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0


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
            "asks_step": kind.name == "fork" and not begun,
            "rates": RATES if kind.paced and not begun and not scope.ids else (),
            "delays": DELAYS if kind.name == "reschedule" and not begun else (),
            "kept": {
                name: text
                for name in ("per_second", "delay", "step", "definition")
                if begun and (text := request.form.get(name, ""))
            },
            "state": {**scope.fields, **(state if begun else {}), "total": str(total)},
            "here": request.url(*filter(None, request.path.split("/"))),
        },
        crumbs=[scope.back],
        done=bool(action.done),
    )

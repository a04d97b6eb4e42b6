"""The kinds of items: the number of each, their pauses and limits, and keys that deadlock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.monitoring.waiting import why_item_waits
from automate_kernel.outbox.controls import controls_of
from automate_kernel.outbox.item import OutboxItem
from automate_kernel.outbox.limits import Limit
from automate_kernel.outbox.queries import pauses_of_kinds
from automate_pages.exchange import OrderAnswer, PageAnswer, PageError, PageRequest, sent_text
from automate_pages.formats import shown_reasons

_SAMPLE = 200
_MOST_KEYS = 5
_LATELY_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class KindRow:
    """
    A kind with its numbers of items, its limit, and the reason for its pause.

    *oldest* is the age in seconds of the oldest item that waits.
    """

    kind: str
    counts: dict[str, int]
    waiting: dict[str, int]
    late: float | None
    oldest: float | None
    limit: Limit | None
    paused: bool
    reason: str


@dataclass(frozen=True, slots=True)
class BusyKey:
    """A key that items wait behind: one of them, how many were seen, and why it waits."""

    item: OutboxItem
    key: str
    waiting: int
    reasons: list[str]


def require_everybody(request: PageRequest) -> None:
    """Raise `PageError` for a user of one tenant: what is shown belongs to all together."""
    if request.user.tenant is not None:
        raise PageError(403, "this belongs to all tenants, and you see one tenant's rows alone")


def show(request: PageRequest) -> PageAnswer:
    """Show the kinds, and the keys that items wait behind."""
    require_everybody(request)
    outbox, executions = request.kernel.outbox, request.kernel.executions
    stats = outbox.stats()
    limits = {limit.kind: limit for limit in outbox.limits()}
    with request.kernel.storage.begin(atomic=False) as rows:
        pauses = pauses_of_kinds(rows)
    lately = {each.kind for each in outbox.activity(seconds=_LATELY_SECONDS)}
    names = sorted({*stats.counts, *stats.paused, *limits, *lately})
    return PageAnswer(
        "kinds.html",
        "Kinds",
        {
            "kinds": [
                KindRow(
                    name,
                    stats.counts.get(name, {}),
                    stats.waiting.get(name, {}),
                    stats.late.get(name),
                    stats.ages.get(name),
                    limits.get(name),
                    name in pauses,
                    pauses.get(name) or "",
                )
                for name in names
            ],
            "keys": _busy_keys(request),
            "deadlocks": executions.deadlocks(),
            "chosen": request.text("kind"),
            "steers": request.may("steer"),
        },
        live=True,
    )


def _busy_keys(request: PageRequest) -> list[BusyKey]:
    """Return the keys with the most waiting items among a sample of those that wait for one."""
    sample = controls_of(request.kernel.outbox).page(
        waiting_for="key", limit=_SAMPLE, payloads=False
    )
    behind: dict[tuple[str | None, str], list[OutboxItem]] = {}
    for item in sample.items:
        key = item.concurrency_key or item.ordering_key or ""
        behind.setdefault((item.tenant_id, key), []).append(item)
    most = sorted(behind.items(), key=lambda each: -len(each[1]))[:_MOST_KEYS]
    return [
        BusyKey(
            items[0],
            key,
            len(items),
            shown_reasons(request.kernel, why_item_waits(request.kernel, items[0])),
        )
        for (_, key), items in most
    ]


def order(request: PageRequest) -> OrderAnswer:
    """Pause, resume or limit a kind."""
    require_everybody(request)
    request.require("steer")
    kind, outbox = sent_text(request.form, "kind"), request.kernel.outbox
    wanted = request.form.get("order", "")
    if not kind or len(kind) > 200:
        raise PageError(400, "say which kind is meant")
    match wanted:
        case "pause":
            outbox.pause(kind, request.form.get("reason", "").replace("\x00", "").strip()[:500])
            words = f"Paused {kind}: no worker takes items of it until it is resumed."
        case "resume":
            outbox.resume(kind)
            words = f"Resumed {kind}."
        case "limit":
            controls_of(outbox).limit(kind, **_limit(request))
            words = f"Limited {kind}."
        case "unlimit":
            controls_of(outbox).unlimit(kind)
            words = f"Removed the limit of {kind}."
        case _:
            raise PageError(400, "there is no such order")
    return OrderAnswer(request.url("kinds"), words)


def _limit(request: PageRequest) -> dict[str, Any]:
    names = ("concurrency", "rate", "per_seconds")
    concurrency, rate, per_seconds = (sent_text(request.form, name) for name in names)
    try:
        return {
            "concurrency": int(concurrency) if concurrency else None,
            "rate": int(rate) if rate else None,
            "per_seconds": float(per_seconds or 1),
        }
    except ValueError:
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "a limit is a number") from None

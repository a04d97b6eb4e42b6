"""The webhooks: the address to enter at each service, the last deliveries, and their repetition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.plugins.records import PluginState
from automate_kernel.triggers.webhooks.refusals import RefusedDelivery
from automate_pages.exchange import (
    OrderAnswer,
    PageAnswer,
    PageError,
    PageLink,
    PageRequest,
    sent_text,
)
from automate_pages.formats import ShownValue, shown_text
from automate_pages.lists import PATIENCE
from automate_pages.screens.kinds import require_everybody

_OUTCOMES = ("refused", "failed", "ignored", "repeated")
_MOST_DIGITS = 9


@dataclass(frozen=True, slots=True)
class WebhookAddress:
    """A trigger of a connector, the address that its service calls, and its counts by outcome."""

    connector: str
    trigger: Any
    address: str
    counts: Mapping[str, int]
    about: ShownValue


def show(request: PageRequest) -> PageAnswer:
    """Show the addresses of the webhooks, the last deliveries, and why others started nothing."""
    require_everybody(request)
    deliveries = request.kernel.deliveries
    connector, outcome, after = (request.text(name) for name in ("connector", "outcome", "after"))
    outcome = outcome if outcome in _OUTCOMES else ""
    found = deliveries.page(connector=connector or None, after=after, seconds=PATIENCE)
    asked = {"connector": connector, "outcome": outcome}
    return PageAnswer(
        "webhooks.html",
        "Webhooks",
        {
            **_addresses(request),
            "connector": connector,
            "outcomes": [
                PageLink(
                    word.capitalize() if word else "All",
                    request.url("webhooks", **{**asked, "outcome": word}),
                    word == outcome,
                )
                for word in ("", *_OUTCOMES)
            ],
            "refused": [
                (each, shown_text(request.kernel, each.reason, 500))
                for each in _refused(request, connector, outcome)
            ],
            "found": found,
            "next": request.url("webhooks", **asked, after=found.after) if found.after else "",
            "first": request.url("webhooks", **asked) if after else "",
            "starts": request.may("start"),
        },
        live=not after,
    )


def _refused(request: PageRequest, connector: str, outcome: str) -> list[RefusedDelivery]:
    return request.kernel.deliveries.refused.all(
        connector=connector or None, outcome=outcome or None
    )


def _addresses(request: PageRequest) -> dict[str, Any]:
    kernel = request.kernel
    counts: dict[str, dict[str, int]] = {}
    for (connector, outcome), number in kernel.deliveries.tally.counts().items():
        counts.setdefault(connector, {})[outcome] = number
    registry = kernel.plugins.registry("connector")
    records = sorted(
        (each for each in registry.records() if each.usable), key=lambda each: each.key
    )
    addresses = [
        WebhookAddress(
            each.key,
            trigger,
            _address(request, each.key, trigger.name),
            counts.get(each.key, {}),
            shown_text(kernel, trigger.description, 300),
        )
        for each in records
        if each.state is PluginState.LOADED
        for trigger in registry.get(each.key).triggers()
    ]
    unread = [each.key for each in records if each.state is not PluginState.LOADED]
    known = request.webhooks is not None and all(each.address for each in addresses)
    return {"addresses": addresses, "unread": unread, "known": known}


def _address(request: PageRequest, connector: str, trigger: str) -> str:
    place = request.webhooks
    if callable(place):
        found = place(connector, trigger) or ""
    else:
        parts = f"webhooks/{quote(connector, safe='')}/{quote(trigger, safe='')}"
        found = f"{(place or '').rstrip('/')}/{parts}"
    return request.origin + found if found.startswith("/") and place is not None else found


def redeliver(request: PageRequest) -> OrderAnswer:
    """Emit the event of an accepted delivery again, once for each look at it."""
    require_everybody(request)
    request.require("start")
    delivery, seen = sent_text(request.form, "delivery"), sent_text(request.form, "seen")
    if not (seen.isascii() and seen.isdigit() and len(seen) <= _MOST_DIGITS):
        raise PageError(400, "the form was changed on its way: begin again")
    try:
        item_id = request.kernel.deliveries.redeliver(delivery, seen=int(seen))
    except AutomateError as error:
        if error.code is not ErrorCodes.FAILED_PRECONDITION:
            raise
        return OrderAnswer(
            request.url("webhooks"), shown_text(request.kernel, str(error)).text, "warn"
        )
    words = "Its event is emitted again: each workflow that listens to it now starts once more."
    return OrderAnswer(request.url("outbox", item_id), words)

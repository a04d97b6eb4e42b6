"""The webhooks: the address to enter at each service, and the last deliveries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from automate_kernel.plugins.records import PluginState
from automate_kernel.triggers.webhooks.ledger import ReplayLedger
from automate_pages.exchange import PageAnswer, PageRequest
from automate_pages.formats import shown_text
from automate_pages.screens.kinds import require_everybody

_LATEST = 50


@dataclass(frozen=True, slots=True)
class WebhookAddress:
    """A trigger of a connector, the path that its service calls, and its counts by outcome."""

    connector: str
    trigger: Any
    path: str
    counts: dict[str, int]


def show(request: PageRequest) -> PageAnswer:
    """Show the webhooks of the loaded connectors, and the last deliveries."""
    require_everybody(request)
    kernel = request.kernel
    registry = kernel.plugins.registry("connector")
    counts: dict[str, dict[str, int]] = {}
    for (connector, outcome, *_), number in kernel.deliveries.counts().items():
        its = counts.setdefault(connector, {})
        its[outcome] = its.get(outcome, 0) + number
    records = [each for each in registry.records() if each.usable]
    addresses = [
        WebhookAddress(
            each.key, trigger, f"/webhooks/{each.key}/{trigger.name}", counts.get(each.key, {})
        )
        for each in sorted(records, key=lambda one: one.key)
        if each.state is PluginState.LOADED
        for trigger in registry.get(each.key).triggers()
    ]
    unread = sorted(each.key for each in records if each.state is not PluginState.LOADED)
    deliveries = ReplayLedger(kernel.storage).latest(limit=_LATEST)
    return PageAnswer(
        "webhooks.html",
        "Webhooks",
        {
            "addresses": [
                (each, shown_text(kernel, each.trigger.description, 300)) for each in addresses
            ],
            "unread": unread,
            "deliveries": deliveries,
        },
        live=True,
    )

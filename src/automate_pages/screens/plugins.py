"""The plugins: their states, their errors and the remedies."""

from __future__ import annotations

from contextlib import suppress
from itertools import groupby

from automate_kernel.plugins.records import PluginRecord, PluginState
from automate_pages.exchange import PageAnswer, PageRequest
from automate_pages.formats import ShownValue, shown_text
from automate_pages.screens.kinds import require_everybody

_FINE = (PluginState.LOADED, PluginState.DISCOVERED, PluginState.DISABLED)


def show(request: PageRequest) -> PageAnswer:
    """Show every plugin that is known; only looking imports none."""
    require_everybody(request)
    return _page(request)


def load(request: PageRequest) -> PageAnswer:
    """Import every plugin, to see which work; nothing is stored."""
    require_everybody(request)
    request.require("steer")
    with suppress(Exception):  # strict: the record says it, and the page shows it
        request.kernel.plugins.load_all()
    return _page(request, loaded=True)


def _page(request: PageRequest, *, loaded: bool = False) -> PageAnswer:
    records = request.kernel.plugins.records()
    listed = sorted(records, key=lambda one: (one.kind, one.key, one.replaced_by or ""))
    broken = [_told(request, each) for each in listed if each.state not in _FINE]
    return PageAnswer(
        "plugins.html",
        "Plugins",
        {
            "groups": [
                (kind.replace("_", " "), list(of))
                for kind, of in groupby(listed, key=lambda one: one.kind)
            ],
            "failing": broken,
            "total": len(listed),
            "loaded": loaded,
            "loads": request.may("steer"),
            "unmatched": request.kernel.plugins.unmatched(),
        },
        done=loaded,
    )


def _told(
    request: PageRequest, record: PluginRecord
) -> tuple[PluginRecord, ShownValue, ShownValue]:
    error = shown_text(request.kernel, record.error, 600)
    return record, error, shown_text(request.kernel, record.traceback, 8_000)

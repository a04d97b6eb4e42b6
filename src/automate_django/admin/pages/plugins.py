"""The page of plugins: their states, their errors and the remedies."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern

from automate_django.admin.pages.access import require_operator
from automate_django.admin.pages.base import PageSection
from automate_django.admin.pages.display import shown_text
from automate_django.kernel import get_kernel
from automate_kernel.plugins.records import PluginRecord, PluginState


class PluginPages(PageSection):
    """Every plugin that is known. Only looking imports none; to load all of them is a button."""

    current = "plugins"

    def urls(self) -> list[URLPattern]:
        """Show the page."""
        return [
            self.owner.get("plugins/", self.view, "automate_plugins"),
            self.owner.post("plugins/load/", self.load_view, "automate_plugins_load"),
        ]

    def view(self, request: HttpRequest) -> TemplateResponse:
        """Show the page."""
        require_operator(request)
        return self._page(request, get_kernel().plugins.records())

    def load_view(self, request: HttpRequest) -> TemplateResponse:
        """Import every plugin, to see which work; nothing is stored, so there is no redirect."""
        require_operator(request)
        plugins = get_kernel().plugins
        try:
            plugins.load_all()
        except Exception:  # noqa: S110  (strict: the record says it, and the page shows it)
            pass
        return self._page(request, plugins.records(), loaded=True)

    def _page(
        self, request: HttpRequest, records: Iterable[PluginRecord], *, loaded: bool = False
    ) -> TemplateResponse:
        listed = sorted(records, key=lambda one: (one.kind, one.key, one.replaced_by or ""))
        fine = (PluginState.LOADED, PluginState.DISCOVERED, PluginState.DISABLED)
        return self.page(
            request,
            "plugins.html",
            "Plugins",
            groups=[
                (kind.replace("_", " "), [_told(one) for one in of])
                for kind, of in groupby(listed, key=lambda one: one.kind)
            ],
            broken=[_told(one) for one in listed if one.state not in fine],
            total=len(listed),
            loaded=loaded,
            load_url=self.url("automate_plugins_load"),
            accounts_url=self.url("automate_accounts"),
            unmatched=get_kernel().plugins.unmatched(),
        )


def _told(record: PluginRecord) -> dict[str, Any]:
    return {
        "record": record,
        "error": shown_text(record.error, 600),
        "traceback": shown_text(record.traceback, 8000),
    }

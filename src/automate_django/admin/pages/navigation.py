"""The tabs that stand above every operator page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from automate_django.tenants import OPERATE

__all__ = ["Tab", "home_url", "page_url", "tabs"]


def _looking(model: str) -> tuple[str, ...]:
    """What lets a user look at a model's pages, as in Django's own."""
    return (f"automate_django.view_{model}", f"automate_django.change_{model}")


# What a page is called in `current`, its label, its URL's name, and permissions of which one is
# enough.
_PAGES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("dashboard", "Dashboard", "automate_dashboard", (OPERATE,)),
    ("outbox", "Outbox", "automate_django_outboxitem_changelist", _looking("outboxitem")),
    ("kinds", "Kinds", "automate_kinds", (OPERATE,)),
    ("workers", "Workers", "automate_workers", (OPERATE,)),
    (
        "executions",
        "Executions",
        "automate_django_workflowexecution_changelist",
        _looking("workflowexecution"),
    ),
    ("workflows", "Workflows", "automate_workflows", _looking("workflowdocument")),
    ("plugins", "Plugins", "automate_plugins", (OPERATE,)),
    ("tokens", "API tokens", "automate_django_apitoken_changelist", _looking("apitoken")),
    ("audit", "Audit", "automate_django_auditentry_changelist", _looking("auditentry")),
)


@dataclass(frozen=True, slots=True)
class Tab:
    """One tab: where it leads, and whether it is the page that is shown."""

    label: str
    url: str
    current: bool


def page_url(site: AdminSite, name: str, *args: object) -> str:
    """The URL of a page of *site* by its name; raises `NoReverseMatch`."""
    return reverse(f"admin:{name}", args=args, current_app=site.name)


def tabs(request: HttpRequest, site: AdminSite, current: str = "") -> list[Tab]:
    """The pages of *site* that the user may see, in order."""
    return list(_tabs(request, site, current))


def _tabs(request: HttpRequest, site: AdminSite, current: str) -> Iterator[Tab]:
    user: Any = request.user
    for name, label, url_name, permissions in _PAGES:
        if not any(map(user.has_perm, permissions)):
            continue
        try:
            url = page_url(site, url_name)
        except NoReverseMatch:
            continue  # not registered on this site
        yield Tab(label, url, name == current)


def home_url(request: HttpRequest, site: AdminSite) -> str:
    """Where "Automation" in the breadcrumbs leads: the first page that the user may see."""
    return next((tab.url for tab in _tabs(request, site, "")), "")

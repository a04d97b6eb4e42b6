"""The pages of one kernel: their addresses, and how they are shown, whatever framework asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any

import jinja2

from automate_kernel.base.arguments import several
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.http.operations import ExposedOperations
from automate_kernel.kernel import Kernel
from automate_kernel.storage.statuses import ExecutionStatus, ItemStatus, StepStatus
from automate_pages import bulk, formats
from automate_pages.activity import ActivityHistory
from automate_pages.exchange import (
    Answer,
    OrderAnswer,
    PageAnswer,
    PageError,
    PageLink,
    PageRequest,
    WebhookPlaces,
    path_parts,
)
from automate_pages.operation_desk import OperationDesk
from automate_pages.screens import (
    access,
    accounts,
    approvals,
    audit,
    documents,
    execution,
    executions,
    home,
    kinds,
    operations,
    outbox,
    plugins,
    saved,
    webhooks,
    workers,
    workflows,
)
from automate_pages.trail import OrderTrail

View = Callable[..., Answer]
"""A page or an order: takes the request, and each part of the path that the address leaves open."""

_ROUTES: tuple[tuple[str, str, View], ...] = (
    ("GET", "", home.show),
    ("GET", "executions", executions.show_list),
    ("POST", "executions", executions.order),
    ("GET", "executions/grid", executions.show_grid),
    ("GET", "executions/compare", executions.compare),
    ("GET", "executions/bulk/*", bulk.show_progress),
    ("POST", "executions/bulk/*", bulk.stop),
    ("GET", "executions/*", execution.show),
    ("POST", "executions/*", execution.order),
    ("GET", "executions/*/steps/*/*", execution.show_step),
    ("GET", "workflows", workflows.show_list),
    ("GET", "workflows/*", workflows.show),
    ("POST", "workflows/*", workflows.order),
    ("GET", "workflows/*/versions/*", workflows.show_version),
    ("GET", "documents/new", documents.show_new),
    ("POST", "documents/new", documents.save_new),
    ("GET", "documents/*", documents.show),
    ("POST", "documents/*", documents.order),
    ("GET", "documents/*/edit", documents.show_editor),
    ("POST", "documents/*/edit", documents.save),
    ("GET", "documents/*/versions/*", documents.show_version),
    ("POST", "documents/*/versions/*", documents.order_version),
    ("GET", "approvals", approvals.show_list),
    ("GET", "approvals/*/*/*", approvals.show),
    ("POST", "approvals/*/*/*", approvals.decide),
    ("GET", "outbox", outbox.show_list),
    ("POST", "outbox", outbox.order_many),
    ("GET", "outbox/bulk/*", bulk.show_progress),
    ("POST", "outbox/bulk/*", bulk.stop),
    ("GET", "outbox/*", outbox.show),
    ("POST", "outbox/*", outbox.order),
    ("GET", "kinds", kinds.show),
    ("POST", "kinds", kinds.order),
    ("GET", "workers", workers.show),
    ("GET", "operations", operations.show_list),
    ("POST", "operations", operations.call),
    ("GET", "plugins", plugins.show),
    ("POST", "plugins", plugins.load),
    ("GET", "accounts", accounts.show),
    ("GET", "accounts/callback", accounts.finish),
    ("POST", "accounts", accounts.order),
    ("GET", "webhooks", webhooks.show),
    ("POST", "webhooks", webhooks.redeliver),
    ("POST", "saved", saved.save),
    ("POST", "saved/*", saved.delete),
    ("GET", "audit", audit.show),
    ("GET", "audit/csv", audit.export),
    ("GET", "access", access.show),
    ("POST", "access/sessions/*", access.end_session),
    ("POST", "access/tokens/*", access.revoke_token),
)
_TABS = (
    ("Home", ""),
    ("Executions", "executions"),
    ("Workflows", "workflows"),
    ("Approvals", "approvals"),
    ("Outbox", "outbox"),
    ("Kinds", "kinds"),
    ("Workers", "workers"),
    ("Plugins", "plugins"),
    ("Webhooks", "webhooks"),
)
# What belongs to all tenants together is no page of one.
_OF_EVERYBODY = ("kinds", "workers", "plugins", "webhooks")
_TABS_OF_ADMINS = (("Audit", "audit"), ("Access", "access"))
# What stands below another tab.
_BELOW = {"documents": "workflows"}
_STATUSES = {
    ErrorCodes.NOT_FOUND: 404, ErrorCodes.INVALID_ARGUMENT: 400, ErrorCodes.PERMISSION_DENIED: 403,
    ErrorCodes.FAILED_PRECONDITION: 409, ErrorCodes.UNAVAILABLE: 503,
}  # fmt: skip


class Site:
    """
    The operators' pages of *kernel*, under *title*; it knows no web framework.

    *operations* names those that may be called by a form, or patterns (``slack.*``); an
    `OperationDesk` has bounds of the host's. Where the code *reloads*, every page may change by
    itself. *webhooks* is where `webhook_app` answers: an address, or a path on the pages' own host;
    or a function that returns it for a connector and its trigger, or None. *local* converts a time
    to the readers' zone; without it times are in UTC.
    """

    def __init__(
        self,
        kernel: Kernel,
        title: str = "automate",
        *,
        operations: Iterable[str] | OperationDesk = (),
        reloads: bool = False,
        webhooks: str | WebhookPlaces | None = None,
        local: Callable[[datetime], datetime] = formats.utc,
    ) -> None:
        if not isinstance(operations, OperationDesk):
            operations = OperationDesk(ExposedOperations(kernel, several(operations)))
        self.kernel = kernel
        self.title = title
        self.operations: OperationDesk | None = operations if operations.exposed.allowed else None
        """The operations that may be called by a form."""
        self._history = ActivityHistory(kernel)
        self.broken = ""
        """A text that every page shows above all else: why it isn't what it should be."""
        self._reloads, self._local = reloads, local
        self.webhooks: str | WebhookPlaces | None = webhooks
        """The place where webhooks are received; None if it is unknown."""
        self._trail = OrderTrail(kernel)
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("automate_pages"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        statuses = {each.__name__: each for each in (ItemStatus, ExecutionStatus, StepStatus)}
        self._templates.globals.update(statuses)
        names = ("badge", "duration", "mark", "number", "short_id", "shorten", "tone")
        self._templates.filters.update({name: getattr(formats, name) for name in names})
        self._templates.filters["ago"] = partial(formats.ago, local=local)
        self._templates.filters["cleaned"] = kernel.redactor.redact
        self._templates.filters["redacted"] = lambda text: (
            formats.shown_text(kernel, text, 300).text
        )

    def answer(self, request: PageRequest) -> Answer:
        """
        Return the page at the request's path, or what its order did; never raises.

        An order is in the audit trail before it is carried out, or else it is not.
        """
        request = replace(
            request, operations=self.operations, history=self._history, webhooks=self.webhooks,
            local=self._local,
        )  # fmt: skip
        if request.method != "POST" or not request.may("view"):
            return self._answered(request)
        try:
            begun = self._trail.begin(request)
        except AutomateError as error:
            return self._failed(request, error)
        return self._trail.end(begun, request, self._answered(request))

    def _answered(self, request: PageRequest) -> Answer:
        try:
            view, place = _route_of(request)
            request.require("view")
            return view(request, *place)
        except PageError as error:
            return _problem(error.status, error.text)
        except AutomateError as error:
            return self._failed(request, error)

    def _failed(self, request: PageRequest, error: AutomateError) -> Answer:
        if request.method == "POST":
            text = formats.shown_text(self.kernel, str(error)).text
            return OrderAnswer(request.url(*path_parts(request.path)), text, "bad")
        status = _STATUSES.get(error.code, 500)
        text, hint = (
            formats.shown_text(self.kernel, each).text for each in (error.message, error.hint)
        )
        return _problem(status, text, hint)

    def is_live(self, page: PageAnswer) -> bool:
        """Return True if *page* may change by itself."""
        return page.live or self._reloads

    def render(self, request: PageRequest, page: PageAnswer, **frame: Any) -> str:
        """
        Return *page* as HTML; *frame* is what the host adds: ``csrf`` and ``notice``.

        With ``framed`` it is what stands inside a page of the host's own.
        """
        here = (path_parts(request.path) or ("",))[0]
        here = _BELOW.get(here, here)
        context: Mapping[str, Any] = {
            **page.context,
            "site": self.title,
            "title": page.title,
            "crumbs": page.crumbs,
            # The answer to an order is no page that could be looked at again.
            "live": self.is_live(page) and request.method != "POST",
            "broken": self.broken,
            "request": request,
            "user": request.user,
            "url": request.url,
            "tabs": [
                PageLink(label, request.url(*filter(None, [path])), path == here)
                for label, path in self._tabs(request)
            ],
            "saved": saved.saved_bar(request) if page.status == HTTPStatus.OK else None,
            "framed": False,
            **frame,
        }
        return self._templates.get_template(page.template).render(context)

    def _tabs(self, request: PageRequest) -> Iterator[tuple[str, str]]:
        everybody = request.user.tenant is None
        for label, path in _TABS:
            if request.may("view", path or "home") and (everybody or path not in _OF_EVERYBODY):
                yield label, path
        if self.operations is not None and request.may("start", "operations"):
            yield "Operations", "operations"
        for label, path in _TABS_OF_ADMINS:
            if request.may("administer", path) or request.may("review", path):
                yield label, path

    def render_alone(self, template: str, base: str, **context: Any) -> str:
        """Return *template* as HTML for who isn't logged in, with the pages' root at *base*."""
        page = self._templates.get_template(template)
        return page.render(site=self.title, base=base, **context)


def _problem(status: int, text: str, hint: str = "") -> PageAnswer:
    titles = {403: "Not allowed", 404: "Not found", 503: "The database is away"}
    return PageAnswer(
        "problem.html",
        titles.get(status, "That didn't work"),
        {"lines": [f"{line[:1].upper()}{line[1:]}." for line in (text, hint) if line]},
        status=status,
    )


def _route_of(request: PageRequest) -> tuple[View, list[str]]:
    """Return the view at the request's path, and the parts of it that the address leaves open."""
    parts, methods = path_parts(request.path), set()
    for method, pattern, view in _ROUTES:
        wanted = tuple(filter(None, pattern.split("/")))
        if len(wanted) != len(parts):
            continue
        pairs = list(zip(wanted, parts, strict=True))
        if all(name in ("*", part) for name, part in pairs):
            methods.add(method)
            if method == request.method:
                return view, [part for name, part in pairs if name == "*"]
    if methods:
        raise PageError(405, f"use {' or '.join(sorted(methods))}")
    raise PageError(404, "there is no such page")

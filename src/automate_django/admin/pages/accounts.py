"""The page of accounts: a person connects a plugin to an account at its service, and ends that."""

from __future__ import annotations

import time
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.cache import cache
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils.cache import add_never_cache_headers
from django.views.decorators.http import require_GET

from automate_django.admin.pages.access import record, require_operator
from automate_django.admin.pages.base import Link, PageSection
from automate_django.admin.pages.display import shown_text
from automate_django.connections import non_atomic
from automate_django.kernel import get_kernel
from automate_kernel.access.accounts import ACCOUNT_KINDS
from automate_kernel.base.errors import AutomateError
from automate_kernel.operations.account import (
    Account,
    Consent,
    require_client,
    state_in,
)
from automate_pages.plugin_accounts import plugin_accounts

_SESSION_KEY = "automate_consents"
_CONSENT_SECONDS, _MOST_CONSENTS = 600, 5


class AccountPages(PageSection):
    """
    The accounts of the plugins, by OAuth 2: their state, and the buttons to connect and end them.

    Each is connected once for the application, and once for each tenant. The pages are for
    operators, who choose whose accounts they see by the tenant in the page's address. A service's
    answer counts once, in the session that asked, for the user who asked, within ten minutes.
    Tokens go to the secrets, and are shown by no page.
    """

    current = "plugins"

    def urls(self) -> list[URLPattern]:
        """Return the list, the two buttons, and the address that services answer to."""
        owner, one = self.owner, "accounts/<str:kind>/<str:key>"
        callback = owner.own_path(
            "accounts/callback/", require_GET(self.callback_view), "automate_account_callback"
        )
        return [
            owner.get("accounts/", self.list_view, "automate_accounts"),
            callback,
            owner.post(f"{one}/connect/", self.connect_view, "automate_account_connect"),
            owner.post(f"{one}/disconnect/", self.disconnect_view, "automate_account_disconnect"),
        ]

    def list_view(self, request: HttpRequest) -> TemplateResponse:
        """Show the accounts, with the address that a service has to know."""
        require_operator(request)
        tenant = _tenant(request.GET)
        shown = [
            {
                "of": each,
                "error": shown_text(each.status.error if each.status else "", 500),
                "problem": shown_text(each.problem, 500),
                "connect_url": self.url("automate_account_connect", each.kind, each.key),
                "disconnect_url": self.url("automate_account_disconnect", each.kind, each.key),
            }
            for each in plugin_accounts(get_kernel(), tenant)
        ]
        page = self.page(
            request,
            "accounts.html",
            "Accounts",
            accounts=shown,
            tenant=tenant,
            list_url=self.url("automate_accounts"),
            callback_url=self._callback_url(request),
            crumbs=[Link("Plugins", self.url("automate_plugins"))],
        )
        add_never_cache_headers(page)
        return page

    def connect_view(self, request: HttpRequest, kind: str, key: str) -> HttpResponse:
        """Send the browser to the service, and keep what proves its answer in the session."""
        require_operator(request)
        tenant = _tenant(request.POST)
        try:
            account = _account(kind, key, tenant)
            require_client(account, get_kernel().secrets)  # better now than after a person's work
            consent = account.begin(self._callback_url(request))
        except AutomateError as error:
            return self._back(request, tenant, f"{_whose(key, tenant)} can't be connected", error)
        kept = {
            "kind": kind,
            "key": key,
            "tenant": tenant,
            "user": str(request.user.pk),
            "until": time.time() + _CONSENT_SECONDS,
            "url": consent.url,
            "redirect_uri": consent.redirect_uri,
            "private": dict(consent.private),
        }
        waiting = [*request.session.get(_SESSION_KEY, {}).items()][-(_MOST_CONSENTS - 1) :]
        request.session[_SESSION_KEY] = {**dict(waiting), consent.state: kept}
        return HttpResponseRedirect(consent.url)

    # No transaction of the request's own: the service is asked here, which takes its time.
    @non_atomic
    def callback_view(self, request: HttpRequest) -> HttpResponse:
        """Take the service's answer, store the tokens, and show the list."""
        require_operator(request)
        kept = _take(request)
        if kept is None:
            messages.error(
                request, "This answers no question that was asked here: begin again with Connect."
            )
            return self._to_list(None)
        key, tenant = kept["key"], kept["tenant"]
        consent, whose = (
            Consent(kept["url"], kept["redirect_uri"], kept["private"]),
            _whose(key, tenant),
        )
        try:
            account = _account(kept["kind"], key, tenant)
            answer = request.build_absolute_uri()
            by = request.user.get_username()
            account.finish(consent, answer, get_kernel().secrets, by=by)
        except AutomateError as error:
            about = {"plugin": key, "tenant": tenant, "code": str(error.code)}
            record(request, "connect_failed", about=key, **about)
            return self._back(request, tenant, f"{whose} was not connected", error)
        record(request, "connect", about=key, plugin=key, tenant=tenant, secret=account.key)
        messages.success(request, f"{whose} is connected.")
        return self._to_list(tenant)

    def disconnect_view(self, request: HttpRequest, kind: str, key: str) -> HttpResponse:
        """Delete the tokens of an account."""
        require_operator(request)
        tenant = _tenant(request.POST)
        whose = _whose(key, tenant)
        try:
            account = _account(kind, key, tenant)
            account.disconnect(get_kernel().secrets)
        except AutomateError as error:
            return self._back(request, tenant, f"{whose} was not disconnected", error)
        record(request, "disconnect", about=key, plugin=key, tenant=tenant, secret=account.key)
        messages.success(request, f"{whose} is disconnected: its tokens were deleted here.")
        return self._to_list(tenant)

    def _callback_url(self, request: HttpRequest) -> str:
        return request.build_absolute_uri(self.url("automate_account_callback"))

    def _back(
        self, request: HttpRequest, tenant: str | None, what: str, error: AutomateError
    ) -> HttpResponse:
        text = shown_text(f"{what}: {error}", 500)
        messages.error(request, text.text)
        return self._to_list(tenant)

    def _to_list(self, tenant: str | None) -> HttpResponse:
        query = f"?{urlencode({'tenant': tenant})}" if tenant is not None else ""
        back = HttpResponseRedirect(self.url("automate_accounts") + query)
        # The code is in this page's address: nobody else may learn it from there.
        back["Referrer-Policy"] = "no-referrer"
        add_never_cache_headers(back)
        return back


def _take(request: HttpRequest) -> Any:
    """Return what was kept for the question that *request* answers, once; None for any other."""
    waiting = dict(request.session.get(_SESSION_KEY, {}))
    state = state_in(request.get_full_path())
    kept = waiting.pop(state, None) if state else None
    if kept is None:
        return None
    request.session[_SESSION_KEY] = waiting
    request.session.save()
    # Two requests may have read the session at once.
    name = f"automate-consent-{sha256(state.encode()).hexdigest()}"
    is_first = cache.add(name, 1, 2 * _CONSENT_SECONDS)
    mine = kept["user"] == str(request.user.pk) and kept["until"] > time.time()
    return kept if is_first and mine else None


def _tenant(given: QueryDict) -> str | None:
    """Return the tenant that is asked for; None for the application."""
    return given.get("tenant", "").strip() or None


def _whose(key: str, tenant: str | None) -> str:
    return f"The account of {key}" + (f" for the tenant {tenant}" if tenant is not None else "")


def _account(kind: str, key: str, tenant: str | None) -> Account:
    """Return the account of a plugin; raises ``Http404`` where there is none."""
    kernel = get_kernel()
    if kind not in ACCOUNT_KINDS or key not in kernel.plugins.registry(kind):
        raise Http404("There is no such plugin.")
    account: Account | None = kernel.operations.instance(kind, key).oauth()
    if account is None:
        raise Http404("This plugin is not connected to accounts.")
    return account.for_tenant(tenant)

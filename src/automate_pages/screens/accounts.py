"""The accounts of plugins at their services: the state of each, connect it, end it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from automate_kernel.base.errors import AutomateError
from automate_pages.exchange import (
    OrderAnswer,
    PageAnswer,
    PageError,
    PageLink,
    PageRequest,
    sent_text,
)
from automate_pages.formats import ShownValue, shown_text
from automate_pages.plugin_accounts import PluginAccount, plugin_accounts
from automate_pages.screens.kinds import require_everybody


@dataclass(frozen=True, slots=True)
class ShownAccount:
    """An account with its *state* in a word, its last error, and the *command* that connects it."""

    of: PluginAccount
    state: str
    error: ShownValue
    command: str

    @property
    def connected(self) -> bool:
        """True if it has tokens, whether they still count or not."""
        return self.of.status is not None and self.of.status.connected


def show(request: PageRequest) -> PageAnswer:
    """Show the accounts of the application, or of the tenant in the address."""
    require_everybody(request)
    tenant = request.text("tenant")
    return PageAnswer(
        "accounts.html",
        "Accounts",
        {
            "accounts": [
                _shown(request, each, tenant)
                for each in plugin_accounts(request.kernel, tenant or None)
            ],
            "tenant": tenant,
            "connects": request.may("administer"),
            "callback": _callback(request),
        },
        crumbs=[PageLink("Plugins", request.url("plugins"))],
    )


def _shown(request: PageRequest, account: PluginAccount, tenant: str) -> ShownAccount:
    status = account.status
    state = "BROKEN" if account.problem or status is None else "NOT CONNECTED"
    if status is not None and not account.problem:
        state = "ENDED" if status.ended else "CONNECTED" if status.connected else state
    words = ["automate", "connect", account.key, *(["--tenant", tenant] if tenant else [])]
    error = account.problem or (status.error if status is not None else "")
    return ShownAccount(account, state, shown_text(request.kernel, error, 500), shlex.join(words))


def _callback(request: PageRequest) -> str:
    return request.origin + request.url("accounts", "callback")


def order(request: PageRequest) -> PageAnswer | OrderAnswer:
    """Begin to connect an account, or delete its tokens: the service doesn't learn of that."""
    require_everybody(request)
    request.require("administer")
    wanted, kind, key, tenant = (
        sent_text(request.form, name) for name in ("order", "kind", "name", "tenant")
    )
    accounts = request.kernel.accounts
    if wanted == "disconnect":
        accounts.find(kind, key, tenant or None).disconnect(request.kernel.secrets)
        words = f"{_whose(key, tenant)} is disconnected: its tokens were deleted here."
        return OrderAnswer(request.url("accounts", tenant=tenant), words)
    if wanted != "connect":
        raise PageError(400, "there is no such order")
    asked = accounts.begin(
        kind, key, tenant or None, _callback(request), by=request.user.name,
        session=request.session,
    )  # fmt: skip
    # A link: to be led elsewhere by a form is what our Content-Security-Policy forbids.
    return PageAnswer(
        "connect.html",
        f"Connect {key}",
        {"whose": _whose(key, tenant), "consent": asked.url, "host": urlsplit(asked.url).netloc},
        crumbs=[PageLink("Accounts", request.url("accounts", tenant=tenant))],
        done=True,
        kept=asked.kept,
    )


def finish(request: PageRequest) -> OrderAnswer:
    """Take the answer of a service, which the browser brings, and store the tokens."""
    require_everybody(request)
    request.require("administer")
    if request.part:
        raise PageError(404, "this page has no part that changes")
    query = urlencode(
        [(name, each) for name in request.query for each in request.query.every(name)]
    )
    user, audit = request.user, request.kernel.audit
    entry = audit.write(
        "connected", actor=user.name, actor_id=user.id or None, model="account", outcome="asked"
    )
    try:
        done = request.kernel.accounts.finish(
            query, request.kept, by=user.name, session=request.session
        )
    except AutomateError as error:
        audit.conclude(entry, "failed", details={"code": str(error.code)})
        text = shown_text(request.kernel, f"The account was not connected: {error}", 500).text
        return OrderAnswer(request.url("accounts"), text, "bad")
    audit.conclude(
        entry, "done", details={"plugin": done.key, "tenant": done.tenant, "secret": done.secret}
    )
    words = f"{_whose(done.key, done.tenant)} is connected."
    return OrderAnswer(request.url("accounts", tenant=done.tenant or ""), words)


def _whose(key: str, tenant: str | None) -> str:
    return f"The account of {key}" + (f" for the tenant {tenant}" if tenant else "")

"""The accounts of plugins at their services: the state of each, its remedy, and its end."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from automate_kernel.plugins.plugins import Plugins
from automate_pages.exchange import (
    OrderAnswer,
    PageAnswer,
    PageError,
    PageLink,
    PageRequest,
    sent_text,
)
from automate_pages.formats import ShownValue, shown_text
from automate_pages.plugin_accounts import ACCOUNT_KINDS, PluginAccount, plugin_accounts
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
            "ends": request.user.may("administer"),
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


def disconnect(request: PageRequest) -> OrderAnswer:
    """Delete the tokens of an account; the service doesn't learn of it."""
    require_everybody(request)
    request.require("administer")
    kind, key, tenant = (sent_text(request.form, name) for name in ("kind", "name", "tenant"))
    plugins: Plugins = request.kernel.plugins
    account = None
    if kind in ACCOUNT_KINDS and key in plugins.registry(kind):
        account = request.kernel.operations.instance(kind, key).oauth()
    if account is None:
        raise PageError(404, "this plugin is not connected to accounts")
    account.for_tenant(tenant or None).disconnect(request.kernel.secrets)
    words = f"The account of {key} is disconnected: its tokens were deleted here."
    return OrderAnswer(request.url("accounts", tenant=tenant), words)

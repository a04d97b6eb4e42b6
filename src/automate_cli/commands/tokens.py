"""``automate tokens``: make, list and revoke the tokens of people and services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automate_cli import inputs
from automate_cli.command import Commands, Context, DataCommand
from automate_cli.inputs import argument, option
from automate_cli.output import Columns, ago, attributes, time_of
from automate_kernel.access.roles import ROLES, SCOPES
from automate_kernel.base.errors import ConfigError

if TYPE_CHECKING:
    from automate_kernel.access.tokens import AccessToken
    from automate_kernel.kernel import Kernel

app: Commands = Commands("tokens", "Make, list and revoke tokens: to log in, and for the API.")
hosted: Commands = Commands("tokens", "Make, list and revoke tokens of the API.")
"""The commands on an application's kernel, whose tokens may work for a user of its own."""


def token_data(token: AccessToken) -> dict[str, Any]:
    """Return a token without its text, ready for JSON."""
    return {
        "prefix": token.shown,
        **attributes(
            token, "name", "user_id", "tenant_id", "all_tenants", "roles", "scopes", "state"
        ),
        **attributes(token, "created_at", "expires_at", "last_used_at", "revoked_at"),
    }


_COLUMNS: Columns = {
    "TOKEN": "shown",
    "NAME": lambda each: f"{each.name} (user {each.user_id})" if each.user_id else each.name,
    "TENANT": lambda each: "(all)" if each.all_tenants else each.tenant_id,
    "MAY": lambda each: " ".join((*each.roles, *each.scopes)),
    "USED": lambda each: ago(each.last_used_at) if each.last_used_at else "never",
    "UNTIL": lambda each: time_of(each.expires_at),
    "STATE": "state",
}


_NEW_NAME = argument("Whose it is: on the pages it is the user's name.")
_ROLE = option([], f"What it may do: {', '.join(ROLES)}; may be repeated.")
_SCOPE = option(
    [], "For the API alone: events:write, outbox:*, *; may be repeated.", metavar="SCOPE"
)
_DAYS = option(None, "The days until it ends; without it, never.", min=1, max=36_500)
_TENANT = option(None, "The tenant whose rows it sees; without it, those of all.")


@app.called(
    "automate tokens new ada --role operator",
    "automate tokens new shop --role author --tenant acme --days 90",
    "automate tokens new exporter --scope executions:read --days 1",
)
def new(
    context: Context,
    name: str = _NEW_NAME,
    role: list[str] = _ROLE,
    scope: list[str] = _SCOPE,
    tenant: str | None = _TENANT,
    days: int | None = _DAYS,
) -> None:
    """
    Make a token and print it, once: only its SHA-256 is stored.

    A token with a role opens the pages, where its name is the user's, and the API. Standard output
    has the token alone, so that it can be piped into a secrets store.
    """
    _make(context, name, roles=role, scopes=scope, tenant_id=tenant, days=days)


@hosted.called(
    'automate tokens new exporter --scope "executions:read" --tenant acme --days 90',
    "automate tokens new ada --role operator --user ada",
    name="new",
)
def new_for_user(
    context: Context,
    name: str = _NEW_NAME,
    role: list[str] = _ROLE,
    scope: list[str] = _SCOPE,
    tenant: str | None = _TENANT,
    days: int | None = _DAYS,
    user: str | None = option(
        None, "The application's user it works for, who bounds what it may do and see."
    ),
) -> None:
    """
    Make a token of the API and print it, once: only its SHA-256 is stored.

    Standard output has the token alone, so that it can be piped into a secrets store.
    """
    user_id = None if user is None else context.session.user_id(user)
    _make(context, name, roles=role, scopes=scope, tenant_id=tenant, days=days, user_id=user_id)


def _make(
    context: Context,
    name: str,
    *,
    roles: list[str],
    scopes: list[str],
    tenant_id: str | None,
    days: int | None,
    user_id: str | None = None,
) -> None:
    if not roles and not scopes:
        raise ConfigError(
            "a token needs a role or a scope",
            hint=f"--role {' or '.join(ROLES[:2])}; scopes are {', '.join(SCOPES)}",
        )
    kernel = context.session.whole
    with kernel.storage.begin() as rows:
        token, text = kernel.tokens.new(
            name, roles=roles, scopes=scopes, tenant_id=tenant_id, all_tenants=user_id is None,
            expires_in_seconds=None if days is None else days * 86_400.0, user_id=user_id,
            transaction=rows.native,
        )  # fmt: skip
        _write(context, kernel, "new", token, rows.native)
    context.out.note(f"{token.shown} of {name}: keep it now, it can't be shown again")
    context.out.data({**token_data(token), "token": text})
    context.out.line(text)


@app.command("list", cls=DataCommand, hidden=True)
@hosted.called("automate tokens ls --tenant acme")
@app.called("automate tokens ls", "automate tokens ls --tenant acme --json")
def ls(
    context: Context,
    tenant: str | None = inputs.TENANT,
    limit: int = inputs.LIMIT,
) -> None:
    """List tokens, the latest first. No token's text is shown."""
    found = context.session.look().whole.tokens.page(tenant_id=tenant, limit=limit)
    context.out.listing(found.tokens, _COLUMNS, "there are no tokens", token_data)


@hosted.called("automate tokens revoke atk_1a2b3c4d5e6f")
@app.called("automate tokens revoke atk_1a2b3c4d5e6f")
def revoke(
    context: Context,
    prefix: list[str] = argument("The beginning that ls shows: atk_1a2b3c4d5e6f."),
) -> None:
    """End tokens at once, and the sessions that were begun with them."""
    kernel, revoked = context.session.whole, []
    for each in prefix:
        token = kernel.tokens.get(each)
        if token is None:
            raise context.missing(f"token {each!r}", "tokens ls")
        with kernel.storage.begin() as rows:
            ended = kernel.tokens.revoke(token.prefix, transaction=rows.native)
            _write(context, kernel, "revoke", token, rows.native, changed=ended)
        revoked += [token.shown] if ended else []
        context.out.line(f"{token.shown} of {token.name}: {'' if ended else 'was '}revoked")
    context.out.data({"revoked": revoked})


def _write(
    context: Context, kernel: Kernel, action: str, token: AccessToken, transaction: Any,
    *, changed: bool = True,
) -> None:  # fmt: skip
    context.audited(
        kernel, action, "token", token.prefix, token.name, token.tenant_id, changed=changed,
        transaction=transaction, roles=list(token.roles), scopes=list(token.scopes),
    )  # fmt: skip

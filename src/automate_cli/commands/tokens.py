"""``automate tokens``: make, list and revoke the tokens of people and services."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any

from automate_cli import inputs
from automate_cli.command import Commands, Context, DataCommand
from automate_cli.inputs import argument, option
from automate_cli.output import Columns, ago, attributes, time_of
from automate_kernel.access.roles import ROLES, SCOPES
from automate_kernel.base.errors import ConfigError

if TYPE_CHECKING:
    from automate_kernel.access.audit import Outcome
    from automate_kernel.access.tokens import AccessToken
    from automate_kernel.kernel import Kernel

app: Commands = Commands("tokens", "Make, list and revoke tokens: to log in, and for the API.")


def token_data(token: AccessToken) -> dict[str, Any]:
    """Return a token without its text, ready for JSON."""
    return {
        "prefix": token.shown,
        **attributes(token, "name", "tenant_id", "all_tenants", "roles", "scopes", "state"),
        **attributes(token, "created_at", "expires_at", "last_used_at", "revoked_at"),
    }


_COLUMNS: Columns = {
    "TOKEN": "shown",
    "NAME": "name",
    "TENANT": lambda each: "(all)" if each.all_tenants else each.tenant_id,
    "MAY": lambda each: " ".join((*each.roles, *each.scopes)),
    "USED": lambda each: ago(each.last_used_at) if each.last_used_at else "never",
    "UNTIL": lambda each: time_of(each.expires_at),
    "STATE": "state",
}


@app.called(
    "automate tokens new ada --role operator",
    "automate tokens new shop --role author --tenant acme --days 90",
    "automate tokens new exporter --scope executions:read --days 1",
)
def new(
    context: Context,
    name: str = argument("Whose it is: on the pages it is the user's name."),
    role: list[str] = option([], f"What it may do: {', '.join(ROLES)}; may be repeated."),
    scope: list[str] = option(
        [], "For the API alone: events:write, outbox:*, *; may be repeated.", metavar="SCOPE"
    ),
    tenant: str | None = option(None, "The tenant whose rows it sees; without it, those of all."),
    days: int | None = option(
        None, "The days until it ends; without it, never.", min=1, max=36_500
    ),
) -> None:
    """
    Make a token and print it, once: only its SHA-256 is stored.

    A token with a role opens the pages, where its name is the user's, and the API. Standard output
    has the token alone, so that it can be piped into a secrets store.
    """
    if not role and not scope:
        raise ConfigError(
            "a token needs a role or a scope",
            hint=f"--role {' or '.join(ROLES[:2])}; scopes are {', '.join(SCOPES)}",
        )
    kernel = context.session.whole
    with kernel.storage.begin() as rows:
        token, text = kernel.tokens.new(
            name, roles=role, scopes=scope, tenant_id=tenant,
            expires_in_seconds=None if days is None else days * 86_400.0, transaction=rows.native,
        )  # fmt: skip
        _write(kernel, "new", token, rows.native)
    context.out.note(f"{token.shown} of {name}: keep it now, it can't be shown again")
    context.out.data({**token_data(token), "token": text})
    context.out.line(text)


@app.command("list", cls=DataCommand, hidden=True)
@app.called("automate tokens ls", "automate tokens ls --tenant acme --json")
def ls(
    context: Context,
    tenant: str | None = inputs.TENANT,
    limit: int = inputs.LIMIT,
) -> None:
    """List tokens, the latest first. No token's text is shown."""
    found = context.session.look().whole.tokens.page(tenant_id=tenant, limit=limit)
    context.out.listing(found.tokens, _COLUMNS, "there are no tokens", token_data)


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
            _write(kernel, "revoke", token, rows.native, "done" if ended else "nothing")
        revoked += [token.shown] if ended else []
        context.out.line(f"{token.shown} of {token.name}: {'' if ended else 'was '}revoked")
    context.out.data({"revoked": revoked})


def _write(
    kernel: Kernel, action: str, token: AccessToken, transaction: Any, outcome: Outcome = "done"
) -> None:
    try:
        who = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        who = "?"
    kernel.audit.write(
        action, actor=who, actor_id="command line", model="token", object_id=token.prefix,
        object_repr=token.name, tenant_id=token.tenant_id, outcome=outcome,
        details={"roles": list(token.roles), "scopes": list(token.scopes)},
        transaction=transaction,
    )  # fmt: skip

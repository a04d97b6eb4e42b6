"""``automate secret-table``: the encrypted table of an application."""

from __future__ import annotations

import sys
from datetime import datetime, timezone

import typer

from automate_cli.command import Commands, Context, TextCommand
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_secrets.key_ring import new_key
from automate_secrets.table import SecretTableBackend

_NAME = typer.Argument(..., help="The secret's name.", show_default=False)

app: Commands = Commands("secret-table", "Keep secrets in an encrypted table.")


@app.callback()
def _root() -> None:
    """Keep secrets in an encrypted table. Values are never shown."""


@app.called(
    "automate secret-table new-key",
    "automate secret-table new-key 2027",
    cls=TextCommand,
    name="new-key",
)
def new_key_command(
    context: Context,
    key_id: str = typer.Argument(None, help="Its id; by default the date.", show_default=False),
) -> None:
    """
    Print a new key.

    Put it before the table's other keys, run automate secret-table rotate, and take those away.
    """
    context.out.note("keep it where the database's backups are not")
    typer.echo(new_key(key_id or datetime.now(timezone.utc).strftime("%Y-%m-%d")))


@app.called("automate secret-table create", cls=TextCommand)
def create(context: Context) -> None:
    """Make the tables, if they aren't there."""
    _table(context).create()
    typer.echo("the tables are there")


@app.called("automate secret-table ls", "automate secret-table ls --json")
def ls(context: Context) -> None:
    """List the secrets, without their values."""
    rows = [
        {
            "name": each.name,
            "key": each.key_id,
            "version": each.version,
            "updated_at": each.updated_at.isoformat(),
        }
        for each in _table(context).records()
    ]
    if context.out.json:
        context.out.data(rows)
        return
    for row in rows:
        typer.echo("  ".join(map(str, row.values())))


@app.called("automate secret-table set shop/api-key < key.txt", cls=TextCommand, name="set")
def set_command(context: Context, name: str = _NAME) -> None:
    """
    Set a secret to the value on standard input, or to one that is typed and not shown.

    A line break at its end is not part of it.
    """
    table = _table(context)
    if sys.stdin.isatty():
        value = str(typer.prompt("value", hide_input=True))
    else:
        value = sys.stdin.read().rstrip("\r\n")
    table.set_secret(name, value)
    typer.echo(f"{name} is set")


@app.called("automate secret-table rm shop/api-key", cls=TextCommand)
def rm(context: Context, name: str = _NAME) -> None:
    """Remove a secret."""
    table = _table(context)
    if name not in {each.name for each in table.records()}:
        raise context.missing(f"secret {name!r} in the table", "secret-table ls")
    table.delete_secret(name)
    typer.echo(f"{name} is removed")


@app.called("automate secret-table rotate", cls=TextCommand)
def rotate(context: Context) -> None:
    """Encrypt all secrets with the first of the table's keys."""
    table = _table(context)
    typer.echo(f"{table.rotate()} encrypted again")
    used = sorted({each.key_id for each in table.records()})
    typer.echo(f"keys in use: {', '.join(used) or 'none'}")


def _table(context: Context) -> SecretTableBackend:
    kernel = context.session.in_memory(workflows=False)
    found = [
        each for each in kernel.secrets.backends.values() if isinstance(each, SecretTableBackend)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION, "the settings name more than one secret table"
        )
    raise ConfigError(
        "the settings name no secret table",
        hint='secrets = [{backend = "secret_table", url = "sqlite:////srv/shop.sqlite3"}]',
    )

"""``automate openapi``: typed modules from documents."""

from __future__ import annotations

import typer

from automate_cli.command import Commands, Context, TextCommand
from automate_cli.inputs import option
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_openapi.actions import Actions
from automate_openapi.connector import OpenApiConnector

_ONLY = option([], "Only these actions; * stands for any text. Repeatable.", "--only")

app: Commands = Commands("openapi", "Work with connectors that come from OpenAPI documents.")


@app.callback()
def _root() -> None:
    """Work with connectors that come from OpenAPI documents."""


@app.called(
    "automate openapi freeze github > github_api.py",
    "automate openapi freeze github --only 'issues.*' --only 'repos.get*' > github_api.py",
    cls=TextCommand,
)
def freeze(
    context: Context,
    key: str = typer.Argument(..., help="The connector's key.", show_default=False),
    only: list[str] = _ONLY,
) -> None:
    """
    Print a module with a typed method for each action of a connector.

    It is a subclass of OpenApiConnector: plugins = ["github=github_api:Github"] takes it in place
    of the class itself.
    """
    kernel = context.session.in_memory(workflows=False)
    connector = kernel.connector(key)
    if not isinstance(connector, OpenApiConnector):
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"the connector {key!r} doesn't come from an OpenAPI document",
        )
    own = kernel.operations.own_operations("connector", key)
    assert isinstance(own, Actions)  # noqa: S101 - what it returns, for the type checker
    from automate_openapi.freeze import frozen_module

    typer.echo(frozen_module(own, key=key, only=only or ("*",)), nl=False)

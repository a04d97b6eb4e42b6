"""``automate mcp``: operations and workflows for clients of MCP."""

from __future__ import annotations

from typing import Any

from automate_cli.command import Commands, Context, TextCommand
from automate_cli.inputs import flag, option
from automate_cli.output import log_to_stderr
from automate_kernel.base.errors import ConfigError
from automate_kernel.operations.schemas.checks import validation_problems
from automate_mcp.settings import ServeSettings

app: Commands = Commands("mcp", "Offer operations and workflows to clients of MCP.")


@app.callback()
def _root() -> None:
    """Offer operations and workflows to clients of MCP."""


@app.called(
    "automate mcp serve   # on standard input and output, for a client that starts it",
    "automate mcp serve --http --port 8765",
    "automate mcp serve --worker   # and run the workflows here",
    cls=TextCommand,
)
def serve(
    context: Context,
    http: bool = flag("--http", "Serve streamable HTTP, for clients with a token."),
    host: str = option("127.0.0.1", "The address to listen on."),
    port: int = option(8765, "The port; 0 takes a free one.", min=0, max=65535),
    worker: bool = flag("--worker", "Run a worker in this process, too."),
) -> None:
    """
    Serve what [commands.mcp] names, until it is stopped or the client leaves.

    Nothing is offered by default. A destructive operation waits for a person's approval. Workflows
    run in workers: start automate worker beside it, or give --worker.
    """
    settings = read_settings(context.session.settings["commands"].get("mcp", {}))
    kernel = context.session.whole
    # Standard output is the client's.
    log_to_stderr("debug" if context.debug else context.session.settings["log_level"])
    from automate_mcp.serving import serve_http, serve_stdio, working

    with working(kernel, wanted=worker):
        if http:
            serve_http(kernel, settings, host, port, ready=context.out.note)
        else:
            serve_stdio(kernel, settings)


def read_settings(given: Any) -> ServeSettings:
    """Return the settings in the table ``[commands.mcp]``; raises `ConfigError`."""
    from pydantic import ValidationError

    try:
        return ServeSettings.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(map(str, validation_problems(error, given, ServeSettings)))
        raise ConfigError(
            f"[commands.mcp] is not valid: {problems}", hint="the README lists its settings"
        ) from None

"""``automate emit``: put an event into the outbox."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from automate_kernel.cli.command import Context, command
from automate_kernel.cli.inputs import read_json
from automate_kernel.errors import ConfigError

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "emit",
        data=True,
        examples=(
            'automate emit order.created --payload \'{"id": 7, "total": 120}\'',
            "automate emit order.created --file order.json --idempotency-key order-7",
            "jq .order dump.json | automate emit order.created -",
        ),
    )(emit)


def emit(
    context: Context,
    name: Annotated[str, typer.Argument(help="What happened: order.created.")],
    source: Annotated[
        str | None, typer.Argument(metavar="[-]", help="A dash reads the payload from stdin.")
    ] = None,
    payload: Annotated[str | None, typer.Option(help="The payload as JSON.")] = None,
    file: Annotated[str | None, typer.Option(help="A file with it as JSON; - for stdin.")] = None,
    delay: Annotated[float, typer.Option(help="Seconds to wait before it counts.", min=0)] = 0.0,
    priority: Annotated[int, typer.Option(help="A point is worth an hour of waiting.")] = 0,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A second event with the same key is the first one.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="The tenant that it belongs to.")] = None,
) -> None:
    """
    Accept an event: workers start the workflows that wait for it.

    Prints the event's id.
    """
    from automate_kernel.cli.working import require_shared

    given = _payload(source, payload, file)
    kernel = context.session.plain
    require_shared(kernel)
    event_id = kernel.emit(
        name,
        given,
        source="cli",
        delay=delay,
        priority=priority,
        idempotency_key=idempotency_key,
        tenant_id=tenant,
    )
    context.out.data({"id": event_id, "name": name})
    context.out.line(event_id)


def _payload(source: str | None, payload: str | None, file: str | None) -> Any:
    if source not in (None, "-"):
        raise ConfigError(
            f"what is {str(source)[:40]!r} for?",
            hint="give the payload with --payload or --file, or - to read it from stdin",
        )
    given = [each for each in (payload, file, source) if each is not None]
    if len(given) > 1:
        raise ConfigError("give the payload once: with --payload, --file or -")
    if payload is not None:
        return read_json(payload, "--payload")
    return read_json(file or source) if given else None

"""``automate emit``: put an event into the outbox."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from automate_kernel.cli.definitions import Argument, Command, Context, Option
from automate_kernel.cli.inputs import duration, read_json
from automate_kernel.errors import ConfigError

__all__ = ["EMIT"]


def emit(
    context: Context,
    name: Annotated[str, Argument(help="What happened: order.created.")],
    given: Annotated[
        str | None,
        Argument(
            metavar="[PAYLOAD]", help="The payload as JSON; @FILE for a file with it, - for stdin."
        ),
    ] = None,
    payload: Annotated[str | None, Option(help="The payload as JSON.")] = None,
    file: Annotated[str | None, Option(help="A file with it as JSON; - for stdin.")] = None,
    delay: Annotated[
        str, Option(help="How long to wait before it counts: 90, 5m, 2h.", metavar="DURATION")
    ] = "0",
    priority: Annotated[int, Option(help="A point is worth an hour of waiting.")] = 0,
    idempotency_key: Annotated[
        str | None, Option(help="A second event with the same key is the first one.")
    ] = None,
    tenant: Annotated[str | None, Option(help="The tenant that it belongs to.")] = None,
    source: Annotated[str | None, Option(help="Who says so.")] = None,
    label: Annotated[
        list[str] | None,
        Option(
            help="A key to find it by, and what it starts; can be repeated.", metavar="NAME=VALUE"
        ),
    ] = None,
) -> None:
    """
    Accept an event: workers start the workflows that wait for it.

    Prints the event's id.
    """
    from automate_kernel.cli.host import require_shared

    content = _payload(given, payload, file)
    kernel = context.session.plain
    require_shared(kernel)
    event_id = kernel.emit(
        name,
        content,
        source=context.source if source is None else source,
        delay=duration(delay, "--delay"),
        priority=priority,
        idempotency_key=idempotency_key,
        tenant_id=tenant,
        labels=_labels(label or ()),
    )
    context.out.data({"id": event_id, "name": name})
    context.out.line(event_id)


def _labels(given: Iterable[str]) -> dict[str, str]:
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals:
            raise ConfigError(f"--label {each[:40]!r} has no value", hint="order=4711")
        found[name] = value
    return found


def _payload(given: Any, payload: Any, file: str | None) -> Any:
    if sum(each is not None for each in (given, payload, file)) > 1:
        raise ConfigError("give the payload once: as PAYLOAD, with --payload or with --file")
    if file is not None:
        return read_json(file)
    if payload is not None:
        return read_json(payload, "--payload") if isinstance(payload, str) else payload
    if not isinstance(given, str):
        return given  # nothing, or what a program gave
    if given == "-":
        return read_json("-")
    return read_json(given[1:]) if given.startswith("@") else read_json(given, "PAYLOAD")


EMIT = Command(
    "emit",
    emit,
    examples=(
        'automate emit order.created \'{"id": 7, "total": 120}\'',
        "automate emit order.created @order.json --idempotency-key order-7 --label order=7",
        "jq .order dump.json | automate emit order.created -",
    ),
    data=True,
)

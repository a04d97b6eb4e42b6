"""``automate find``: items and executions by a key of the host's own."""

from __future__ import annotations

from typing import Annotated

from automate_kernel.cli.definitions import Argument, Command, Context, Option

__all__ = ["FIND"]


def find(
    context: Context,
    label: Annotated[str, Argument(help="A label: order=4711, or 4711 under any name.")],
    tenant: Annotated[str | None, Option(help="Only what belongs to this tenant.")] = None,
    limit: Annotated[int, Option("--limit", "-n", help="How many of each.", min=1, max=1000)] = 20,
) -> None:
    """
    Find items and executions by a label, the newest first.

    Labels are given with an event, an item or an execution: the id of an order, say.
    """
    from automate_kernel.cli.views import execution_data, item_data, show_executions, show_items

    out, kernel = context.out, context.session.plain
    executions = kernel.executions.labelled(label, tenant_id=tenant, limit=limit)
    items = kernel.outbox.labelled(label, tenant_id=tenant, limit=limit)
    out.data(
        {
            "executions": [execution_data(each) for each in executions],
            "items": [item_data(each) for each in items],
        }
    )
    if not executions and not items:
        out.line(f"nothing has the label {label}")
        return
    if executions:
        show_executions(out, executions)
    if executions and items:
        out.line()
    if items:
        show_items(out, items)


FIND = Command(
    "find",
    find,
    examples=("automate find order=4711", "automate find 4711 --json"),
    data=True,
)

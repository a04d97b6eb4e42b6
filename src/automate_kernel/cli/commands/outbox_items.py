"""``automate outbox ls`` and ``show``: items, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from automate_kernel.cli.definitions import Argument, Context, Group, Option
from automate_kernel.errors import AutomateError, ErrorCodes

if TYPE_CHECKING:
    from automate_kernel.outbox import OutboxItem

__all__ = ["add_to_group", "found_item", "status_of"]

_Kind = Annotated[str | None, Option(help="Only items of this kind.")]
_Status = Annotated[
    str | None, Option(help="PENDING, RUNNING, RETRY, COMPLETED, FAILED or CANCELLED.")
]
_Tenant = Annotated[str | None, Option(help="Only items of this tenant.")]


def add_to_group(own: Group) -> None:
    """Add the commands."""
    own.command(
        "ls",
        also=("list",),
        examples=(
            "automate outbox ls --status FAILED",
            "automate outbox ls --kind automate.event --limit 100 --json",
        ),
    )(ls)
    own.command("show", examples=("automate outbox show 0193f0c2-…",))(show)


def ls(
    context: Context,
    status: _Status = None,
    kind: _Kind = None,
    tenant: _Tenant = None,
    limit: Annotated[int, Option("--limit", "-n", help="How many.", min=1)] = 20,
) -> None:
    """List items, the newest first."""
    from automate_kernel.cli.views import item_data, show_items

    found = context.session.plain.outbox.find(
        status=status_of(status), kind=kind, tenant_id=tenant, limit=limit
    )
    context.out.data([item_data(item) for item in found])
    show_items(context.out, found)


def status_of(given: str | None) -> str | None:
    """A status that was given, in capitals."""
    from automate_kernel.cli.inputs import one_of
    from automate_kernel.outbox.item import ItemStatus

    return one_of(given, ItemStatus, "--status")


def show(
    context: Context,
    item_id: Annotated[str, Argument(help="The item's id.", metavar="ID")],
) -> None:
    """Show an item with its payload and its last error."""
    from automate_kernel.cli.output import as_json
    from automate_kernel.cli.views import item_data

    item = found_item(context, item_id)
    data = item_data(item, whole=True)
    context.out.data(data)
    data["payload"] = as_json(data["payload"])
    data["headers"] = as_json(data["headers"]) if data["headers"] else None
    context.out.fields(data.items())


def found_item(context: Context, item_id: str) -> OutboxItem:
    """The item with this id; raises ``NOT_FOUND``."""
    item = context.session.plain.outbox.get(item_id)
    if item is None:
        raise AutomateError(
            ErrorCodes.NOT_FOUND,
            f"there is no item {item_id!r}",
            hint=f"{context.named('outbox ls')} lists them",
        )
    return item

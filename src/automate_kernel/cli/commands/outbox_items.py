"""``automate outbox ls`` and ``show``: items, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from automate_kernel.cli.definitions import Argument, Context, Group, Option
from automate_kernel.errors import AutomateError, ErrorCodes

if TYPE_CHECKING:
    from automate_kernel.outbox import OutboxItem

__all__ = ["add_to_group", "found_item", "status_of"]

_Kind = Annotated[str | None, Option(help="Only items of this kind.")]
_Status = Annotated[
    str | None, Option(help="PENDING, RUNNING, RETRY, COMPLETED, FAILED or CANCELLED.")
]
_Limit = Annotated[int, Option("--limit", "-n", help="How many.", min=1)]
_Tenant = Annotated[str | None, Option(help="Only items of this tenant.")]


def add_to_group(own: Group) -> None:
    """Add the commands."""
    own.command(
        "ls",
        also=("list",),
        examples=(
            "automate outbox ls --status FAILED",
            "automate outbox ls --kind automate.event --limit 100 --json",
            "automate outbox ls --label order=4711",
        ),
    )(ls)
    own.command("show", examples=("automate outbox show 0193f0c2-…",))(show)
    own.command(
        "errors",
        examples=(
            "automate outbox errors",
            "automate outbox errors --kind mail.send --json",
        ),
    )(errors)


def ls(
    context: Context,
    status: _Status = None,
    kind: _Kind = None,
    tenant: _Tenant = None,
    label: Annotated[str | None, Option(help="A label: order=4711, or 4711.")] = None,
    limit: _Limit = 20,
) -> None:
    """List items, the newest first."""
    from automate_kernel.cli.views import item_data, show_items

    outbox = context.session.plain.outbox
    given: dict[str, Any] = {"status": status_of(status), "kind": kind, "tenant_id": tenant}
    if label is None:
        found = outbox.find(**given, limit=limit)
    else:
        found = outbox.labelled(label, **given, limit=limit)
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
    """
    Show an item with its payload, and the error of each attempt.

    What failed is told with the files and lines that it came from, and no values.
    """
    from automate_kernel.cli.output import as_json
    from automate_kernel.cli.views import attempt_data, item_data, labels_text, show_attempts

    item = found_item(context, item_id)
    data = item_data(item, whole=True)
    attempts = context.session.plain.outbox.failed_attempts(item.id)
    context.out.data({**data, "failed_attempts": [attempt_data(each) for each in attempts]})
    data["payload"] = as_json(data["payload"])
    data["headers"] = as_json(data["headers"]) if data["headers"] else None
    data["labels"] = labels_text(data["labels"])
    context.out.fields(data.items())
    show_attempts(context.out, attempts)


def errors(
    context: Context,
    kind: _Kind = None,
    tenant: _Tenant = None,
    limit: _Limit = 20,
) -> None:
    """
    Group the failed items by kind and by where their error came from.

    A group is put back to wait by automate outbox requeue --failed --error GROUP.
    """
    from automate_kernel.cli.views import group_data, show_groups

    found = context.session.plain.outbox.error_groups(kind=kind, tenant_id=tenant, limit=limit)
    context.out.data([group_data(each) for each in found])
    show_groups(context.out, found, "KIND")


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

"""``manage.py automate_outbox``: single items, or all that match."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from automate_django.management.base import CommandOutput, confirm
from automate_kernel.cli.inputs import duration, one_of
from automate_kernel.cli.output import as_json, counted
from automate_kernel.cli.views import item_data, show_items
from automate_kernel.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.outbox import ItemStatus, OutboxItem, OutboxStore
from automate_kernel.workflows.state import ADVANCE

__all__ = ["COMMANDS"]

Options = dict[str, Any]


def listing(outbox: OutboxStore, out: CommandOutput, options: Options) -> None:
    """List items, the newest first."""
    found = outbox.find(
        status=one_of(options["status"], ItemStatus, "--status"),
        kind=options["kind"],
        tenant_id=options["tenant"],
        limit=options["limit"],
    )
    out.data([item_data(item) for item in found])
    show_items(out, found)


def show(outbox: OutboxStore, out: CommandOutput, options: Options) -> None:
    """Show an item with its payload and its last error."""
    data = item_data(_found(outbox, options["id"]), whole=True)
    out.data(data)
    data["payload"] = as_json(data["payload"])
    data["headers"] = as_json(data["headers"]) if data["headers"] else None
    out.fields(data.items())


def requeue(outbox: OutboxStore, out: CommandOutput, options: Options) -> None:
    """Make failed or cancelled items wait again, with all their attempts."""
    some = partial(outbox.requeue_matching, per_second=options["per_second"])
    _change(outbox, out, options, ("Requeue", "requeued"), outbox.requeue, some)


def cancel(outbox: OutboxStore, out: CommandOutput, options: Options) -> None:
    """Cancel items that wait, and ask those that run to stop."""
    _change(outbox, out, options, ("Cancel", "cancelled"), outbox.cancel, outbox.cancel_matching)


def discard(outbox: OutboxStore, out: CommandOutput, options: Options) -> None:
    """Delete items that are finished."""
    _change(outbox, out, options, ("Delete", "deleted"), outbox.discard, outbox.discard_matching)


def reschedule(outbox: OutboxStore, out: CommandOutput, options: Options) -> None:
    """Change when items that wait are due."""
    delay = duration(options["delay"], "--delay")
    ids = _named(outbox, options["ids"])
    _tell(out, outbox.reschedule(ids, delay=delay), "rescheduled", len(ids))


def _change(
    outbox: OutboxStore,
    out: CommandOutput,
    options: Options,
    words: tuple[str, str],
    named: Callable[[Sequence[str]], int],
    matching: Callable[..., int],
) -> None:
    verb, done = words
    if bool(options["ids"]) == options["all"]:
        hint = "--all takes every item that --kind, --status and --tenant match"
        raise ConfigError("name the items, or say --all", hint=hint)
    if not options["all"]:
        ids = _named(outbox, options["ids"])
        _tell(out, named(ids), done, len(ids))
        return
    if options["kind"] == ADVANCE:
        raise _of_an_execution()
    confirm(f"{verb} every item that matches?", yes=options["yes"])
    # What wakes executions is left alone: they are resumed and cancelled as a whole.
    kinds = [options["kind"]] if options["kind"] else _kinds(outbox)
    wanted = {
        "status": one_of(options["status"], ItemStatus, "--status"),
        "tenant_id": options["tenant"],
        "error_code": options["error_code"],
    }
    _tell(out, sum(matching(kind=kind, **wanted) for kind in kinds), done)


def _kinds(outbox: OutboxStore) -> list[str]:
    return [kind for kind in outbox.stats().counts if kind != ADVANCE]


def _named(outbox: OutboxStore, ids: Sequence[str]) -> list[str]:
    found = [_found(outbox, item_id) for item_id in ids]
    if any(item.kind == ADVANCE for item in found):
        raise _of_an_execution()
    return [item.id for item in found]


def _found(outbox: OutboxStore, item_id: str) -> OutboxItem:
    item = outbox.get(item_id)
    if item is None:
        hint = "manage.py automate_outbox list lists them"
        raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no item {item_id!r}", hint=hint)
    return item


def _of_an_execution() -> ConfigError:
    hint = "resume or cancel the execution: in the admin, or kernel.executions"
    return ConfigError(f"an item of kind {ADVANCE} belongs to an execution", hint=hint)


def _tell(out: CommandOutput, changed: int, done: str, named: int | None = None) -> None:
    out.data({done: changed})
    out.line(f"{counted(changed)} {done}")
    if named is not None and changed < named:
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"{counted(named - changed)} could not be {done}",
            hint="they are in another state: manage.py automate_outbox show tells which",
        )


def _list(parser: ArgumentParser) -> None:
    _filters(parser)
    parser.add_argument("--limit", "-n", type=int, default=20, help="how many (default: 20)")


def _filters(parser: ArgumentParser) -> None:
    parser.add_argument("--status", help=", ".join(status.value for status in ItemStatus))
    parser.add_argument("--kind", help="only items of this kind")
    parser.add_argument("--tenant", help="only items of this tenant")


def _id(parser: ArgumentParser) -> None:
    parser.add_argument("id", help="the item's id")


def _chosen(parser: ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", metavar="ID", help="the items' ids")
    parser.add_argument("--all", action="store_true", help="all items that the options match")
    _filters(parser)
    parser.add_argument("--error-code", help="only items whose last error has this code")
    parser.add_argument("--yes", action="store_true", help="don't ask")


def _requeue(parser: ArgumentParser) -> None:
    _chosen(parser)
    parser.add_argument(
        "--per-second", type=float, help="let no more become due in a second, with --all"
    )


def _reschedule(parser: ArgumentParser) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID", help="the items' ids")
    parser.add_argument("--delay", required=True, help="from now: 90, 5m, 2h; 0 for at once")


COMMANDS = {
    "list": (listing, "List items, the newest first.", _list),
    "show": (show, "Show an item with its payload and its last error.", _id),
    "requeue": (requeue, "Make failed or cancelled items wait again.", _requeue),
    "cancel": (cancel, "Cancel items that wait, and ask those that run to stop.", _chosen),
    "discard": (discard, "Delete items that are finished.", _chosen),
    "reschedule": (reschedule, "Change when items that wait are due.", _reschedule),
}
"""By name: the function, its help, and what adds its arguments."""

"""``automate outbox ls``, ``show``, ``requeue`` and ``cancel``: single items, or many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from automate_kernel.cli.command import Context, command
from automate_kernel.cli.failures import WorkFailedError
from automate_kernel.cli.inputs import confirm
from automate_kernel.cli.output import counted
from automate_kernel.errors import AutomateError, ConfigError, ErrorCodes

if TYPE_CHECKING:
    from automate_kernel.outbox import OutboxItem, OutboxStore

__all__ = ["add_to_group"]

_BATCH = 500
_WAKE_UP = "automate.advance"

_Ids = Annotated[list[str] | None, typer.Argument(help="The items' ids.", metavar="[ID]…")]
_All = Annotated[bool, typer.Option("--all", help="All items that the options match.")]
_Kind = Annotated[str | None, typer.Option(help="Only items of this kind.")]
_Status = Annotated[
    str | None, typer.Option(help="PENDING, RUNNING, RETRY, COMPLETED, FAILED or CANCELLED.")
]
_Tenant = Annotated[str | None, typer.Option(help="Only items of this tenant.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def add_to_group(own: typer.Typer) -> None:
    """Add the commands."""
    command(
        own,
        "ls",
        data=True,
        examples=(
            "automate outbox ls --status FAILED",
            "automate outbox ls --kind automate.event --limit 100 --json",
        ),
    )(ls)
    command(own, "show", data=True, examples=("automate outbox show 0193f0c2-…",))(show)
    command(
        own,
        "requeue",
        data=True,
        examples=(
            "automate outbox requeue 0193f0c2-… 0193f0c3-…",
            "automate outbox requeue --all --kind mail.send",
            "automate outbox requeue --all --status CANCELLED --yes",
        ),
    )(requeue)
    command(
        own,
        "cancel",
        data=True,
        examples=(
            "automate outbox cancel 0193f0c2-…",
            "automate outbox cancel --all --kind mail.send --yes",
        ),
    )(cancel)


def ls(
    context: Context,
    status: _Status = None,
    kind: _Kind = None,
    tenant: _Tenant = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.", min=1)] = 20,
) -> None:
    """List items, the newest first."""
    from automate_kernel.cli.views import item_data, show_items

    found = context.session.plain.outbox.find(
        status=_status(status), kind=kind, tenant_id=tenant, limit=limit
    )
    context.out.data([item_data(item) for item in found])
    show_items(context.out, found)


def _status(given: str | None) -> str | None:
    from automate_kernel.cli.inputs import one_of
    from automate_kernel.outbox.item import ItemStatus

    return one_of(given, ItemStatus, "--status")


def show(
    context: Context,
    item_id: Annotated[str, typer.Argument(help="The item's id.", metavar="ID")],
) -> None:
    """Show an item with its payload and its last error."""
    from automate_kernel.cli.output import as_json
    from automate_kernel.cli.views import item_data

    item = _found(context.session.plain.outbox, item_id)
    data = item_data(item, whole=True)
    context.out.data(data)
    data["payload"] = as_json(data["payload"])
    data["headers"] = as_json(data["headers"]) if data["headers"] else None
    context.out.fields(data.items())


def _found(outbox: OutboxStore, item_id: str) -> OutboxItem:
    item = outbox.get(item_id)
    if item is None:
        raise AutomateError(
            ErrorCodes.NOT_FOUND,
            f"there is no item {item_id!r}",
            hint="automate outbox ls lists them",
        )
    return item


def requeue(
    context: Context,
    item_ids: _Ids = None,
    every: _All = False,
    status: _Status = None,
    kind: _Kind = None,
    tenant: _Tenant = None,
    yes: _Yes = False,
) -> None:
    """
    Make failed or cancelled items wait again, with all their attempts.

    With --all, every FAILED one (or --status CANCELLED). An execution is resumed by
    automate executions resume instead.
    """
    wanted = _status(status) or "FAILED"
    if wanted not in ("FAILED", "CANCELLED"):
        raise ConfigError(f"items that are {wanted} can't be requeued")
    outbox = context.session.plain.outbox
    chosen = _Chosen(item_ids, every, (wanted,), kind, tenant, "executions resume")
    _change(context, chosen, outbox.requeue, ("Requeue", "requeued"), yes=yes)


def cancel(
    context: Context,
    item_ids: _Ids = None,
    every: _All = False,
    status: _Status = None,
    kind: _Kind = None,
    tenant: _Tenant = None,
    yes: _Yes = False,
) -> None:
    """
    Cancel items that wait; one that runs is left alone.

    With --all, every PENDING and RETRY one. An execution is cancelled by
    automate executions cancel instead.
    """
    wanted = _status(status)
    if wanted not in (None, "PENDING", "RETRY"):
        raise ConfigError(f"items that are {wanted} can't be cancelled")
    outbox = context.session.plain.outbox
    states = (wanted,) if wanted else ("PENDING", "RETRY")
    chosen = _Chosen(item_ids, every, states, kind, tenant, "executions cancel")
    _change(context, chosen, outbox.cancel, ("Cancel", "cancelled"), yes=yes)


class _Chosen:
    """Which items a command is about: those with the ids, or all that match."""

    def __init__(
        self,
        item_ids: Sequence[str] | None,
        every: bool,
        states: Sequence[str],
        kind: str | None,
        tenant: str | None,
        instead: str,
    ) -> None:
        if bool(item_ids) == every:
            raise ConfigError(
                "name the items, or say --all",
                hint="--all takes every item that --kind, --status and --tenant match",
            )
        if kind == _WAKE_UP:
            raise self._wake_up(instead)
        self.ids = list(item_ids or ())
        self.states, self.kind, self.tenant = states, kind, tenant
        self._instead = instead

    def _wake_up(self, instead: str) -> ConfigError:
        return ConfigError(
            f"an item of kind {_WAKE_UP} belongs to an execution", hint=f"use automate {instead}"
        )

    def number(self, outbox: OutboxStore) -> int | None:
        """How many there are, or None where only going through them tells."""
        if self.ids:
            return len(self.ids)
        if self.tenant is not None:
            return None
        counts = outbox.stats().counts
        return sum(
            of_kind.get(state, 0)
            for kind, of_kind in counts.items()
            for state in self.states
            if kind == self.kind or (self.kind is None and kind != _WAKE_UP)
        )

    def batches(self, outbox: OutboxStore) -> Iterator[list[str]]:
        """The ids, as many at a time as one transaction can bear; what is changed comes no more."""
        if self.ids:
            yield self._named(outbox)
            return
        kinds = [self.kind] if self.kind else [k for k in outbox.stats().counts if k != _WAKE_UP]
        for kind in kinds:
            for state in self.states:
                yield from self._matching(outbox, kind, state)

    def _named(self, outbox: OutboxStore) -> list[str]:
        found = [_found(outbox, item_id) for item_id in self.ids]
        if any(item.kind == _WAKE_UP for item in found):
            raise self._wake_up(self._instead)
        return [item.id for item in found]

    def _matching(self, outbox: OutboxStore, kind: str, state: str) -> Iterator[list[str]]:
        seen: set[str] = set()
        while True:
            found = outbox.find(status=state, kind=kind, tenant_id=self.tenant, limit=_BATCH)
            ids = [item.id for item in found if item.id not in seen]
            if not ids:
                return
            seen.update(ids)
            yield ids


def _change(
    context: Context,
    chosen: _Chosen,
    change: Callable[[Sequence[str]], int],
    words: tuple[str, str],
    *,
    yes: bool,
) -> None:
    out, (verb, done) = context.out, words
    outbox = context.session.plain.outbox
    number = chosen.number(outbox)
    what = "all that match" if number is None else counted(number)
    if not chosen.ids and number != 0:
        confirm(f"{verb} {what}?", yes=yes)
    changed = seen = 0
    with out.working(f"{verb.lower()}: {what}") as status:
        for batch in chosen.batches(outbox):
            changed += change(batch)
            seen += len(batch)
            if status is not None:
                status.update(f"{verb.lower()}: {seen} of {what}")
    out.data({done: changed, "unchanged": seen - changed})
    out.line(f"{counted(changed)} {done}")
    if chosen.ids and changed < seen:
        raise WorkFailedError(
            ErrorCodes.FAILED_PRECONDITION,
            f"{counted(seen - changed)} could not be {done}",
            hint="they are in another state: automate outbox show tells which",
        )

"""``automate outbox requeue``, ``cancel``, ``discard`` and ``reschedule``: some items, or many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from automate_kernel.cli.commands.outbox_items import found_item, status_of
from automate_kernel.cli.definitions import Argument, Context, Group, Option
from automate_kernel.cli.failures import WorkFailedError
from automate_kernel.cli.inputs import confirm, duration
from automate_kernel.cli.output import counted
from automate_kernel.errors import ConfigError, ErrorCodes

if TYPE_CHECKING:
    from automate_kernel.outbox import OutboxStore

__all__ = ["add_to_group"]

_HANDFUL = 10
_WAKE_UP = "automate.advance"

_Ids = Annotated[list[str] | None, Argument(help="The items' ids.", metavar="[ID]…")]
_All = Annotated[bool, Option("--all", help="All items that the options match.")]
_Kind = Annotated[str | None, Option(help="Only items of this kind.")]
_Tenant = Annotated[str | None, Option(help="Only items of this tenant.")]
_Status = Annotated[str | None, Option(help="Only items in this state.")]
_Error = Annotated[str | None, Option("--error-code", help="Only with this last error.")]
_ErrorGroup = Annotated[
    str | None,
    Option(
        "--error", help="Only of this group, as outbox errors names it: KeyError in shop.charge."
    ),
]
_Older = Annotated[str | None, Option(help="Only enqueued longer ago: 2h.", metavar="DURATION")]
_Newer = Annotated[str | None, Option(help="Only enqueued since then: 30m.", metavar="DURATION")]
_Most = Annotated[int | None, Option("--limit", "-n", help="At most so many.", min=1)]
_Yes = Annotated[bool, Option("--yes", "-y", help="Don't ask.")]


def add_to_group(own: Group) -> None:
    """Add the commands."""
    own.command(
        "requeue",
        also=("retry",),
        examples=(
            "automate outbox requeue 0193f0c2-… 0193f0c3-…",
            "automate outbox requeue --failed --kind mail.send --rate 50",
            'automate outbox requeue --failed --error "KeyError in shop.actions.charge"',
            "automate outbox requeue --all --status CANCELLED --yes",
        ),
    )(requeue)
    own.command(
        "cancel",
        examples=(
            "automate outbox cancel 0193f0c2-…",
            "automate outbox cancel --all --kind mail.send --yes",
            "automate outbox cancel --all --status RUNNING --kind report",
        ),
    )(cancel)
    own.command(
        "discard",
        examples=(
            "automate outbox discard 0193f0c2-…",
            "automate outbox discard --all --kind mail.send --older-than 7d --yes",
        ),
    )(discard)
    own.command(
        "reschedule",
        examples=("automate outbox reschedule 0193f0c2-… --delay 2h",),
    )(reschedule)


def requeue(
    context: Context,
    item_ids: _Ids = None,
    every: _All = False,
    failed: Annotated[bool, Option("--failed", help="All that FAILED.")] = False,
    status: _Status = None,
    kind: _Kind = None,
    tenant: _Tenant = None,
    error_code: _Error = None,
    error: _ErrorGroup = None,
    older_than: _Older = None,
    newer_than: _Newer = None,
    limit: _Most = None,
    rate: Annotated[
        float | None, Option(help="So many of a kind become due in a second.", min=0.001)
    ] = None,
    yes: _Yes = False,
) -> None:
    """
    Make failed or cancelled items wait again, with all their attempts.

    Without ids every FAILED one that the options match, or with --status CANCELLED those. An
    execution is resumed by automate executions resume instead.
    """
    wanted = "FAILED" if failed else status_of(status)
    if wanted not in (None, "FAILED", "CANCELLED"):
        raise ConfigError(f"items that are {wanted} can't be requeued")
    chosen = _Chosen(
        context, item_ids, every or failed, ("FAILED",), wanted, kind, tenant, error_code, error,
        older_than, newer_than, limit, "executions resume",
    )  # fmt: skip
    outbox = context.session.plain.outbox
    if rate is not None and chosen.ids:
        raise ConfigError("--rate goes with --failed or --all")
    many = partial(outbox.requeue_matching, per_second=rate)
    _change(context, chosen, outbox.requeue, many, ("Requeue", "requeued"), yes=yes)


def cancel(
    context: Context,
    item_ids: _Ids = None,
    every: _All = False,
    status: _Status = None,
    kind: _Kind = None,
    tenant: _Tenant = None,
    error_code: _Error = None,
    error: _ErrorGroup = None,
    older_than: _Older = None,
    newer_than: _Newer = None,
    limit: _Most = None,
    yes: _Yes = False,
) -> None:
    """
    Cancel items that wait, and ask those that run to stop.

    With --all, every PENDING and RETRY one, or with --status RUNNING those that run. An execution
    is cancelled by automate executions cancel instead.
    """
    wanted = status_of(status)
    if wanted not in (None, "PENDING", "RETRY", "RUNNING"):
        raise ConfigError(f"items that are {wanted} can't be cancelled")
    chosen = _Chosen(
        context, item_ids, every, ("PENDING", "RETRY"), wanted, kind, tenant, error_code, error,
        older_than, newer_than, limit, "executions cancel",
    )  # fmt: skip
    outbox = context.session.plain.outbox
    words = ("Cancel", "cancelled")
    _change(context, chosen, outbox.cancel, outbox.cancel_matching, words, yes=yes)


def discard(
    context: Context,
    item_ids: _Ids = None,
    every: _All = False,
    status: _Status = None,
    kind: _Kind = None,
    tenant: _Tenant = None,
    error_code: _Error = None,
    error: _ErrorGroup = None,
    older_than: _Older = None,
    newer_than: _Newer = None,
    limit: _Most = None,
    yes: _Yes = False,
) -> None:
    """
    Delete items that are finished.

    With --all, every FAILED and CANCELLED one, or with --status COMPLETED those.
    """
    wanted = status_of(status)
    if wanted not in (None, "COMPLETED", "FAILED", "CANCELLED"):
        raise ConfigError(f"items that are {wanted} can't be discarded")
    chosen = _Chosen(
        context, item_ids, every, ("FAILED", "CANCELLED"), wanted, kind, tenant, error_code, error,
        older_than, newer_than, limit, None,
    )  # fmt: skip
    outbox = context.session.plain.outbox
    words = ("Discard", "discarded")
    _change(context, chosen, outbox.discard, outbox.discard_matching, words, yes=yes)


def reschedule(
    context: Context,
    item_ids: Annotated[list[str], Argument(help="The items' ids.", metavar="ID…")],
    delay: Annotated[
        str, Option(help="When they are due, from now: 2h; 0 is at once.", metavar="DURATION")
    ] = "0",
) -> None:
    """Change when items that wait are due."""
    outbox, seconds = context.session.plain.outbox, duration(delay, "--delay")
    ids = [found_item(context, item_id).id for item_id in item_ids]
    _tell(context, outbox.reschedule(ids, delay=seconds), "rescheduled", len(ids))


@dataclass
class _Chosen:
    """Which items a command is about: those with the ids, or all that match."""

    context: Context
    item_ids: Sequence[str] | None
    every: bool
    usual: Sequence[str]
    status: str | None
    kind: str | None
    tenant: str | None
    error_code: str | None
    error_group: str | None
    older_than: str | None
    newer_than: str | None
    limit: int | None
    instead: str | None

    def __post_init__(self) -> None:
        if bool(self.item_ids) == self.every:
            raise ConfigError(
                "name the items, or say --all",
                hint="--all takes every item that --kind, --status and the others match",
            )
        if self.kind == _WAKE_UP and self.instead:
            raise self._wake_up()
        self.ids = self._named() if self.item_ids else []

    def _wake_up(self) -> ConfigError:
        return ConfigError(
            f"an item of kind {_WAKE_UP} belongs to an execution",
            hint=f"use {self.context.named(str(self.instead))}",
        )

    @property
    def outbox(self) -> OutboxStore:
        return self.context.session.plain.outbox

    def _named(self) -> list[str]:
        found = [found_item(self.context, item_id) for item_id in self.item_ids or ()]
        if self.instead and any(item.kind == _WAKE_UP for item in found):
            raise self._wake_up()
        return [item.id for item in found]

    def kinds(self) -> list[str]:
        """The kinds that are meant: not those of executions, which are steered as a whole."""
        if self.kind:
            return [self.kind]
        counts = self.outbox.stats().counts
        return [kind for kind in counts if kind != _WAKE_UP or not self.instead]

    def number(self) -> int | None:
        """How many there are, or None where only going through them tells."""
        if self.ids:
            return len(self.ids)
        conditions = (self.tenant, self.error_code, self.error_group, self.older_than)
        if any((*conditions, self.newer_than, self.limit)):
            return None
        counts, kinds = self.outbox.stats().counts, set(self.kinds())
        states = (self.status,) if self.status else self.usual
        return sum(counts.get(kind, {}).get(state, 0) for kind in kinds for state in states)

    def filter(self) -> dict[str, Any]:
        """What all of them have in common, beside the kind."""
        now, ages = self.outbox.now(), {}
        for name, age in (("before", self.older_than), ("after", self.newer_than)):
            option = "--older-than" if name == "before" else "--newer-than"
            if age is not None:
                ages[f"created_{name}"] = now - timedelta(seconds=duration(age, option))
        return {
            "status": self.status,
            "tenant_id": self.tenant,
            "error_code": self.error_code,
            "error_group": self.error_group,
            **ages,
        }


def _change(
    context: Context,
    chosen: _Chosen,
    some: Callable[[Sequence[str]], int],
    many: Callable[..., int],
    words: tuple[str, str],
    *,
    yes: bool,
) -> None:
    out, (verb, done), number = context.out, words, chosen.number()
    what = "all that match" if number is None else counted(number)
    if number != 0 and (not chosen.ids or len(chosen.ids) > _HANDFUL):
        confirm(f"{verb} {what}?", yes=yes)
    with out.working(f"{verb.lower()}: {what}") as shown:

        def tell(before: int, count: int) -> None:
            if shown is not None:
                shown.update(f"{verb.lower()}: {before + count} of {what}")

        changed = some(chosen.ids) if chosen.ids else _matching(chosen, many, tell)
    _tell(context, changed, done, len(chosen.ids) if chosen.ids else None)


def _matching(chosen: _Chosen, many: Callable[..., int], tell: Callable[[int, int], None]) -> int:
    changed, wanted = 0, chosen.filter()
    for kind in chosen.kinds():
        left = None if chosen.limit is None else chosen.limit - changed
        changed += many(kind=kind, limit=left, progress=partial(tell, changed), **wanted)
    return changed


def _tell(context: Context, changed: int, done: str, named: int | None) -> None:
    unchanged = 0 if named is None else named - changed
    context.out.data({done: changed, "unchanged": unchanged})
    context.out.line(f"{counted(changed)} {done}")
    if unchanged:
        raise WorkFailedError(
            ErrorCodes.FAILED_PRECONDITION,
            f"{counted(unchanged)} could not be {done}",
            hint=f"they are in another state: {context.named('outbox show')} tells which",
        )

"""``automate outbox``: look at items, change and limit them, and clean up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from automate_cli import inputs, records
from automate_cli.command import Commands, Context, DataCommand, WorkFailedError
from automate_cli.command_input import duration_input
from automate_cli.inputs import LABEL, LIMIT, TENANT, argument, flag, option
from automate_cli.output import Columns, as_json, attributes, counted, seconds
from automate_kernel.base.errors import ConfigError
from automate_kernel.storage.statuses import ItemStatus, words

if TYPE_CHECKING:
    from automate_kernel.outbox import OutboxControls, OutboxItem, OutboxStore

app: Commands = Commands(
    "outbox", "Look at the outbox, and steer it: requeue, cancel, limit, purge."
)

_STATES = words(*ItemStatus)
_HANDFUL = 10
_WAKE_UP = "automate.advance"
_CONDITIONS = ("tenant", "error_code", "error", "older_than", "newer_than", "limit")

_KIND = option(None, "Only items of this kind.")

# -- statistics -----------------------------------------------------------------------------------


def _by_kind(context: Context) -> None:
    """Count the items of each kind by state, and show the delay of the oldest due item."""
    out, found = context.out, context.session.plain.outbox.stats()
    out.data(attributes(found, "counts", "oldest_due_seconds", "paused"))
    rows = [(kind, *(of.get(each, 0) for each in _STATES)) for kind, of in found.counts.items()]
    out.table(("KIND", *_STATES), rows, empty="the outbox is empty")
    late = found.oldest_due_seconds
    out.line(f"oldest due item: {'none' if late is None else seconds(late) + ' late'}")
    if found.paused:
        out.line(f"paused: {', '.join(found.paused)}", "yellow")


# -- items ----------------------------------------------------------------------------------------


@app.command("list", cls=DataCommand, hidden=True)
@app.called(
    "automate outbox ls --status FAILED",
    "automate outbox ls --kind automate.event --limit 100 --json",
    "automate outbox ls --label order=4711",
    "automate outbox ls --by-error --kind mail.send",
    "automate outbox ls --by-kind",
)
def ls(
    context: Context,
    status: str | None = option(None, "PENDING, RUNNING, RETRY, COMPLETED, FAILED or CANCELLED."),
    kind: str | None = _KIND,
    tenant: str | None = TENANT,
    label: str | None = LABEL,
    limit: int = LIMIT,
    by_error: bool = flag(
        "--by-error", "Group failed items by kind and by where their error came from."
    ),
    by_kind: bool = flag(
        "--by-kind", "Count them by kind and state, and show the delay of the oldest due item."
    ),
) -> None:
    """
    List items, the newest first.

    automate outbox requeue --failed --error GROUP requeues a group of --by-error.
    """
    if by_error:
        inputs.alone("--by-error", status=status, label=label, by_kind=by_kind)
        outbox = context.session.plain.outbox
        groups = _controls(outbox).error_groups(kind=kind, tenant_id=tenant, limit=limit)
        records.list_groups(context.out, groups, "KIND")
        return
    if by_kind:
        inputs.alone("--by-kind", status=status, kind=kind, tenant=tenant, label=label)
        _by_kind(context)
        return
    outbox = context.session.plain.outbox
    given: dict[str, Any] = {"status": _status(status), "kind": kind, "tenant_id": tenant}
    if label is None:
        found = outbox.find(**given, limit=limit)
    else:
        found = outbox.labelled(label, **given, limit=limit)
    context.out.listing(found, records.ITEMS, "no items", records.item_data)


def _controls(outbox: OutboxStore) -> OutboxControls:
    from automate_kernel.outbox.controls import controls_of

    return controls_of(outbox)


def _status(given: str | None) -> str | None:
    return inputs.one_of(given, ItemStatus, "--status")


@app.called("automate outbox show 0193f0c2-…")
def show(context: Context, item_id: str = argument("The item's id.", metavar="ID")) -> None:
    """
    Show an item with its payload, and the error of each attempt.

    A failed attempt is shown with the files and lines of its error, without values.
    """
    from automate_kernel.monitoring.waiting import why_item_waits

    item = _found_item(context, item_id)
    data = records.item_data(item, whole=True)
    attempts = context.session.plain.outbox.failed_attempts(item.id)
    failed = [records.attempt_data(each) for each in attempts]
    reasons = why_item_waits(context.session.plain, item)
    shown_reasons = [each.to_json() for each in reasons]
    context.out.data({**data, "failed_attempts": failed, "reasons": shown_reasons})
    headers = as_json(data["headers"]) if data["headers"] else None
    labels = records.labels_text(data["labels"])
    shown = {**data, "payload": as_json(data["payload"]), "headers": headers, "labels": labels}
    context.out.fields(shown.items())
    records.show_reasons(context, reasons)
    records.show_attempts(context.out, attempts)


def _found_item(context: Context, item_id: str) -> OutboxItem:
    item = context.session.plain.outbox.get(item_id)
    if item is None:
        raise context.missing(f"item {item_id!r}", "outbox ls")
    return item


# -- changes --------------------------------------------------------------------------------------


def _choice(
    item_ids: list[str] | None = argument("The items' ids.", None, metavar="[ID]…"),
    every: bool = flag("--all", "All items that the options match."),
    failed: bool = flag("--failed", "All items that FAILED."),
    status: str | None = option(None, "Only items in this state."),
    kind: str | None = _KIND,
    tenant: str | None = TENANT,
    error_code: str | None = option(None, "Only with this last error."),
    error: str | None = option(
        None, "Only of this group, as ls --by-error names it: KeyError in shop.charge."
    ),
    older_than: str | None = inputs.OLDER_THAN,
    newer_than: str | None = inputs.NEWER_THAN,
    limit: int | None = inputs.MOST,
    rate: float | None = option(
        None, "Number of items of a kind that become due in a second.", min=0.001
    ),
    delay: str | None = option(
        None, "Of items that wait: the time until they are due; 0 is at once.", metavar="DURATION"
    ),
    stale: bool = flag(
        "--stale", "Items whose worker died; with --older-than: whose lease is as old as that."
    ),
    yes: bool = inputs.YES,
) -> None: ...


class _RequeueCommand(DataCommand):
    shared = staticmethod(_choice)


class _ChangeCommand(_RequeueCommand):
    without = ("failed", "rate", "delay", "stale")


@app.command("retry", cls=_RequeueCommand, hidden=True)
@app.called(
    "automate outbox requeue 0193f0c2-… 0193f0c3-…",
    "automate outbox requeue --failed --kind mail.send --rate 50",
    'automate outbox requeue --failed --error "KeyError in shop.actions.charge"',
    "automate outbox requeue --all --status CANCELLED --yes",
    "automate outbox requeue 0193f0c2-… --delay 2h",
    "automate outbox requeue --stale --older-than 10m",
    cls=_RequeueCommand,
)
def requeue(context: Context) -> None:
    """
    Make failed or cancelled items wait again, with all their attempts.

    Without ids it takes every FAILED item that the options match, or with --status CANCELLED every
    cancelled item. For an execution there is automate executions retry.

    With --delay, items that wait are due at another time. With --stale, items of dead workers are
    recovered, which workers do by themselves if any is running.
    """
    if context.given["stale"]:
        _requeue_stale(context)
        return
    if context.given["delay"] is not None:
        _reschedule(context)
        return
    outbox, rate = context.session.plain.outbox, context.given["rate"]
    change = _Change(
        context, "requeue", "requeued", [ItemStatus.FAILED], [ItemStatus.CANCELLED],
        "executions retry",
    )  # fmt: skip
    if rate is not None and change.ids:
        raise ConfigError("--rate goes with --failed or --all")
    change.run(
        outbox.requeue,
        lambda **which: _controls(outbox).requeue_matching(per_second=rate, **which),
    )


@app.called(
    "automate outbox cancel 0193f0c2-…",
    "automate outbox cancel --all --kind mail.send --yes",
    "automate outbox cancel --all --status RUNNING --kind report",
    cls=_ChangeCommand,
)
def cancel(context: Context) -> None:
    """
    Cancel waiting items, and ask running items to stop.

    With --all it takes every PENDING and RETRY item, or with --status RUNNING every running item.
    For an execution there is automate executions cancel.
    """
    outbox = context.session.plain.outbox
    change = _Change(
        context, "cancel", "cancelled", [ItemStatus.PENDING, ItemStatus.RETRY],
        [ItemStatus.RUNNING], "executions cancel",
    )  # fmt: skip
    change.run(outbox.cancel, lambda **which: _controls(outbox).cancel_matching(**which))


_OF_CHOICES = ("every", "failed", "status", "kind", "tenant", "error_code", "error", "newer_than")


def _beside(context: Context, *names: str) -> dict[str, Any]:
    """Return what is given of the options *names*, as the user writes them."""
    return {"all" if name == "every" else name: context.given.get(name) for name in names}


def _requeue_stale(context: Context) -> None:
    from automate_kernel.worker import OutboxReaper

    given = context.given
    if given["item_ids"]:
        raise ConfigError("--stale takes no ids", hint="leave them out")
    inputs.alone("--stale", **_beside(context, *_OF_CHOICES, "limit", "rate", "delay"))
    outbox, older = context.session.plain.outbox, given["older_than"]
    stale = outbox.lease_seconds if older is None else duration_input(older, "--older-than")
    reaped = OutboxReaper(outbox, stale_threshold_seconds=stale).reap_stale_items()
    context.out.data({"reaped": reaped})
    context.out.line(f"{counted(reaped)} recovered")


def _reschedule(context: Context) -> None:
    given, outbox = context.given, context.session.plain.outbox
    inputs.alone("--delay", **_beside(context, *_OF_CHOICES, "older_than", "limit", "rate"))
    if not given["item_ids"]:
        raise ConfigError("--delay goes with ids", hint="name the items that wait")
    ids = [_found_item(context, item_id).id for item_id in given["item_ids"]]
    delay = duration_input(given["delay"], "--delay")
    _report(context, _controls(outbox).reschedule(ids, delay=delay), "rescheduled", len(ids))


class _Change:
    """
    A change of the items that `_choice` chooses: those with the ids, or all that match.

    *usual* are the states without --status, *also* the others that it may name. *instead* is the
    command for items of executions. Raises `ConfigError` for options that don't go together.
    """

    def __init__(
        self,
        context: Context,
        verb: str,
        done: str,
        usual: Sequence[ItemStatus],
        also: Sequence[ItemStatus],
        instead: str | None = None,
    ) -> None:
        given = self._given = context.given
        self._context, self._verb, self._done, self._instead = context, verb, done, instead
        self._outbox = context.session.plain.outbox
        failed = bool(given.get("failed"))
        self._status = _status(ItemStatus.FAILED.value if failed else given["status"])
        self._states = (self._status,) if self._status else usual
        item_ids: Sequence[str] = given["item_ids"] or ()
        if bool(item_ids) == (given["every"] or failed):
            raise ConfigError(
                "name the items, or say --all",
                hint="--all takes every item that --kind, --status and the others match",
            )
        found = [_found_item(context, item_id) for item_id in item_ids]
        if instead and _WAKE_UP in (given["kind"], *(item.kind for item in found)):
            raise ConfigError(
                f"an item of kind {_WAKE_UP} belongs to an execution",
                hint=f"use {context.named(instead)}",
            )
        if self._status not in (None, *usual, *also):
            raise ConfigError(f"items that are {self._status} can't be {done}")
        self.ids: list[str] = [item.id for item in found]

    def run(self, some: Callable[[Sequence[str]], int], many: Callable[..., int]) -> None:
        """Change *some* items by their ids, or *many* of each kind by conditions, and report."""
        ids, out, verb, number = self.ids, self._context.out, self._verb, self._number()
        what = "all that match" if number is None else counted(number)
        if number != 0 and (not ids or len(ids) > _HANDFUL):
            inputs.confirm(f"{verb.capitalize()} {what}?", yes=self._given["yes"])
        with out.working(f"{verb}: {what}") as show:
            if ids:
                changed = some(ids)
            else:
                changed = self._matching(many, lambda count: show(f"{verb}: {count} of {what}"))
        _report(self._context, changed, self._done, len(ids) if ids else None)

    def _matching(self, many: Callable[..., int], show: Callable[[int], None]) -> int:
        given, changed = self._given, 0
        conditions = {
            "status": self._status,
            "tenant_id": given["tenant"],
            "error_code": given["error_code"],
            "error_group": given["error"],
            **inputs.ages(self._outbox.now(), given["older_than"], given["newer_than"]),
        }
        for kind in self._kinds():
            conditions["limit"] = None if given["limit"] is None else given["limit"] - changed
            changed += many(
                kind=kind, progress=lambda n, before=changed: show(before + n), **conditions
            )
        return changed

    def _kinds(self) -> list[str]:
        if self._given["kind"]:
            return [self._given["kind"]]
        counts = self._outbox.stats().counts
        return [kind for kind in counts if kind != _WAKE_UP or not self._instead]

    def _number(self) -> int | None:
        """Return the number of items, or None where only a pass through all of them shows it."""
        if self.ids:
            return len(self.ids)
        if any(self._given[name] for name in _CONDITIONS):
            return None
        counts, kinds = self._outbox.stats().counts, self._kinds()
        return sum(counts.get(kind, {}).get(state, 0) for kind in kinds for state in self._states)


def _report(context: Context, changed: int, done: str, named: int | None) -> None:
    unchanged = 0 if named is None else named - changed
    context.out.data({done: changed, "unchanged": unchanged})
    context.out.line(f"{counted(changed)} {done}")
    if unchanged:
        raise WorkFailedError(
            message=f"{counted(unchanged)} could not be {done}",
            hint=f"they are in another state: {context.named('outbox show')} shows it",
        )


# -- limits ---------------------------------------------------------------------------------------


@app.called(
    "automate outbox limit mail.send --concurrency 5",
    "automate outbox limit crm.update --rate 100/1m --burst 10",
    "automate outbox limit mail.send --remove",
    "automate outbox limit   # lists the limits",
)
def limit(
    context: Context,
    kind: str | None = argument("The kind of item; without it, all limits.", None),
    concurrency: int | None = option(None, "The number of items that run at once.", min=1),
    rate: str | None = option(
        None, "The number of starts in a time: 100/1m; 5 is 5/1s.", metavar="N/DURATION"
    ),
    burst: int | None = option(None, "The number of starts at once after a lull.", min=1),
    remove: bool = flag("--remove", "Lift the limit of the kind."),
) -> None:
    """
    Limit the items of a kind that run at once, and that start, over all workers.

    Without a kind it lists the limits. An operator's limit wins over one that the code declares.
    """
    limits = {"concurrency": concurrency, "rate": rate, "burst": burst}
    if kind is None:
        inputs.alone("a list of all limits", **limits, remove=remove)
        _list_limits(context)
        return
    if remove:
        inputs.alone("--remove", **limits)
        lifted = _controls(context.session.plain.outbox).unlimit(kind)
        context.out.data({"kind": kind, "lifted": lifted})
        context.out.line(f"{kind} {'is no longer' if lifted else 'was not'} limited")
        return
    if concurrency is None and rate is None:
        raise ConfigError("nothing is limited", hint="add --concurrency 5 or --rate 100/1m")
    number, per_seconds = _rate(rate)
    options: dict[str, Any] = {"concurrency": concurrency, "rate": number}
    options |= {"per_seconds": per_seconds, "burst": burst}
    _controls(context.session.storing.outbox).limit(kind, **options)
    context.out.data({"kind": kind, **options})
    lift = f"{context.named('outbox limit')} {kind} --remove"
    context.out.line(f"{kind} is limited; {lift} lifts it")


def _rate(text: str | None) -> tuple[int | None, float]:
    if text is None:
        return None, 1.0
    number, _, per = text.partition("/")
    if not number.isdecimal() or not int(number):
        raise ConfigError(f"--rate: {text[:40]!r} is no rate", hint="write 100/1m, or 5 for 5/1s")
    return int(number), duration_input(per or "1", "--rate")


def _list_limits(context: Context) -> None:
    found = context.session.plain.outbox.limits()
    columns: Columns = {
        "KIND": "kind",
        "AT ONCE": lambda each: each.concurrency or "-",
        "RATE": lambda each: f"{each.rate} in {each.per_seconds:g} s" if each.rate else "-",
        "BURST": lambda each: each.burst or each.rate or "-",
        "SET BY": lambda each: "the code" if each.declared else "an operator",
    }
    context.out.listing(found, columns, empty="no kind is limited")


@app.called(
    "automate outbox purge --older-than 30d --yes",
    "automate outbox purge 0193f0c2-…",
    "automate outbox purge --all --kind mail.send --older-than 7d --yes",
    cls=_ChangeCommand,
)
def purge(context: Context) -> None:
    """
    Delete items and executions that ended long ago, with everything that belongs to them.

    With ids or --all it deletes items alone. --all takes every FAILED and CANCELLED item that the
    options match, or with --status COMPLETED every completed item.
    """
    given, outbox = context.given, context.session.plain.outbox
    if given["item_ids"] or given["every"]:
        states = (ItemStatus.FAILED, ItemStatus.CANCELLED)
        change = _Change(context, "delete", "deleted", states, (ItemStatus.COMPLETED,))
        controls = _controls(outbox)
        change.run(controls.discard, controls.discard_matching)
        return
    others = _beside(context, *_OF_CHOICES, "limit")
    if given["older_than"] is None or any(others.values()):
        raise ConfigError(
            "say what to delete",
            hint="--older-than 30d deletes what ended before that; ids or --all choose items",
        )
    _purge(context, given["older_than"], yes=given["yes"])


def _purge(context: Context, older_than: str, *, yes: bool) -> None:
    age = duration_input(older_than, "--older-than")
    inputs.confirm(f"Delete every item and execution that ended over {older_than} ago?", yes=yes)
    with context.out.working("deleting"):
        total = context.session.plain.purge(older_than_seconds=age)
    context.out.data({"purged": total})
    context.out.line(f"{counted(total, 'row')} deleted")

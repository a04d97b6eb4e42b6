"""``manage.py automate_outbox``: what concerns the outbox as a whole, or a kind of item."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from automate_django.kernel import get_kernel
from automate_django.management.base import CommandOutput, confirm
from automate_kernel.cli.inputs import duration
from automate_kernel.cli.output import counted, seconds
from automate_kernel.errors import ConfigError
from automate_kernel.outbox import ItemStatus, OutboxReaper, OutboxStore

__all__ = ["COMMANDS"]

_STATES = [status.value for status in ItemStatus]
Options = dict[str, Any]


def stats(outbox: OutboxStore, out: CommandOutput, options: Options) -> None:
    """Count the items of each kind by state, and tell how late the oldest due one is."""
    found = outbox.stats()
    late = found.oldest_due_seconds
    out.data(
        {"counts": found.counts, "oldest_due_seconds": late, "paused": list(found.paused)},
    )
    rows = [(kind, *(of.get(each, 0) for each in _STATES)) for kind, of in found.counts.items()]
    out.table(("KIND", *_STATES), rows, empty="the outbox is empty")
    out.line(f"oldest due item: {'none' if late is None else seconds(late) + ' late'}")
    if found.paused:
        out.line(f"paused: {', '.join(found.paused)}")


def purge(outbox: OutboxStore, out: CommandOutput, options: Options) -> None:
    """Delete what finished long ago."""
    age = duration(options["older_than"], "--older-than")
    question = f"Delete every item and execution that ended over {options['older_than']} ago?"
    confirm(question, yes=options["yes"])
    total = get_kernel().purge(older_than_seconds=age)  # and the results of tasks, with their items
    out.data({"purged": total})
    out.line(f"{counted(total, 'row')} deleted")


def pause(outbox: OutboxStore, out: CommandOutput, options: Options) -> None:
    """Stop all workers from claiming items of a kind."""
    kind = options["kind"]
    outbox.pause(kind, options["reason"])
    out.data({"kind": kind, "paused": True})
    out.line(f"{kind} is paused; manage.py automate_outbox resume {kind} lets it go on")


def resume(outbox: OutboxStore, out: CommandOutput, options: Options) -> None:
    """Let workers claim items of a kind again."""
    outbox.resume(options["kind"])
    out.data({"kind": options["kind"], "paused": False})
    out.line(f"{options['kind']} is no longer paused")


def limit(outbox: OutboxStore, out: CommandOutput, options: Options) -> None:
    """Bound how many items of a kind run at once, or how many begin in a time."""
    kind, rate = options["kind"], options["rate"]
    if options["concurrency"] is None and rate is None:
        raise ConfigError("nothing is limited", hint="add --concurrency 5 or --rate 100/1m")
    number, per_seconds = _rate(rate)
    outbox.limit(
        kind,
        concurrency=options["concurrency"],
        rate=number,
        per_seconds=per_seconds,
        burst=options["burst"],
    )
    out.data({"kind": kind, "concurrency": options["concurrency"], "rate": rate})
    out.line(f"{kind} is limited; manage.py automate_outbox unlimit {kind} takes that back")


def _rate(text: str | None) -> tuple[int | None, float]:
    if text is None:
        return None, 1.0
    number, _, per = text.partition("/")
    if not number.isdecimal() or not int(number):
        raise ConfigError(f"--rate: {text[:40]!r} is no rate", hint="write 100/1m, or 5 for 5/1s")
    return int(number), duration(per or "1", "--rate")


def unlimit(outbox: OutboxStore, out: CommandOutput, options: Options) -> None:
    """Take the limits of a kind back."""
    outbox.unlimit(options["kind"])
    out.data({"kind": options["kind"], "limited": False})
    out.line(f"{options['kind']} is no longer limited")


def limits(outbox: OutboxStore, out: CommandOutput, options: Options) -> None:
    """List the limits."""
    found = outbox.limits()
    out.data(
        [
            {
                "kind": each.kind,
                "concurrency": each.concurrency,
                "rate": each.rate,
                "per_seconds": each.per_seconds,
                "burst": each.burst,
                "declared": each.declared,
            }
            for each in found
        ]
    )
    out.table(
        ("KIND", "AT ONCE", "RATE", "BURST", "SET BY"),
        [
            (
                each.kind,
                each.concurrency,
                each.rate and f"{each.rate} in {seconds(each.per_seconds)}",
                each.burst or each.rate,
                "the code" if each.declared else "an operator",
            )
            for each in found
        ],
        empty="no kind is limited",
    )


def workers(outbox: OutboxStore, out: CommandOutput, options: Options) -> None:
    """List the workers that told of themselves."""
    found = outbox.workers()
    out.data(
        [
            {
                "id": each.id,
                "host": each.host,
                "pid": each.pid,
                "started_at": each.started_at,
                "seen_at": each.seen_at,
                "kinds": list(each.kinds),
                "slots": each.slots,
                "in_flight": each.in_flight,
                "state": _state(each),
            }
            for each in found
        ]
    )
    out.table(
        ("ID", "STATE", "RUNNING", "SLOTS", "SEEN"),
        [(each.id, _state(each), each.in_flight, each.slots, each.seen_at) for each in found],
        empty="no worker was seen",
    )


def _state(worker: Any) -> str:
    return "lost" if worker.lost else "stopping" if worker.stopping else "working"


def reap(outbox: OutboxStore, out: CommandOutput, options: Options) -> None:
    """Recover items whose worker died."""
    reaper = OutboxReaper(outbox, stale_threshold_seconds=outbox.lease_seconds)
    reaped = reaper.reap_stale_items()
    out.data({"reaped": reaped})
    out.line(f"{counted(reaped)} recovered")


def _no_arguments(parser: ArgumentParser) -> None:
    """Add nothing."""


def _kind(parser: ArgumentParser) -> None:
    parser.add_argument("kind", help="the kind of item: automate.event, django.task.default")


def _pause(parser: ArgumentParser) -> None:
    _kind(parser)
    parser.add_argument("--reason", default="", help="why, for whoever wonders")


def _limit(parser: ArgumentParser) -> None:
    _kind(parser)
    parser.add_argument("--concurrency", type=int, help="how many may run at once")
    parser.add_argument("--rate", help="how many may begin: 5 (in a second), 100/1m")
    parser.add_argument("--burst", type=int, help="how many may begin at once after a lull")


def _purge(parser: ArgumentParser) -> None:
    parser.add_argument("--older-than", required=True, help="since when they are finished: 30d")
    parser.add_argument("--yes", action="store_true", help="don't ask")


COMMANDS = {
    "stats": (stats, "Count the items of each kind by state.", _no_arguments),
    "workers": (workers, "List the workers that told of themselves.", _no_arguments),
    "purge": (purge, "Delete items, executions and results that ended long ago.", _purge),
    "pause": (pause, "Stop all workers from claiming items of a kind.", _pause),
    "resume": (resume, "Let workers claim items of a kind again.", _kind),
    "limit": (limit, "Bound how many items of a kind run at once, or begin in a time.", _limit),
    "unlimit": (unlimit, "Take the limits of a kind back.", _kind),
    "limits": (limits, "List the limits.", _no_arguments),
    "reap": (reap, "Recover items whose worker died; workers do it themselves.", _no_arguments),
}
"""By name: the function, its help, and what adds its arguments."""

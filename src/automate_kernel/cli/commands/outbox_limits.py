"""``automate outbox limit``, ``unlimit`` and ``limits``: how much of a kind runs and starts."""

from __future__ import annotations

from typing import Annotated

from automate_kernel.cli.definitions import Argument, Context, Group, Option
from automate_kernel.cli.inputs import duration
from automate_kernel.errors import ConfigError

__all__ = ["add_to_group"]

_Kind = Annotated[str, Argument(help="The kind of item: mail.send.")]


def add_to_group(own: Group) -> None:
    """Add the commands."""
    own.command(
        "limit",
        examples=(
            "automate outbox limit mail.send --concurrency 5",
            "automate outbox limit crm.update --rate 100/1m --burst 10",
        ),
    )(limit)
    own.command("unlimit", examples=("automate outbox unlimit mail.send",))(unlimit)
    own.command("limits", examples=("automate outbox limits",))(limits)


def limit(
    context: Context,
    kind: _Kind,
    concurrency: Annotated[int | None, Option(help="So many at once.", min=1)] = None,
    rate: Annotated[
        str | None,
        Option(help="So many starts in a time: 100/1m; 5 is 5/1s.", metavar="N/DURATION"),
    ] = None,
    burst: Annotated[int | None, Option(help="So many starts at once after a lull.", min=1)] = None,
) -> None:
    """Limit how many items of a kind run at once, and how many start, over all workers."""
    if concurrency is None and rate is None:
        raise ConfigError("nothing is limited", hint="add --concurrency 5 or --rate 100/1m")
    number, per_seconds = _rate(rate)
    context.session.plain.outbox.limit(
        kind, concurrency=concurrency, rate=number, per_seconds=per_seconds, burst=burst
    )
    context.out.data(
        {
            "kind": kind,
            "concurrency": concurrency,
            "rate": number,
            "per_seconds": per_seconds,
            "burst": burst,
        }
    )
    context.out.line(f"{kind} is limited; {context.named('outbox unlimit')} {kind} lifts it")


def _rate(text: str | None) -> tuple[int | None, float]:
    if text is None:
        return None, 1.0
    number, _, per = text.partition("/")
    if not number.isdecimal() or not int(number):
        raise ConfigError(f"--rate: {text[:40]!r} is no rate", hint="write 100/1m, or 5 for 5/1s")
    return int(number), duration(per or "1", "--rate")


def unlimit(context: Context, kind: _Kind) -> None:
    """Lift the limit of a kind."""
    lifted = context.session.plain.outbox.unlimit(kind)
    context.out.data({"kind": kind, "lifted": lifted})
    context.out.line(f"{kind} {'is no longer' if lifted else 'was not'} limited")


def limits(context: Context) -> None:
    """List the limits. Those that the code declares give way to an operator's."""
    found = context.session.plain.outbox.limits()
    context.out.data(
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
    context.out.table(
        ("KIND", "AT ONCE", "RATE", "BURST", "SET BY"),
        [
            (
                each.kind,
                each.concurrency or "-",
                f"{each.rate} in {each.per_seconds:g} s" if each.rate else "-",
                each.burst or each.rate or "-",
                "the code" if each.declared else "an operator",
            )
            for each in found
        ],
        empty="no kind is limited",
    )

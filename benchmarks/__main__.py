"""The command: `python -m benchmarks [million | waiting | commits | plugins | walk | …]`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks import __doc__ as about
from benchmarks.bench import QUICK, Sizes
from benchmarks.commits import commits
from benchmarks.contenders import NAMES
from benchmarks.measures import MEASURES
from benchmarks.million import million
from benchmarks.openapi import openapi
from benchmarks.plugins import plugins
from benchmarks.redaction import redaction_costs
from benchmarks.report import publish, tables
from benchmarks.results import Results
from benchmarks.run import Plan, run
from benchmarks.waiting import waiting
from benchmarks.walk import operators_walk

_RESULTS = Path(__file__).with_name("results.json")
# What was not all of it does not take the place of what was.
_PART = Path(".benchmarks") / "last.json"
_QUICK_CONTENDERS = ("ours", "ours-django", "limit", "limit-sqlite", "pgqueuer", "huey")
_QUICK_SECONDS = 140.0

# What is measured alone, and printed.
_ALONE: dict[str, Callable[[argparse.Namespace], object]] = {
    "million": lambda given: million(items=given.items or 1_000_000, server=given.server),
    "waiting": lambda given: waiting(given.items or 10_000, server=given.server),
    "commits": lambda given: commits(given.repetitions or 15),
    "plugins": lambda given: plugins(given.items or 100),
    "openapi": lambda _: openapi(),
    "redaction": lambda _: redaction_costs(),
    "walk": lambda given: operators_walk(given.items or 40_000, server=given.server),
}


def _listed(allowed: tuple[str, ...]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        if unknown := [name for name in names if name not in allowed]:
            raise argparse.ArgumentTypeError(
                f"{', '.join(unknown)}: not among {', '.join(allowed)}"
            )
        return names

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "benchmarks", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    what = ("measure", *_ALONE, "report")
    add("what", nargs="?", choices=what, default=what[0])
    add("--quick", action="store_true", help="less of everything, under three minutes")
    add("--only", type=_listed(tuple(MEASURES)), metavar="MEASURES", help=", ".join(MEASURES))
    add("--contenders", type=_listed(NAMES), metavar="NAMES", help=", ".join(NAMES))
    add("--repetitions", type=int, help="5, or 2 with --quick")
    add("--items", type=int, help="no run takes more items than this")
    add("--out", type=Path, help="where results go; by default results.json, if it is everything")
    add("--compare", type=Path, default=_RESULTS, help="results of an earlier run")
    add("--server", help="the URL of a PostgreSQL that runs already, instead of a new one")
    return parser


def main() -> None:
    """Do what the command line says."""
    options = _parser().parse_args()
    # However it ends, the server that it started ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    alone = _ALONE.get(options.what)
    if alone is not None:
        print(alone(options))
        return
    if options.what == "report":
        publish(Results.load(options.out or _RESULTS))
        return
    former = Results.load(options.compare) if options.compare.exists() else None
    part = options.quick or options.only or options.contenders or options.items
    # Half a run does not take the place of a whole one either.
    while_running = options.out or _PART
    results = run(_plan(options), lambda results: results.save(while_running))
    results.save(options.out or (_PART if part else _RESULTS))
    print(f"\n{tables(results)}")
    if former is not None:
        print(f"Compared with {former.created}: now, then, ratio")
        print("\n".join(results.compared(former)))
    if not part:
        publish(results)


def _plan(options: argparse.Namespace) -> Plan:
    sizes = replace(QUICK if options.quick else Sizes(), most=options.items)
    return Plan(
        measures=options.only or tuple(MEASURES),
        contenders=options.contenders or (_QUICK_CONTENDERS if options.quick else NAMES),
        repetitions=options.repetitions or (2 if options.quick else 5),
        sizes=sizes,
        budget_seconds=_QUICK_SECONDS if options.quick else None,
        quiet_seconds=0.0 if options.quick or options.items else 60.0,
        server=options.server,
    )


if __name__ == "__main__":
    main()

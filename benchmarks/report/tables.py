"""The figures as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.results import Cell, Results
from benchmarks.targets import reached

_POSTGRESQL = (
    ("drain, 1 worker", "drain-1", "per_second"),
    ("2 workers", "drain-2", "per_second"),
    ("client CPU, µs", "drain-1", "client_cpu_us"),
    ("server CPU, µs", "drain-1", "server_cpu_us"),
    ("enqueue", "enqueue", "per_second"),
    ("in the host's transaction", "enqueue-within", "per_second"),
    ("in bulk", "bulk", "per_second"),
    ("pick-up p50, ms", "pick-up", "p50_ms"),
    ("p99, ms", "pick-up", "p99_ms"),
    ("idle, MB", "memory", "resident_mb"),
    ("import, ms", "import", "import_ms"),
)
_SQLITE = (
    ("enqueue", "sqlite-enqueue", "per_second"),
    ("drain, 1 worker", "sqlite-drain", "per_second"),
    ("client CPU, µs", "sqlite-drain", "client_cpu_us"),
)
_WORKFLOWS = (
    ("one after another", "workflows-each", "per_second"),
    ("each, ms", "workflows-each", "each_ms"),
    ("waiting, 1 worker", "workflows", "per_second"),
    ("the same, SQLite FULL", "sqlite-workflows", "per_second"),
)
_ELEMENTS = (
    ("elements/s", "elements", "per_second"),
    ("client CPU, µs", "elements", "client_cpu_us"),
    ("worker, MB", "elements", "resident_mb"),
    ("growth from 10 %", "elements", "growth"),
)
_ASYNC_STEPS = (
    ("seconds", "async-steps", "seconds"),
    ("in flight", "async-steps", "in_flight"),
    ("worker, MB", "async-steps", "resident_mb"),
    ("growth from 10 %", "async-steps", "growth"),
)
_WAIT = (
    ("50 ms: items/s", "wait", "per_second"),
    ("in flight", "wait", "in_flight"),
    ("worker, MB", "wait", "resident_mb"),
    ("growth from 10 %", "wait", "growth"),
    ("500 ms: items/s", "wait-long", "per_second"),
    ("in flight", "wait-long", "in_flight"),
    ("worker, MB", "wait-long", "resident_mb"),
    ("growth from 10 %", "wait-long", "growth"),
)


def tables(results: Results) -> str:
    """Everything that was measured, for a reader."""
    parts = [
        _targets(results),
        _table("PostgreSQL, items a second, medians (range)", results, _POSTGRESQL),
        _filled(results),
        _table("SQLite, synchronous=FULL, items a second", results, _SQLITE),
        _table("Durable workflows of 3 steps that do nothing, a second", results, _WORKFLOWS),
        _table("`for_each` of one workflow, 50 elements at a time", results, _ELEMENTS),
        _table("1,500 executions of an `async def` step of 1 s, 4 threads", results, _ASYNC_STEPS),
        _table("An `async def` handler that waits, 1 worker process", results, _WAIT),
        _notes(results),
    ]
    return "\n".join(part for part in parts if part)


def _targets(results: Results) -> str:
    rows = [
        [
            each.target.title,
            f"{'≤' if each.target.at_most else '≥'} {_figure(each.target.wanted)}"
            f" {each.target.unit}".rstrip(),
            f"{_figure(each.figure)} {each.target.unit}".rstrip(),
            "yes" if each.met else "no",
        ]
        for each in reached(results)
    ]
    return _markdown(["to be reached", "target", "this run", "reached"], rows)


def _table(title: str, results: Results, columns: Sequence[tuple[str, str, str]]) -> str:
    present = [column for column in columns if results.ran(column[1])]
    rows = []
    for name, noted in results.contenders.items():
        cells = [results.cell(measure, name, value) for _, measure, value in present]
        if any(cells):
            rows.append([noted["title"], *map(_cell, cells)])
    return _markdown([title, *(column[0] for column in present)], rows)


def _filled(results: Results) -> str:
    """Rates, and what they are of the same contender's rate on the empty table."""
    rows = []
    for name, noted in results.contenders.items():
        empty = results.median("drain-1", name, "per_second")
        shown = []
        for measure in ("finished", "future"):
            cell = results.cell(measure, name, "per_second")
            shown.append(f"{_cell(cell)}: {cell.median / empty:.2f}" if cell and empty else "—")
        if set(shown) != {"—"}:
            rows.append([noted["title"], *shown])
    filled = results.settings["sizes"]["most"] or results.settings["sizes"]["filled_rows"]
    title = f"Beside {filled:,} rows: items a second, and of the empty table"
    return _markdown([title, "finished", "due tomorrow, of mixed priority"], rows)


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "—"
    spread = f" ({_figure(cell.low)}–{_figure(cell.high)})" if cell.count > 1 else ""
    return f"{'~' if cell.noisy else ''}{_figure(cell.median)}{spread}"


def _figure(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    rule = f"|{'---|' * len(head)}"
    return "\n".join([f"| {' | '.join(head)} |", rule, *lines, ""])


def _notes(results: Results) -> str:
    machine, settings = results.machine, results.settings
    postgresql = settings["postgresql"]
    where = (
        f"{machine['cpus']} CPUs ({machine['cpu']}), {machine['memory_gib']} GiB,"
        f" {machine['system']}, fdatasync {machine['fdatasync_ms']} ms"
    )
    of_server = [f"{name} {value}" for name, value in postgresql.items()]
    notes = [
        f"{settings['repetitions']} repetitions, interleaved. {where}.",
        f"Version {settings['commit']}, {results.created[:10]}.",
        f"PostgreSQL: {', '.join(of_server)}.",
        f"Versions: {'; '.join(_versions(results))}.",
    ]
    if any(sample.others_cpu > 0.1 for sample in results.samples):
        notes.append("~: other processes used over 10 % of the machine meanwhile.")
    notes += [
        f"Missing: {name}: {noted['missing']}."
        for name, noted in results.contenders.items()
        if "missing" in noted
    ]
    notes += [
        f"Failed: {sample.contender}, {sample.measure}: {sample.failed}."
        for sample in results.failures()
    ]
    notes += [f"Not finished in time, rate of what was done: {what}." for what in _partly(results)]
    return "".join(f"* {note}\n" for note in notes)


def _versions(results: Results) -> list[str]:
    return [
        f"{name} on Python {noted['python']}"
        + (" with " if noted["versions"] else "")
        + ", ".join(f"{package} {version}" for package, version in noted["versions"].items())
        for name, noted in results.contenders.items()
        if "python" in noted and "/" not in name
    ]


def _partly(results: Results) -> list[str]:
    found = {
        f"{sample.contender}, {sample.measure}"
        for sample in results.samples
        if not sample.values.get("complete", 1.0)
    }
    return sorted(found)

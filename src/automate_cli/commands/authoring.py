"""``automate plugins new`` and ``check``: the tools of plugin authors."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from automate_cli import inputs
from automate_cli.command import Commands, Context
from automate_cli.commands import plugins
from automate_cli.inputs import argument, flag, option
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes

if TYPE_CHECKING:
    from automate_testing.authoring.check import CheckProblem, CheckReport
    from automate_testing.authoring.levels import PluginLevel
    from automate_testing.authoring.scaffold import Scaffold

app: Commands = plugins.app
"""The same commands as those that look at plugins."""

_KINDS = "connector, provider, secrets, filter, store or outputs"
_DOCUMENT = "Write it from this OpenAPI document, 3.0 or 3.1; needs automate-openapi."
_OPERATION = (
    "With --from-openapi: only these operations, by id or as 'GET /pets*'; * stands for any text."
    " Repeatable."
)
_LEVELS = "loads, tested, documented or complete"
_FIRST = ("installed", "imported")
"""The requirements without which nothing more is looked at."""
_PLACE = "The plugin's folder, or the key or distribution of an installed one."


@app.called(
    "automate plugins new acme",
    "automate plugins new acme-mail --kind connector --kind filter --directory ~/code",
    "automate plugins new pets --from-openapi https://pets.example.com/openapi.json",
    "automate plugins new github --from-openapi github.json --operation 'issues.*' --tag pulls",
)
def new(
    context: Context,
    name: str = argument("The plugin's name: acme makes automate-acme."),
    kind: list[str] = option(["connector"], f"{_KINDS}; may be given again for several."),
    directory: Path = option(Path(), "The folder in which the distribution's folder is made."),
    from_openapi: str = option(None, _DOCUMENT, metavar="FILE|URL"),
    operation: list[str] = option([], _OPERATION, metavar="PATTERN"),
    tag: list[str] = option([], "With --from-openapi: only operations with this tag. Repeatable."),
) -> None:
    """
    Make a new plugin: a whole distribution, typed, with tests that pass.

    It has a README, a licence, a CI file, entry points and an example workflow. Nothing that exists
    is overwritten. With --from-openapi the connector is written from a service's OpenAPI document:
    an action for each operation, with models, credentials, pages, errors, and tests.
    """
    from automate_testing.authoring.scaffold import Scaffold

    scaffold, out = Scaffold.named(name, kind), context.out
    if from_openapi is not None:
        scaffold.require_free(directory.expanduser())
        scaffold = _from_document(context, name, kind, from_openapi, operation, tag)
    elif operation or tag:
        raise ConfigError("--operation and --tag choose operations of a document",
                          hint="add --from-openapi FILE")  # fmt: skip
    folder = scaffold.write(directory.expanduser())
    shown = folder if directory.is_absolute() else Path(folder)
    files = sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*.*"))
    data = {"folder": str(folder.resolve()), "distribution": scaffold.distribution}
    files = [each for each in files if (folder / each).is_file()]
    out.data({**data, "key": scaffold.name, "kinds": list(scaffold.kinds), "files": files})
    out.line(f"made {shown}: {len(files)} files")
    for each in scaffold.remarks:
        out.note(f"look at this: {each}")
    path = shlex.quote(str(shown))
    out.line(f"  cd {path}")
    if "store" in scaffold.kinds:  # its contract tries values that hypothesis finds
        out.line("  pip install 'automate-kernel[testing]'")
    out.line("  pytest")
    out.line("  pip install -e .   (or: uv pip install -e .)")
    out.line("  automate plugins check --manifest write && automate plugins check")
    for each in scaffold.namesakes():
        out.note(f"note: {each} is installed here; where both are, the setting winners decides")


def _from_document(
    context: Context,
    name: str,
    kind: list[str],
    source: str,
    operations: list[str],
    tags: list[str],
) -> Scaffold:
    """Return a scaffold whose connector automate-openapi writes from the document at *source*."""
    if kind != ["connector"]:
        raise ConfigError("a document makes a connector", hint="leave --kind out")
    writers = entry_points(group="automate_testing.plugin_writers", name="openapi")
    if not writers:
        raise ConfigError(
            "--from-openapi needs automate-openapi", hint="pip install automate-openapi"
        )
    write: Any = writers["openapi"].load()
    with context.out.working("reading the document") as show:
        made: Scaffold = write(name, source, operations=operations, tags=tags, show=show)
    return made


@app.called(
    "automate plugins check",
    "automate plugins check ./automate-acme --level documented",
    "automate plugins check slack --test-connection",
    "automate plugins check --manifest write",
)
def check(
    context: Context,
    place: str = argument(f"{_PLACE} By default this folder.", ".", metavar="[PATH|KEY]"),
    level: str = option("tested", f"The level that it must reach: {_LEVELS}."),
    test_connection: bool = flag("--test-connection", "Call its check(), which asks its service."),
    manifest: str | None = option(
        None,
        "Its automate.json alone, which shows it without an import: write it, or check that it is"
        " up to date.",
        metavar="write|check",
    ),
) -> None:
    """
    Check a plugin, and print the level that it has reached, with the remedy for each problem.

    The level is computed: nobody can claim one. It runs the project's tests. With a key it looks at
    what is installed, without tests, and calls no operation. It says what it has not looked at.
    Exits with 1 below --level. A key that the application gives a plugin, as to one server of
    several, goes with --test-connection.
    """
    from automate_testing.authoring.check import PluginCheck
    from automate_testing.authoring.levels import PluginLevel
    from automate_testing.authoring.project import PluginProject

    if manifest is not None:
        inputs.alone("--manifest", test_connection=test_connection)
        _check_manifests(context, Path(place), manifest)
        return
    words = {each.word: each for each in PluginLevel}
    if level not in words:
        raise ConfigError(f"--level: there is no level {level!r}", hint=f"use {_LEVELS}")
    try:
        project = PluginProject.named(place)
    except AutomateError as error:
        if error.code is not ErrorCodes.NOT_FOUND:
            raise
        if not _checked_of_application(context, place, test_connection):
            raise
        return
    kernel = context.session.in_memory(workflows=False)
    config = context.session.settings["config"]
    with context.out.working("running the plugin's tests") as show:
        report = PluginCheck(project, kernel, config, test_connection, show).report()
    _show_report(context, report)
    if report.level < words[level]:
        raise typer.Exit(1)


def _check_manifests(context: Context, folder: Path, what: str) -> None:
    """Write the manifests beside the packages' __init__.py, or compare them with the code."""
    if what not in ("write", "check"):
        raise ConfigError("--manifest is write or check")
    check = what == "check"
    from automate_testing.authoring.project import PluginProject

    project = PluginProject.at(folder)
    project.require_installed()
    rows = []
    for path, made in project.manifests().items():
        text = made.to_text()
        current = path.is_file() and path.read_text("utf-8") == text
        if not current and not check:
            path.write_text(text, "utf-8")
        state = "up to date" if current else "not up to date" if check else "written"
        rows.append({"path": str(path), "state": state, "plugins": len(made.plugins)})
    context.out.data(rows)
    for row in rows:
        context.out.line(f"{row['state']}: {row['path']}")
    if check and any(row["state"] != "up to date" for row in rows):
        raise typer.Exit(1)


def _checked_of_application(context: Context, key: str, test_connection: bool) -> bool:
    """Test the connection of a plugin whose *key* is the application's own, if there is such."""
    from automate_kernel.monitoring.diagnosis import connection_answer

    kernel = context.session.in_memory(workflows=False)
    kinds = [kind for kind in ("connector", "provider") if key in kernel.plugins.keys(kind)]
    if kinds and not test_connection:
        raise ConfigError(
            f"the key {key!r} is this application's, and of no distribution's own",
            hint="add --test-connection, or name the distribution to have it checked",
        )
    for kind in kinds:
        answer = connection_answer(kernel, kind, key)
        context.out.data({"kind": kind, "key": key, "connection": answer})
        context.out.line(f"{kind} {key}: {answer}")
    return bool(kinds)


def _show_report(context: Context, report: CheckReport) -> None:
    out, levels = context.out, type(report.level)
    out.data(report.to_json())
    out.line(f"{report.name} {report.version}: {', '.join(report.plugins) or 'no plugins'}")
    for level in list(levels)[1:]:
        missed = [each for each in report.problems if each.level is level]
        out.line(f"{level.word}: {_result(report, level, len(missed))}")
        for each in missed:
            out.line(f"  {each.requirement}: {each.text}", "red")
            out.line(f"    {each.remedy}")
    for (text, remedy), names in _alike(report.unseen).items():
        out.line(f"not looked at ({', '.join(names)}): {text}", "yellow")
        out.line(f"  {remedy}")
    for note in report.notes:
        out.line(note)
    style = "green" if report.level is levels.COMPLETE else None
    out.line(f"level {report.level.value} of {len(levels) - 1}: {report.level.word}", style)


def _result(report: CheckReport, level: PluginLevel, missed: int) -> str:
    """Return the words for the result of a level: problems, and parts that nothing looked at."""
    unseen = [each.requirement for each in report.unseen if each.level is level]
    if not missed and any(each.requirement in _FIRST for each in report.problems):
        return "not looked at"
    beside = f"; not looked at: {', '.join(dict.fromkeys(unseen))}" if unseen else ""
    return f"{missed or 'no'} problem{'s' * (missed != 1)}{beside}"


def _alike(unseen: Sequence[CheckProblem]) -> dict[tuple[str, str], list[str]]:
    """Return the requirements that nothing looked at, by the reason and the remedy."""
    found: dict[tuple[str, str], list[str]] = {}
    for each in unseen:
        found.setdefault((each.text, each.remedy), []).append(each.requirement)
    return found

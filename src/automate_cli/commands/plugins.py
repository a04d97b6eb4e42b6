"""``automate plugins``: installed and registered plugins, and their states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import typer

from automate_cli import inputs
from automate_cli.command import Commands, Context
from automate_cli.inputs import argument, flag, option
from automate_cli.output import attributes
from automate_cli.settings import meant
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.plugins import PluginRecord, Plugins
from automate_kernel.plugins.discovery import misspelt
from automate_kernel.plugins.manifest import installed_manifest

app: Commands = Commands(
    "plugins", "Look at connectors, providers and other plugins; make and check your own."
)


@app.called(
    "automate plugins ls",
    "automate plugins ls --load   # import all, to see",
    "automate plugins ls --search 'send message' --json",
)
def ls(
    context: Context,
    load: bool = flag("--load", "Import each and make it with its config, to see if it works."),
    kind: str | None = option(None, "Only this kind: connector, provider, …"),
    search: str | None = option(
        None,
        "Actions, webhooks and others by words in their names and descriptions.",
        metavar="WORDS",
    ),
) -> None:
    """
    List plugins, where each comes from, and its state.

    With --load it exits with 1 if a plugin is broken, or can't be made with its config. With
    --search nothing is imported: a plugin without a manifest is found by its key alone.
    """
    if search is not None:
        inputs.alone("--search", load=load)
        _search(context, search, kind)
        return
    kernel, out = context.session.in_memory(workflows=False), context.out
    problems = {}
    if load:
        kernel.plugins.load_all()
        problems = kernel.operations.plugin_problems()
    records = kernel.plugins.records(kind)
    rows = [_data(record, problems) for record in records]
    columns = {
        "KIND": "kind", "KEY": "key", "STATE": "state", "FROM": "source", "TARGET": "target",
        "ABOUT": "description",
    }  # fmt: skip
    out.data(rows)
    out.table(columns, [[row[of] for of in columns.values()] for row in rows], empty="no plugins")
    unusable = [each for each in records if not each.usable and each.remedy]
    for record in unusable:
        out.line(f"{record.kind} {record.key}: {record.error or record.state.value}", "red")
        out.line(f"  {record.remedy}")
    for (of, key), problem in sorted(problems.items()):
        if kind in {None, of}:
            out.line(f"{of} {key}: {problem.message}", "red")
            out.line(f"  {problem.hint or f'automate plugins show {of}:{key} shows its config'}")
    for wrong in misspelt():
        out.line(f"{wrong}: {wrong.remedy}", "yellow")
    if load and any(row["state"] in {"BROKEN", "UNUSABLE"} for row in rows):
        raise typer.Exit(1)


def _data(
    record: PluginRecord, problems: Mapping[tuple[str, str], AutomateError] | None = None
) -> dict[str, Any]:
    names = ("kind", "key", "target", "source", "state", "replaced_by", "error", "remedy", "usable")
    data = {**attributes(record, *names), "state": record.state.value}
    about, _ = described_by(record, whole=False)
    data["description"] = about["description"] if about is not None else None
    problem = (problems or {}).get((record.kind, record.key))
    if problem is not None and record.usable:
        wrong = {"state": "UNUSABLE", "error": problem.message, "remedy": problem.hint}
        data |= {**wrong, "usable": False}
    return data


@app.called(
    "automate plugins show http",
    "automate plugins show connector:http --load   # import it, to see if it works",
    "automate plugins show slack --markdown > slack.md",
    "automate plugins show ./automate-acme --markdown",
)
def show(
    context: Context,
    key: str = argument("The plugin's key, or kind:key; with --markdown also its folder."),
    load: bool = flag("--load", "Import it, though it has a manifest."),
    markdown: bool = flag("--markdown", "A whole reference page, with errors and an example."),
) -> None:
    """
    Show a plugin: its state, its config, and its actions or capabilities with their input.

    A plugin with a manifest is not imported.
    """
    if markdown:
        inputs.alone("--markdown", load=load)
        _show_page(context, key)
        return
    plugins, out = context.session.in_memory(workflows=False).plugins, context.out
    record = _found(plugins, key)
    about, problem = (None, None) if load else described_by(record)
    if about is None:
        try:
            plugin = plugins.get(record.kind, record.key)
            from automate_testing.authoring.description import describe

            about = describe(plugins.registry(record.kind).kind, record.key, record.target, plugin)
            problem = None
        except AutomateError as error:
            problem = error
        record = _found(plugins, key)
    data = {**_data(record), "description": (about or {}).get("description")}
    out.data({**data, **(about or {})})
    out.fields((field, str(value)) for field, value in data.items() if value not in (None, ""))
    _show_about(context, about or {})
    if problem is not None:
        if context.debug and record.traceback:
            out.note(record.traceback)
        raise problem


def _show_page(context: Context, place: str) -> None:
    """Print the page that the plugin's models and docstrings make."""
    from automate_testing.authoring.example import ExampleFile
    from automate_testing.authoring.project import PluginProject, described
    from automate_testing.authoring.reference import reference_page

    project = PluginProject.named(place)
    if project.folder is not None:
        project.require_installed()
    abouts = [described(each) for each in project.found]
    examples = (ExampleFile.of(each["target"]) for each in abouts)
    example = next((each.text for each in examples if each is not None), None)
    page = reference_page(project.name, abouts, example)
    context.out.data({"distribution": project.name, "page": page})
    context.out.line(page.rstrip("\n"))


def _found(plugins: Plugins, key: str) -> PluginRecord:
    """Return the record of the plugin that a user means by its key."""
    kind, _, name = key.rpartition(":")
    records = [
        each for each in plugins.records(kind or None) if each.key == name and not each.replaced_by
    ]
    if not records:
        keys = [record.key for record in plugins.records()]
        near = meant(name, keys) or meant(name.partition(".")[0], keys)  # of one of its operations
        hint = f"did you mean {near}?" if near else "automate plugins ls lists them"
        raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no plugin {name!r}", hint=hint)
    if len(records) > 1:
        kinds = ", ".join(f"{each.kind}:{name}" for each in records)
        raise ConfigError(f"there are several plugins {name!r}", hint=f"say which: {kinds}")
    return records[0]


def _search(context: Context, words: str, kind: str | None) -> None:
    plugins = context.session.in_memory(workflows=False).plugins
    rows = [
        row
        for record in plugins.records(kind)
        for row in searchable(record)
        if all(word in row["text"] for word in words.lower().split())
    ]
    found = [{name: row[name] for name in ("kind", "name", "about", "source")} for row in rows]
    columns = {"KIND": "kind", "NAME": "name", "FROM": "source", "ABOUT": "about"}
    context.out.data(found)
    nothing = f"nothing installed is about {words!r}"
    context.out.table(columns, [[row[of] for of in columns.values()] for row in found],
                      empty=nothing)  # fmt: skip


def described_by(
    record: PluginRecord, *, whole: bool = True
) -> tuple[Mapping[str, Any] | None, AutomateError | None]:
    """
    Return what the manifest says of a plugin, or None; and why it can't be read.

    A list of plugins needs not the *whole* of it.
    """
    try:
        manifest = installed_manifest(record)
        if manifest is None:
            return None, None
        found = manifest.of_class(record.kind, record.key, record.target)
        return (manifest.whole(found) if whole and found is not None else found), None
    except AutomateError as error:
        return None, error


def searchable(record: PluginRecord) -> Iterator[dict[str, str]]:
    """Yield what can be found of a plugin: itself, its operations, webhooks and polls."""
    about, _ = described_by(record)
    about = about or {"title": "", "description": "", "operations": [], "triggers": []}
    common = {"source": record.source}

    def row(kind: str, name: str, text: str) -> dict[str, str]:
        line = " ".join(text.split("\n\n", maxsplit=1)[0].split())
        words = f"{kind} {name} {about['title']} {text}".lower()
        return {**common, "kind": kind, "name": name, "about": line, "text": words}

    yield row(record.kind, record.key, about["description"])
    operation = "action" if record.kind == "connector" else "capability"
    for what, kind in (("operations", operation), ("triggers", "webhook"), ("polls", "poll")):
        for each in about.get(what, ()):
            yield row(kind, f"{record.key}.{each['name']}", each["description"])


def _show_about(context: Context, about: Mapping[str, Any]) -> None:
    out = context.out
    for name, field in (about.get("config") or {}).get("properties", {}).items():
        out.line(f"config  {name}: {field.get('description', field.get('title', ''))}")
    word = "action" if about.get("kind") == "connector" else "capability"
    for spec in about.get("operations", ()):
        fields, required = spec["input"].get("properties", ()), spec["input"].get("required", ())
        shown = ", ".join(name if name in required else f"[{name}]" for name in fields)
        out.line(f"{word}  {spec['name']}({shown})")
        if spec["description"]:
            out.line(f"        {spec['description'].splitlines()[0]}")
    for spec in about.get("triggers", ()):
        needs = f"  needs {', '.join(spec['secrets'])}" if spec["secrets"] else ""
        out.line(f"trigger  {spec['name']}{needs}")
    for spec in about.get("polls", ()):
        out.line(f"poll  {spec['name']}  every {spec['every_seconds']:g} s")

"""``automate plugins``: installed and registered plugins, and their states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from automate_kernel.cli.command import Commands, Context
from automate_kernel.cli.inputs import argument, flag, option
from automate_kernel.cli.output import attributes
from automate_kernel.cli.settings import meant
from automate_kernel.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.operations.schemas import json_schema_of
from automate_kernel.plugins import PluginRecord
from automate_kernel.plugins.discovery import misspelt

app: Commands = Commands("plugins", "Look at connectors, providers and other plugins.")


@app.called("automate plugins ls", "automate plugins ls --load   # import all, to see")
def ls(
    context: Context,
    load: bool = flag("--load", "Import each and make it with its config, to see if it works."),
    kind: str | None = option(None, "Only this kind: connector, provider, …"),
) -> None:
    """
    List plugins, where each comes from, and its state.

    With --load it exits with 1 if one is broken, or can't be made with its config.
    """
    kernel, out = context.session.in_memory(workflows=False), context.out
    problems = kernel.plugin_problems() if load else {}
    records = kernel.plugins.records(kind)
    rows = [_data(record, problems) for record in records]
    columns = {"KIND": "kind", "KEY": "key", "STATE": "state", "FROM": "source", "TARGET": "target"}
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
    problem = (problems or {}).get((record.kind, record.key))
    if problem is not None and record.usable:
        wrong = {"state": "UNUSABLE", "error": problem.message, "remedy": problem.hint}
        data |= {**wrong, "usable": False}
    return data


@app.called("automate plugins show http", "automate plugins show connector:http --json")
def show(context: Context, key: str = argument("The plugin's key, or kind:key.")) -> None:
    """Show a plugin: its state, its config, and its actions or capabilities with their input."""
    plugins, out = context.session.in_memory(workflows=False).plugins, context.out
    kind, _, name = key.rpartition(":")
    records = [
        each for each in plugins.records(kind or None) if each.key == name and not each.replaced_by
    ]
    if not records:
        near = meant(name, [record.key for record in plugins.records()])
        hint = f"did you mean {near}?" if near else "automate plugins ls lists them"
        raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no plugin {name!r}", hint=hint)
    if len(records) > 1:
        kinds = ", ".join(f"{each.kind}:{name}" for each in records)
        raise ConfigError(f"there are several plugins {name!r}", hint=f"say which: {kinds}")
    plugin, problem = None, None
    try:
        plugin = plugins.get(records[0].kind, name)
    except AutomateError as error:
        problem = error
    record = next(each for each in plugins.records(records[0].kind) if each.key == name)
    details = _details(plugin)
    out.data({**_data(record), **details})
    out.fields((field, str(value)) for field, value in _data(record).items() if value is not None)
    _show_details(context, details)
    if problem is not None:
        if context.debug and record.traceback:
            out.note(record.traceback)
        raise problem


def _details(plugin: Any) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if hasattr(plugin, "config_schema"):
        details["config"] = json_schema_of(plugin.config_schema())
    for what in ("actions", "capabilities"):
        if hasattr(plugin, what):
            names = ("name", "idempotent", "read_only", "destructive", "description")
            details[what] = [
                {**attributes(spec, *names), "input": spec.json_schema()}
                for spec in getattr(plugin, what)()
            ]
    if hasattr(plugin, "triggers"):
        details["triggers"] = [
            {
                **attributes(spec, "name", "description"),
                "secrets": list(getattr(spec.signature, "keys", ())),
            }
            for spec in plugin.triggers()
        ]
    return details


def _show_details(context: Context, details: dict[str, Any]) -> None:
    out = context.out
    for name, field in details.get("config", {}).get("properties", {}).items():
        out.line(f"config  {name}: {field.get('description', field.get('title', ''))}")
    for what, word in (("actions", "action"), ("capabilities", "capability")):
        for spec in details.get(what, ()):
            fields, required = (
                spec["input"].get("properties", ()),
                spec["input"].get("required", ()),
            )
            shown = ", ".join(name if name in required else f"[{name}]" for name in fields)
            out.line(f"{word}  {spec['name']}({shown})")
            if spec["description"]:
                out.line(f"        {spec['description'].splitlines()[0]}")
    for spec in details.get("triggers", ()):
        needs = f"  needs {', '.join(spec['secrets'])}" if spec["secrets"] else ""
        out.line(f"trigger  {spec['name']}{needs}")

"""The page of the command line, read from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from _generate.markdown import NOTE, prose

__all__ = ["cli", "commands"]


def commands() -> list[tuple[str, Any]]:
    """Every command of `automate` that is not hidden: its full name, and click's object."""
    import typer

    from automate_cli.app import app

    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        yield path, command
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                if not inner.hidden:
                    yield from walk(inner, f"{path} {name}")

    return list(walk(typer.main.get_command(app), "automate"))


def cli() -> str:
    """The page of the command line."""
    parts = [NOTE, "# The command `automate`"]
    for path, command in commands():
        parts += [f"## `{path}`" if " " in path else "", _help(command)]
        usage = [_metavar(p) for p in command.params if p.param_type_name == "argument"]
        if not hasattr(command, "commands"):
            parts.append(f"```text\n{' '.join([path, '[OPTIONS]', *usage])}\n```")
        if rows := [row for p in command.params if (row := _option(p))]:
            parts.append("\n".join(rows))
    parts += ["## Exit codes", EXIT_CODES_INTRODUCTION, _exit_codes()]
    parts += ["## Settings", SETTINGS_INTRODUCTION, _settings()]
    return "\n\n".join(part for part in parts if part) + "\n"


SETTINGS_INTRODUCTION = """\
Each setting can stand in an `automate.toml` in the current folder or one above (`worker.slots` is
`slots` in the table `[worker]`), and most also in an environment variable. An option of the command
wins over the variable, and the variable over the file. `automate doctor --settings` shows what
counts."""


EXIT_CODES_INTRODUCTION = """\
The same for every command of `automate` and of `manage.py`."""


def _exit_codes() -> str:
    from automate_cli.command import EXIT_CODES

    rows = ["| exit code | means |", "| --- | --- |"]
    return "\n".join([*rows, *(f"| {code} | {text} |" for code, text in EXIT_CODES.items())])


def _settings() -> str:
    from automate_cli.settings import SETTINGS

    rows = ["| setting | variable | default | meaning |", "| --- | --- | --- | --- |"]
    for setting in SETTINGS.values():
        variable = f"`{setting.variable}`" if setting.variable else ""
        default = "" if setting.default in (None, [], {}) else f"`{setting.default}`"
        words = f" One of {', '.join(setting.words)}." if setting.words else ""
        text = (setting.help + words).replace("|", "\\|")
        rows.append(f"| `{setting.name}` | {variable} | {default} | {text} |")
    return "\n".join(rows)


def _metavar(argument: Any) -> str:
    if (argument.metavar or "").startswith("["):
        return str(argument.metavar)
    name = (argument.metavar or argument.name).upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _help(command: Any) -> str:
    text = (command.help or "").split("\f")[0]
    return prose(text)


def _option(parameter: Any) -> str:
    if getattr(parameter, "hidden", False) or parameter.name in _OF_TYPER:
        return ""
    text = " ".join((getattr(parameter, "help", None) or "").split())
    if parameter.param_type_name == "argument":
        name = (parameter.metavar or parameter.name).strip("[]…").upper()
        return f"- `{name}`" + (f": {text}" if text else "")
    shown = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    if parameter.metavar:
        shown += f" `{parameter.metavar}`"
    default = parameter.default
    shown_default = getattr(parameter, "show_default", None)
    if isinstance(shown_default, str):
        text += f" Default: `{shown_default}`, or the [setting](#settings) that says so."
    elif type(default) in (int, float, str) and default != "":
        text += f" Default: `{default}`."
    return f"- {shown}: {text}".rstrip(": ")


_OF_TYPER = ("help", "install_completion", "show_completion")

"""The page of the commands of `manage.py`."""

from __future__ import annotations

import re
from typing import Any

from _generate.django_facts import facts
from _generate.markdown import NOTE, prose

__all__ = ["manage"]

INTRODUCTION = """\
The commands that `automate_django` adds to a project. Beside the options below each has Django's
own, such as `--settings` and `--traceback`. All have the same
[exit codes](cli.md#exit-codes). Their use is described in [Django](../howto/django.md)."""

MOUNTED = """\
These commands are mounted, without `--config`, `--database` and `--debug`:"""


def manage() -> str:
    """The page of the commands of `manage.py`."""
    parts = [NOTE, "# Commands of `manage.py`", INTRODUCTION]
    for command in facts()["commands"]:
        parts += [f"## `{command['path']}`", _text(command["help"])]
        arguments = [p for p in command["parameters"] if not p["names"]]
        if not command["group"]:
            words = ["COMMAND", "[ARGS]..."] if command["path"].endswith(" automate") else []
            usage = [command["path"], "[OPTIONS]", *map(_metavar, arguments), *words]
            parts.append(f"```text\n{' '.join(usage)}\n```")
        if command["parameters"]:
            parts.append("\n".join(map(_row, command["parameters"])))
        if command["path"] == "manage.py automate":
            parts += [MOUNTED, _mounted()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _mounted() -> str:
    """The commands of `automate` that are mounted, each with a link to its page."""
    import typer

    from automate_cli.app import hosted

    group = typer.main.get_command(hosted)
    own = {"automate db": "`migrate`, which rebuilds wrong indexes; `migrate --check` names them"}
    rows = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        text = own.get(f"automate {name}") or (command.help or "").split("\n\n")[0]
        link = f"[`manage.py automate {name}`](cli.md#automate-{name})"
        rows.append(f"- {link}: {text}".rstrip("."))
    return "\n".join(rows)


def _text(text: str | None) -> str:
    before = re.split(r"\n\s*examples?:", text or "", flags=re.IGNORECASE)[0]
    return prose(before)


def _metavar(parameter: dict[str, Any]) -> str:
    name = str(parameter["name"]).upper() + ("..." if parameter["many"] else "")
    return name if parameter["required"] else f"[{name}]"


def _row(parameter: dict[str, Any]) -> str:
    text = " ".join((parameter["help"] or "").replace("%%", "%").split())
    text = text.replace(" (default: %(default)s)", "")  # it follows
    if not parameter["names"]:
        return f"- `{str(parameter['name']).upper()}`" + (f": {text}" if text else "")
    shown = ", ".join(f"`{name}`" for name in parameter["names"])
    if parameter["value"]:
        shown += f" `{str(parameter['name']).upper()}`"
    if parameter["default"] not in (None, ""):
        text += f" Default: `{parameter['default']}`."
    return f"- {shown}: {text}".rstrip(": ")

"""The page of the commands of `manage.py`."""

from __future__ import annotations

import re
from typing import Any

from _generate.django_facts import facts
from _generate.markdown import NOTE, prose

__all__ = ["manage"]

INTRODUCTION = """\
The commands that `automate_django` adds to a project. Beside the options below each has Django's
own, such as `--settings` and `--traceback`. `automate_outbox`, `automate_executions`,
`automate_emit` and `automate_doctor` are the commands of [`automate`](cli.md) on the project's
kernel. All have the same [exit codes](cli.md#exit-codes). How they are used is in
[Django](../howto/django.md)."""


def manage() -> str:
    """The page of the commands of `manage.py`."""
    parts = [NOTE, "# Commands of `manage.py`", INTRODUCTION]
    for command in facts()["commands"]:
        parts += [f"## `{command['path']}`", _text(command["help"])]
        arguments = [p for p in command["parameters"] if not p["names"]]
        if not command["group"]:
            usage = [command["path"], "[OPTIONS]", *map(_metavar, arguments)]
            parts.append(f"```text\n{' '.join(usage)}\n```")
        if command["parameters"]:
            parts.append("\n".join(map(_row, command["parameters"])))
    return "\n\n".join(part for part in parts if part) + "\n"


def _text(text: str | None) -> str:
    before = re.split(r"\n\s*examples?:", text or "", flags=re.IGNORECASE)[0]
    return prose(before)


def _metavar(parameter: dict[str, Any]) -> str:
    name = str(parameter["name"]).upper() + ("..." if parameter["many"] else "")
    return name if parameter["required"] else f"[{name}]"


def _row(parameter: dict[str, Any]) -> str:
    text = " ".join((parameter["help"] or "").replace("%%", "%").split())
    if not parameter["names"]:
        return f"- `{str(parameter['name']).upper()}`" + (f": {text}" if text else "")
    shown = ", ".join(f"`{name}`" for name in parameter["names"])
    if parameter["value"]:
        shown += f" `{str(parameter['name']).upper()}`"
    if parameter["default"] not in (None, ""):
        text += f" Default: `{parameter['default']}`."
    return f"- {shown}: {text}".rstrip(": ")

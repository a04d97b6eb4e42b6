"""``automate config``: every setting, its value, and where that came from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import typer

from automate_kernel.cli.command import Context, command

if TYPE_CHECKING:
    from automate_kernel.cli.settings import Setting

__all__ = ["add_to", "shown"]

_HIDDEN = "(hidden)"
_TELLING = re.compile(r"pass|secret|token|key|credential|auth|dsn|url", re.IGNORECASE)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "config",
        data=True,
        examples=("automate config", "automate config --json | jq .settings.database"),
    )(config)


def config(context: Context) -> None:
    """
    Show every setting: its value, where that came from, and the variable that sets it.

    The file automate.toml (or the table tool.automate in pyproject.toml) is read first, then the
    environment, then flags; the later ones win. Passwords and tokens are not shown.
    """
    settings, out = context.session.settings, context.out
    rows = [(setting, shown(setting, value.value), value.source) for setting, value in settings]
    out.data(
        {
            "file": settings.file and str(settings.file),
            "settings": {
                setting.name: {
                    "value": value,
                    "source": source,
                    "variable": setting.variable,
                    "help": setting.help,
                }
                for setting, value, source in rows
            },
        }
    )
    out.line(f"file: {settings.file or 'none (automate.toml or pyproject.toml)'}\n")
    out.table(
        ("SETTING", "VALUE", "FROM", "VARIABLE"),
        [(setting.name, value, source, setting.variable) for setting, value, source in rows],
    )
    for name, near in settings.strays:
        out.note(f"{name} is set and read by nobody{f': do you mean {near}?' if near else ''}")


def shown(setting: Setting, value: Any) -> Any:
    """*value* as it may be seen: without passwords and tokens."""
    if value is None:
        return None
    if setting.name == "database":
        from automate_kernel.cli.database import hide_password

        return hide_password(value)
    if setting.hidden:
        return _reference_or_hidden(value)
    if setting.name in ("config", "secrets"):
        return _masked(value)
    return value


def _reference_or_hidden(value: Any) -> Any:
    text = str(value)
    # Nothing but a reference to a secret is itself no secret.
    is_reference = re.fullmatch(r"\$(secret|env):\{?[\w./-]+\}?", text) is not None
    return text if is_reference or not text else _HIDDEN


def _masked(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _masked(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_masked(each, name) for each in value]
    if isinstance(value, str):
        if "://" in value and "@" in value:
            return _HIDDEN
        return _reference_or_hidden(value) if _TELLING.search(name) else value
    return value

"""``automate doctor --settings``: every setting, its value, and the source of the value."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from automate_cli.command import Context
from automate_cli.database import hide_password
from automate_cli.output import attributes
from automate_cli.settings import SETTINGS, Setting
from automate_kernel.secrets.masking import masked_by_schema, reference_or_hidden

# The options of our own backends, none of which is a secret.
_BACKEND = {"properties": {name: {"type": "string"} for name in ("backend", "directory", "prefix")}}

_STORE = {"properties": {name: {"type": "string"} for name in ("store", "bucket", "prefix")}}


def show_settings(context: Context, *, show_values: bool) -> None:
    """
    Show every setting: its value, the source of the value, and the variable that sets it.

    Passwords and tokens are hidden, and so are those options of plugins that their models don't
    know, unless *show_values*.
    """
    settings, out = context.session.settings, context.out
    schemas = {} if show_values else _schemas(context)
    rows = {
        name: {
            "value": each.value if show_values else shown(SETTINGS[name], each.value, schemas),
            "source": each.source,
            **attributes(SETTINGS[name], "variable", "help"),
        }
        for name, each in settings.values.items()
    }
    out.data({"file": settings.file and str(settings.file), "settings": rows})
    out.line(f"file: {settings.file or 'none (automate.toml or pyproject.toml)'}\n")
    out.table(
        ("SETTING", "VALUE", "FROM", "VARIABLE"),
        [(name, row["value"], row["source"], row["variable"]) for name, row in rows.items()],
    )
    for name, near in settings.strays:
        out.note(f"{name} is set and read by nobody{f': do you mean {near}?' if near else ''}")


def shown(
    setting: Setting, value: Any, schemas: Mapping[str, Mapping[str, Any]] | None = None
) -> Any:
    """
    Return *value* without passwords and tokens.

    *schemas* are the JSON Schemas of the plugins' configs, by key; options that none of them knows
    are hidden.
    """
    if value is None:
        return None
    if setting.name == "database":
        return hide_password(value)
    if setting.hidden:
        many = isinstance(value, list)
        return [*map(reference_or_hidden, value)] if many else reference_or_hidden(value)
    if setting.name == "config":
        known = schemas or {}
        return {
            key: masked_by_schema(options, known.get(key), "" if isinstance(options, dict) else key)
            for key, options in value.items()
        }
    if setting.name == "output_store" and not isinstance(value, str):
        return masked_by_schema(value, _STORE)
    if setting.name == "secrets":
        return [
            each if isinstance(each, str) else masked_by_schema(each, _BACKEND) for each in value
        ]
    return value


def _schemas(context: Context) -> dict[str, Mapping[str, Any]]:
    """Return the JSON Schemas of the configured plugins' configs, as far as they load."""
    found: dict[str, Mapping[str, Any]] = {}
    configured = context.session.settings["config"]
    if not configured:
        return found
    # A plugin or app that is broken keeps nobody from looking; its options are hidden.
    with contextlib.suppress(Exception):
        plugins = context.session.in_memory().plugins
        for key in configured:
            for kind in ("connector", "provider"):
                if key in plugins.keys(kind):
                    with contextlib.suppress(Exception):
                        found[key] = plugins.get(kind, key).config_json_schema()
    return found

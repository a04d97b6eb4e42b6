"""
What only a Django that is set up can tell of itself, as JSON: our models and our commands.

Run as a program, by `django_told`, so that whoever writes the pages need not be a Django project.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["facts"]

# Those that every command of Django has.
_DJANGOS = {
    "--help", "--version", "--verbosity", "--settings", "--pythonpath", "--traceback",
    "--no-color", "--force-color", "--skip-checks",
}  # fmt: skip


@cache
def facts() -> dict[str, Any]:
    """Models and commands, in a process of its own."""
    import subprocess

    done = subprocess.run(  # noqa: S603
        [sys.executable, __file__], text=True, stdout=subprocess.PIPE, check=True
    )
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def _set_up() -> None:
    import django
    from django.conf import settings

    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "automate_django"],
        USE_TZ=True,
        AUTOMATE_PLUGINS={"DISCOVER": False},
    )
    django.setup()


def _models() -> Iterator[dict[str, Any]]:
    from django.apps import apps

    for model in apps.get_app_config("automate_django").get_models():
        meta = model._meta
        if meta.proxy:
            continue  # it has no table
        yield {
            "table": meta.db_table,
            "model": model.__name__,
            "doc": model.__doc__,
            "columns": [
                {
                    "name": field.column,
                    "type": field.get_internal_type(),
                    "length": field.max_length,
                    "null": field.null,
                    "key": field.primary_key,
                    "to": field.related_model and field.related_model._meta.db_table,
                }
                for field in meta.concrete_fields
            ],
            "indexes": [
                *([each.name, list(each.fields), False] for each in meta.indexes),
                *([each.name, list(each.fields), True] for each in meta.constraints),
                *(
                    [None, [field.column], True]
                    for field in meta.concrete_fields
                    if field.unique and not field.primary_key
                ),
                *(
                    [None, [field.column], False]
                    for field in meta.concrete_fields
                    if field.db_index and not field.unique
                ),
            ],
        }


def _commands() -> Iterator[dict[str, Any]]:
    from django.core.management import load_command_class

    folder = Path(__import__("automate_django").__file__).parent / "management" / "commands"
    for name in sorted(path.stem for path in folder.glob("automate*.py")):
        command = load_command_class("automate_django", name)
        yield from _parsers(command.create_parser("manage.py", name), f"manage.py {name}")


def _parsers(parser: ArgumentParser, path: str) -> Iterator[dict[str, Any]]:
    actions = [a for a in parser._actions if not set(a.option_strings) & _DJANGOS]
    inner = [action for action in actions if isinstance(action, _SubParsersAction)]
    yield {
        "path": path,
        "help": parser.description,
        "group": bool(inner),
        "parameters": [
            {
                "names": action.option_strings,
                "name": action.metavar or action.dest,
                "value": action.nargs != 0,
                "many": action.nargs in ("*", "+"),
                "required": action.required,
                "help": action.help,
                "default": action.default if type(action.default) in (int, float, str) else None,
            }
            for action in actions
            if not isinstance(action, _SubParsersAction) and action.help != "==SUPPRESS=="
        ],
    }
    for each in inner:
        for name, below in each.choices.items():
            yield from _parsers(below, f"{path} {name}")


def _permissions() -> dict[str, str]:
    """Django's permission for each route of the REST API."""
    from automate_django.api.v1.views import permission_of
    from automate_kernel.http.api.routes import ROUTES

    return {route.name: permission_of(route) for route in ROUTES}


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2] / "src")
    _set_up()
    told = {"models": list(_models()), "commands": list(_commands())}
    json.dump({**told, "permissions": _permissions()}, sys.stdout)

"""The project that ``automate init`` makes: a copy of ``examples/starter``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from automate_cli.settings import Settings
from automate_kernel.base.errors import ConfigError

FIRST_EVENT: tuple[str, dict[str, Any]] = (
    "order.created",
    {"number": 4711, "lines": [{"price": 20, "quantity": 3}, {"price": 5, "quantity": 1}]},
)
"""The event with which a new project shows its first run."""
_OPTIONAL = ".gitignore"


def has_project(settings: Settings) -> bool:
    """Return True if there are settings, or workflows, or code that they name."""
    return settings.file is not None or settings.given("app") or settings.given("workflows") or (
        settings.folder / "workflows"
    ).is_dir()  # fmt: skip


def make_project(folder: Path) -> list[str]:
    """
    Write the project into *folder*, and return the names of its files.

    Raises `ConfigError`, before it writes anything, if one of them is there already.
    """
    source = _source()
    paths = [path for path in sorted(source.rglob("*")) if path.is_file()]
    names = [path.relative_to(source).as_posix() for path in paths if path.suffix != ".pyc"]
    there = [name for name in names if os.path.lexists(folder / name) and name != _OPTIONAL]
    if there:
        raise ConfigError(
            f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} there already, and nothing "
            "was written",
            hint="take another folder (automate init FOLDER), or name your own code: "
            "automate dev --app module:kernel",
        )
    made = []
    try:
        for name in names:
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                # Exclusively: never what somebody else has written since.
                with place.open("xb") as file:
                    file.write((source / name).read_bytes())
            except FileExistsError:
                continue
            made.append(name)
    except OSError as error:
        raise ConfigError(f"can't write {folder / name}: {error.strerror or error}") from None
    return made


def _source() -> Path:
    """Return the folder of the project: a part of the installed package, or of the repository."""
    installed = Path(__file__).with_name("starter_project")
    return installed if installed.is_dir() else Path(__file__).parents[2] / "examples" / "starter"

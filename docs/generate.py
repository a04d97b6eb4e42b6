# ruff: noqa: INP001, T201  (a script beside the pages that it writes)
"""
Writes the pages of the reference that the code itself can tell: `python docs/generate.py`.

The API is read from the source, without importing it, so that no framework has to be configured;
the command line is read from the commands themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent / "src")]

from _generate.api import API, api, names  # noqa: E402
from _generate.catalogue import catalogue, plugin_levels  # noqa: E402
from _generate.cli import cli, commands  # noqa: E402
from _generate.manage import manage  # noqa: E402
from _generate.rest_api import rest_api  # noqa: E402
from _generate.tables import filters, tables  # noqa: E402

__all__ = ["PAGES", "commands", "page"]

PAGES: dict[str, Callable[[], str]] = {
    "reference/api/names.md": names,
    "reference/tables.md": tables,
    "reference/filters.md": filters,
    "reference/cli.md": cli,
    "reference/manage.md": manage,
    "reference/rest-api.md": rest_api,
    "reference/plugin-levels.md": plugin_levels,
    "catalogue.md": catalogue,
    **{
        f"reference/api/{name}.md": partial(api, title, modules)
        for name, (title, modules) in API.items()
    },
}


def page(path: str) -> str:
    """What the page at *path* should say."""
    return PAGES[path]()


def main() -> None:
    """Write every page."""
    for path in PAGES:
        file = DOCS / path
        file.parent.mkdir(parents=True, exist_ok=True)
        text = page(path)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    main()

"""
Refuses a release whose parts name different versions: `python versions.py 0.1.0`.

It needs the standard library alone: a release calls it before anything is installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def differing(version: str, root: Path = ROOT) -> list[str]:
    """Return the places below *root* that do not name *version*."""
    wrong = []
    for project in (root / "pyproject.toml", *sorted(root.glob("plugins/*/pyproject.toml"))):
        said = re.search(r'^version = "(.+)"$', project.read_text("utf-8"), re.MULTILINE)
        if said is None or said[1] != version:
            wrong.append(f"{project.relative_to(root)}: version is {said and said[1]}")
    heading = re.compile(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", re.MULTILINE)
    if not heading.search((root / "CHANGELOG.md").read_text("utf-8")):
        wrong.append(f"CHANGELOG.md: there is no '## [{version}] - YYYY-MM-DD'")
    return wrong


if __name__ == "__main__":
    sys.exit("\n".join(differing(sys.argv[1])) or 0)

"""Where the command ``automate`` begins."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line, and exit with what it says."""
    if sys.argv[1:] == ["--version"]:
        # Asked for by scripts, at every start: it needs nothing else.
        from automate_kernel.cli.version import version_line

        print(version_line())
        return
    try:
        from automate_kernel.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "tomli", "yaml", "sqlalchemy"):
            raise
        print(f"error: the command line needs {error.name}", file=sys.stderr)
        print("hint: pip install 'automate-kernel[cli]'", file=sys.stderr)
        raise SystemExit(2) from None
    app(prog_name="automate")

"""``python -m automate_cli``."""

from __future__ import annotations

from automate_cli import main

if __name__ == "__main__":
    main()

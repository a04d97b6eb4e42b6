"""``python -m automate_kernel.cli``."""

from __future__ import annotations

from automate_kernel.cli import main

if __name__ == "__main__":
    main()

"""Which database the project's tables are in, for tests that run on several."""

from __future__ import annotations

from typing import Any


class TestedDatabase:
    """Sends everything to the database that the running test is about."""

    alias = "default"

    def db_for_read(self, model: Any, **hints: Any) -> str:
        """The alias to read from."""
        return TestedDatabase.alias

    db_for_write = db_for_read

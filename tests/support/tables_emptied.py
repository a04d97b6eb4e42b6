"""How tests empty their tables between them: most of these hold nothing, and one statement says which do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any


def empty(
    names: Iterable[str], read: Callable[[str], Sequence[Any]], do: Callable[[str], Any]
) -> None:
    """Delete what is in the tables; *read* gives the rows of a query, and *do* runs a statement."""
    # In a table of its own each: not every database takes a LIMIT inside a UNION.
    parts = (
        f"SELECT * FROM (SELECT '{name}' AS name FROM {name} LIMIT 1) AS filled" for name in names
    )
    for (name,) in read(" UNION ALL ".join(parts)):
        do(f"DELETE FROM {name}")

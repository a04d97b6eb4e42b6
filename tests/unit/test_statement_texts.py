"""Texts of statements are kept, and those of long lists are not."""

from __future__ import annotations

import pytest

from automate_kernel.outbox.item import new_id
from automate_kernel.storage.dialects import DIALECTS
from automate_kernel.storage.query import PerKey, Where
from automate_kernel.storage.sql import SqlStatement, _changes_text, _conditions_text
from automate_kernel.storage.tables import OUTBOX, TABLES

TABLE = TABLES[OUTBOX]


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_texts_of_long_lists_take_no_memory(name: str) -> None:
    """On MariaDB each number of values had a text of its own, a thousand of them 124 MB."""
    _conditions_text.cache_clear()
    ids = [new_id() for _ in range(3000)]
    for count in range(1, 3000, 100):
        statement = SqlStatement(DIALECTS[name], "%s", None)
        text = statement.where(TABLE, [Where("id", "in", ids[:count])])
        if not DIALECTS[name].arrays:
            assert text.count("{}") == len(statement.parameters) == count
    kept = _conditions_text.cache_info().currsize
    assert kept <= 4


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_texts_of_a_value_per_key_are_not_kept(name: str) -> None:
    """There is another text for each number of keys."""
    _changes_text.cache_clear()
    for count in (1, 2, 3):
        statement = SqlStatement(DIALECTS[name], "%s", None)
        values = {new_id(): number for number in range(count)}
        text = statement.changes(TABLE, {"priority": PerKey(values)})
        assert text.count("WHEN") == count
        assert len(statement.parameters) == 2 * count
    assert _changes_text.cache_info().currsize == 0

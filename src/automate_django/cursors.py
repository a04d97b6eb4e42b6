"""psycopg's own cursors on Django's connections."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["direct_cursor"]


def direct_cursor(connection: BaseDatabaseWrapper) -> Any:
    """
    A cursor of psycopg 3 on *connection*; None with another driver, or where Django's is wanted.

    Django reads instants with a loader in Python, which costs more than all the rest of an item
    that is claimed, and sends parameters as text. Its own cursor is wanted by whoever wraps or
    logs statements.
    """
    if (
        connection.vendor != "postgresql"
        or connection.execute_wrappers
        or connection.queries_logged
        or not _on_psycopg3()
    ):
        return None
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    return _cursor_class()(connection.connection)


def _on_psycopg3() -> bool:
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return bool(is_psycopg3)


@cache
def _cursor_class() -> Any:
    import psycopg

    class DirectCursor(psycopg.Cursor[Any]):
        """Reads and writes values as psycopg does where nobody has changed that."""

        @property
        def adapters(self) -> psycopg.adapt.AdaptersMap:
            return psycopg.adapters

    return DirectCursor

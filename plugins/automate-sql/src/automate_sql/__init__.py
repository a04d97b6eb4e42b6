"""
SQL databases as a connector of automate-kernel: PostgreSQL, MariaDB, MySQL and SQLite.

Workflows use `SqlConnector`: queries with bound parameters, read-only unless allowed, and new rows
as events. `CREATE_TABLE` is the table that keeps a call from being repeated.
"""

from __future__ import annotations

from automate_sql.calls import CREATE_TABLE
from automate_sql.config import SqlConfig, TableWatch
from automate_sql.connector import (
    ExecuteResult,
    ExportResult,
    PageResult,
    QueryResult,
    SqlConnector,
    Tables,
)
from automate_sql.tables import Description, ForeignKey, TableColumn

__all__ = [
    "CREATE_TABLE",
    "Description",
    "ExecuteResult",
    "ExportResult",
    "ForeignKey",
    "PageResult",
    "QueryResult",
    "SqlConfig",
    "SqlConnector",
    "TableColumn",
    "TableWatch",
    "Tables",
]
